"""Progress: lines in a log, bars on a terminal, and what Ctrl-C leaves."""

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap

import pytest

from edgekit.cli import progress as module
from edgekit.cli.errors import Interrupted
from edgekit.cli.progress import work
from edgekit.runtime.artifact import new_artifact, read_artifact


def test_lines_show_the_start_the_end_and_one_every_ten_seconds(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with work() as progress:
        for done in range(31):
            progress("images", done, 30)
            now[0] += 1.0
        progress("images", 30, 30)  # again: said once
        progress("report", 0, 0)
    assert capsys.readouterr().err.splitlines() == [
        "images 0/30 (0 s)",
        "images 10/30 (10 s, about 20 s left)",
        "images 20/30 (20 s, about 10 s left)",
        "images 30/30 (30 s)",
        "report (0 s)",
    ]


def test_a_long_phase_says_less_and_less(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with work() as progress:
        for step in range(9000):  # two and a half hours
            progress(f"train, epoch {step // 150 + 1}/60", step, 9000)
            now[0] += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train, epoch 1/60 0/9000 (0 s)"
    assert lines[1] == "train, epoch 1/60 10/9000 (10 s, about 2.5 h left)"
    assert 60 < len(lines) < 150


def test_what_each_epoch_ends_with_is_a_line(monkeypatch, capsys):
    """At once, and the last one's after its last step too; a resumed training's rate is of the steps since then."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with work() as progress:
        phase = "train"
        for step in range(61, 81):
            progress(phase, step, 80)
            now[0] += 40.0
            if step % 10 == 0:
                phase = f"train, epoch {step // 10}/8, loss {1 / step:.4f}"
                progress(phase, step, 80)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train 61/80 (0 s)"
    assert lines[1] == "train 62/80 (40 s, about 12 min left)"
    assert "train, epoch 7/8, loss 0.0143 70/80 (7 min, about 7 min left)" in lines
    assert lines[-2:] == [
        "train, epoch 7/8, loss 0.0143 80/80 (13 min)",
        "train, epoch 8/8, loss 0.0125 80/80 (13 min)",
    ]


def test_bars_on_a_terminal():
    code = (
        "from edgekit.cli.progress import work\nwith work() as p:\n    p('quantize', 1, 2)\n"
        "    p('quantize, try 2, loss 0.5', 2, 2)\nprint('{}')"
    )
    parent, child = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=child,
        env={**os.environ, "TERM": "xterm"},
        check=True,
    )
    os.close(child)
    shown = os.read(parent, 65536).decode()
    os.close(parent)
    assert json.loads(done.stdout) == {}
    assert "quantize" in shown
    assert "2/2" in shown
    assert shown.count("quantize, try 2, loss 0.5") == 1
    assert "━" in shown


@pytest.mark.parametrize("way", ["key", "lightning"])
def test_interrupt_names_the_output(way, tmp_path):
    def interrupt():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if way == "lightning":
                sys.exit(1)
            raise

    with pytest.raises(Interrupted, match="nothing was changed at out"), work("out"):
        interrupt()
    with pytest.raises(Interrupted, match="kept; repeat with --resume"), work("out", "kept; repeat with --resume"):
        interrupt()


def test_interrupt_has_the_words_of_the_work_itself():
    with pytest.raises(Interrupted, match="interrupted; the last epoch is kept"), work("out"):
        raise KeyboardInterrupt("the last epoch is kept")


def test_a_plain_exit_is_no_interrupt():
    with pytest.raises(SystemExit), work():
        sys.exit(3)


SLOW_EXPORT = """
    import sys, time
    import edgekit
    from edgekit.runtime.artifact import new_artifact

    def export(source, *, out, progress, **options):
        with new_artifact(out, "onnx", {"classes": []}) as folder:
            with open(folder + "/half-written", "w") as handle:
                handle.write("x")
            progress("waiting", 0, 1)
            time.sleep(60)

    edgekit.export = export
    from edgekit.cli import main

    sys.exit(main(["export", "r", "--out", sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("sent", "code", "said"), [(signal.SIGINT, 130, "nothing was changed at"), (signal.SIGTERM, 143, "")]
)
def test_a_stopped_verb_leaves_the_previous_artifact_whole(sent, code, said, tmp_path):
    out = tmp_path / "out"
    with new_artifact(out, "onnx", {"classes": []}) as folder, open(f"{folder}/model.onnx", "w") as handle:
        handle.write("the previous one")
    before = read_artifact(out).digest
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW_EXPORT), str(out)], stderr=subprocess.PIPE, text=True
    )
    assert "waiting" in process.stderr.readline()
    process.send_signal(sent)
    err = process.communicate(timeout=300)[1]
    assert process.returncode == code
    assert said in err
    assert "Traceback" not in err
    assert read_artifact(out).digest == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_leaves_the_previous_artifact_whole(tmp_path, pipeline, capsys):
    from edgekit.cli import main

    out = tmp_path / "out"
    with new_artifact(out, "onnx", {"classes": []}) as folder, open(f"{folder}/model.onnx", "w") as handle:
        handle.write("the previous one")
    before = read_artifact(out).digest

    def export(**kwargs):
        with new_artifact(kwargs["out"], "onnx", {"classes": []}), open("/dev/full", "w") as handle:
            handle.write("x" * 100_000)

    pipeline.results["export"] = export
    assert main(["export", "r", "--out", str(out)]) == 2
    assert "no space left on the disk" in capsys.readouterr().err
    assert read_artifact(out).digest == before


def test_the_program_keeps_its_exit_code_when_ctrl_c_comes_while_python_shuts_down(monkeypatch):
    from edgekit import cli

    monkeypatch.setattr(cli, "main", lambda: 3)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.command()
        assert (ended.value.code, signal.getsignal(signal.SIGINT)) == (3, signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGINT, before)
