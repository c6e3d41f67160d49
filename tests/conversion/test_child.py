import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.conversion.child import run_in_child
from edgekit.runtime.errors import BadInput, ChildDied

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _children(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))


def call(function, **arguments):
    return run_in_child(f"children:{function}", arguments, "simplify", "model.onnx")


def test_a_result_comes_back_whatever_the_child_prints():
    assert call("chatter", text="0123456789" * 20_000) == 200_000


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_death_by_a_signal_names_step_file_and_signal(name):
    with pytest.raises(ChildDied, match=rf"step 'simplify' of model.onnx was killed by {name}"):
        call("die", name=name)


def test_any_other_failure_quotes_the_last_words():
    with pytest.raises(
        ChildDied, match=r"'simplify' of model.onnx failed with exit code 1.*RuntimeError: no such node"
    ):
        call("fail", text="no such node")


def test_a_users_mistake_keeps_its_class_and_message(tmp_path):
    with pytest.raises(BadInput, match=r"nothing\.onnx: no such file"):
        run_in_child("edgekit.conversion.graph:load_model", {"path": str(tmp_path / "nothing.onnx")}, "load", "x")


def test_progress_arrives_in_order():
    seen = []
    assert run_in_child("children:count", {"total": 3}, "s", "f", lambda *step: seen.append(step)) == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_ctrl_c_kills_the_child_and_its_children(tmp_path):
    file = tmp_path / "pids"

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_child("children:family", {"file": str(file)}, "s", "f", interrupt)
    for pid in file.read_text().split():
        assert _gone(pid)


def _gone(pid):
    """A killed grandchild may stay a zombie for a moment, until init collects it."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_child_whose_parent_is_gone_does_nothing(tmp_path):
    """No signal tells it of a death before it asked for one."""
    request = {"function": "children:write", "arguments": {"path": str(tmp_path / "done")}, "progress": False}
    receive, send = os.pipe()
    command = [sys.executable, "-m", "edgekit.runtime.child", str(send), "1"]  # 1: not who starts it
    ended = subprocess.run(command, input=json.dumps(request), text=True, pass_fds=[send], timeout=60, check=False)
    os.close(send)
    os.close(receive)
    assert ended.returncode == 1
    assert not (tmp_path / "done").exists()
