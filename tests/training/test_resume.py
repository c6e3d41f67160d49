"""A training that was stopped at any moment and resumed reaches the weights of one that was not, bit for bit."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from edgekit.models.checkpoint import save_weights
from edgekit.models.zoo import build
from edgekit.recipe import Recipe, load_recipe
from edgekit.runtime.artifact import read_artifact
from edgekit.runtime.errors import ArtifactError, BadConfig, ChildDied, EdgeKitError
from edgekit.training import place
from edgekit.training.fit import _interruptible, fit
from edgekit.training.resume import RESUME, STAMP, Start, begin, stamp

from . import jobs
from .conftest import Result, result_of
from .jobs import Death

DEATHS = [
    Death("step", 1),  # before anything was saved
    Death("step", 3),  # in the middle of the second epoch
    Death("step", 6),  # in the last step of the third
    Death("after save", 1),
    Death("after save", 3),
    Death("in save", 2),  # half of the file is written
    Death("in publish", 1),
    Death("in publish", 2),  # in the last epoch
]


@pytest.mark.parametrize("death", DEATHS, ids=str)
def test_killed_and_resumed(death: Death, tiny: Path, tmp_path: Path, uninterrupted: Result) -> None:
    out = tmp_path / "run"
    assert jobs.run(jobs.train, tiny, out, [], False, death) == -signal.SIGKILL
    if out.exists():
        read_artifact(out)  # whole: raises if a hash does not match
    assert jobs.run(jobs.train, tiny, out, [], True, None) == 0
    assert result_of(out).weights == uninterrupted.weights
    assert not list(out.with_name("run-training").glob(".resume*"))


def test_killed_twice_with_other_workers(tiny: Path, tmp_path: Path, uninterrupted: Result) -> None:
    out = tmp_path / "run"
    jobs.run(jobs.train, tiny, out, ["train.workers=2"], False, Death("step", 3))
    jobs.run(jobs.train, tiny, out, ["train.workers=0"], True, Death("step", 7))
    assert jobs.run(jobs.train, tiny, out, ["train.workers=1"], True, None) == 0
    assert result_of(out).weights == uninterrupted.weights


def test_the_table_of_metrics_continues(tiny: Path, tmp_path: Path, uninterrupted: Result) -> None:
    """Every epoch once, as in the uninterrupted training."""
    out = tmp_path / "run"
    jobs.run(jobs.train, tiny, out, [], False, Death("step", 5))
    jobs.run(jobs.train, tiny, out, [], True, None)
    assert [row["epoch"] for row in result_of(out).table] == ["0", "1", "2", "3"]
    assert result_of(out) == uninterrupted


@pytest.mark.slow
def test_the_command_killed_from_outside(tiny: Path, tmp_path: Path, uninterrupted: Result) -> None:
    """At no chosen moment: some time after the first epoch."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "edgekit", "train", str(tiny), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=jobs.REPO)
    while not (tmp_path / "run-training" / RESUME).exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.05)
    process.kill()
    process.wait()
    subprocess.run([*command, "--resume"], check=True, capture_output=True, cwd=jobs.REPO)
    assert result_of(out).weights == uninterrupted.weights


# -- a finished training ----------------------------------------------------------------------------------------------
def test_a_finished_training_resumed_is_what_it_was(tiny: Path, tmp_path: Path) -> None:
    """Weights and their metrics; and with more epochs it goes on."""
    recipe, out = load_recipe(tiny, ["train.epochs=2", "train.workers=0"]), tmp_path / "run"
    fit(recipe, out)
    before = result_of(out)
    fit(recipe, out, resume=True)
    again = result_of(out)
    assert (again.weights, again.metrics) == (before.weights, before.metrics)
    assert "map50" in again.metrics
    fit(load_recipe(tiny, ["train.epochs=3", "train.workers=0"]), out, resume=True)
    assert result_of(out).metrics["epochs"] == 3


def test_nothing_left_to_train_is_told(tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = ["train.workers=0", "data.val=null"]
    fit(load_recipe(tiny, [*settings, "train.epochs=1"]), tmp_path / "run")
    said = "this training had reached its end, epoch 1, before; nothing was trained"
    assert said not in caplog.messages
    fit(load_recipe(tiny, [*settings, "train.epochs=1"]), tmp_path / "run", resume=True)
    assert caplog.messages.count(said) == 1
    caplog.clear()
    fit(load_recipe(tiny, [*settings, "train.epochs=2"]), tmp_path / "run", resume=True)
    assert "nothing was trained" not in caplog.text


# -- two trainings into one place -------------------------------------------------------------------------------------
def hold_until_killed(file: Path, out: Path) -> None:
    """A training that stands still in its second epoch, with a loader's process."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)

    def progress(_: str, done: int, __: int) -> None:
        if done == 3:
            (out.parent / "reached").touch()
            time.sleep(600)

    fit(load_recipe(file, ["train.workers=1", "data.val=null"]), out, progress=progress)


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_training_into_the_same_place_is_refused(tiny: Path, tmp_path: Path, resume: bool) -> None:
    """Its folder stays where it is; and the place is free at once when the first one dies, however it does."""
    recipe, out = load_recipe(tiny, ["train.workers=0", "data.val=null", "train.epochs=2"]), tmp_path / "run"
    first = jobs.start(hold_until_killed, tiny, out)
    while not (tmp_path / "reached").exists() and first.is_alive():
        time.sleep(0.05)
    with pytest.raises(BadConfig, match=rf"another training \(pid {first.pid} on .*\) writes here.*another --out"):
        fit(recipe, out, resume)
    assert (tmp_path / "run-training" / RESUME).is_file()
    assert not (tmp_path / "run-training.previous").exists()
    first.kill()
    first.join()
    fit(recipe, out)
    assert read_artifact(out).manifest["metrics"]["epochs"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {
        *("data", "reached", "run", "run-training", "run-training.previous")
    }


def test_a_file_system_without_locks_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(place.fcntl, "lockf", no_locks)
    with place.only_training(tmp_path / "run-training"):
        pass


def test_a_lock_that_its_holder_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking the file: it would lock a file that nobody else can find."""
    file, real = tmp_path / ".run-training.lock", fcntl.lockf
    ends = iter([file.unlink, lambda: None])

    def lock_late(handle: Any, how: int) -> None:
        next(ends)()
        real(handle, how)

    monkeypatch.setattr(place.fcntl, "lockf", lock_late)
    with place.only_training(tmp_path / "run-training"):
        assert file.is_file()
    assert not file.exists()


# -- Ctrl-C and SIGTERM -----------------------------------------------------------------------------------------------
@pytest.fixture
def terminal() -> Iterator[None]:
    """SIGINT as a process has it in the foreground; in a background job it is ignored from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("terminal")
def test_ctrl_c(tiny: Path, tmp_path: Path, uninterrupted: Result) -> None:
    """It is KeyboardInterrupt, the newest published weights are whole, and --resume goes on."""
    out, recipe = tmp_path / "run", load_recipe(tiny)

    def progress(_: str, done: int, __: int) -> None:
        if done == 6:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"the last finished epoch is kept; .* with --resume"):
        fit(recipe, out, progress=progress)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # the next Ctrl-C works too
    assert read_artifact(out).manifest["metrics"]["epochs"] == 2
    fit(recipe, out, resume=True)
    assert result_of(out).weights == uninterrupted.weights


@pytest.mark.usefixtures("terminal")
def test_ctrl_c_in_the_first_epoch_promises_nothing(tiny: Path, tmp_path: Path) -> None:
    def progress(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"no epoch was finished, .* the same command begins anew"):
        fit(load_recipe(tiny, ["train.workers=0"]), tmp_path / "run", progress=progress)


def terminate_in_step(file: Path, out: Path, step: int) -> None:
    torch.set_num_threads(1)

    def progress(_: str, done: int, __: int) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    fit(load_recipe(file, ["train.workers=0"]), out, progress=progress)


def test_sigterm_is_no_success(tiny: Path, tmp_path: Path) -> None:
    """Schedulers and service managers look at the exit code; Lightning's own is 0."""
    out = tmp_path / "run"
    assert jobs.run(terminate_in_step, tiny, out, 5) == 128 + signal.SIGTERM
    assert read_artifact(out).manifest["metrics"]["epochs"] == 2


@pytest.mark.parametrize(
    "end",
    [
        SIGTERMException(),  # Lightning's
        SystemExit(128 + signal.SIGTERM),  # of the command line's handler, beside which Lightning installs none
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated."),
    ],
)
def test_sigterm_says_what_is_kept(end: BaseException, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer: Any = SimpleNamespace(received_sigterm=False)
    file = tmp_path / "resume.ckpt"
    for kept in ("no epoch was finished", "the last finished epoch is kept; repeat the command with --resume"):
        with pytest.raises(SystemExit) as ended, _interruptible(trainer, file):
            raise end
        assert ended.value.code == 128 + signal.SIGTERM
        assert f"terminated; {kept}" in caplog.text
        file.touch()


def terminate_the_group(file: Path, out: Path, step: int) -> None:
    torch.set_num_threads(1)

    def progress(_: str, done: int, __: int) -> None:
        if done == step:
            for process in (*multiprocessing.active_children(), multiprocessing.current_process()):
                os.kill(process.pid, signal.SIGTERM)

    fit(load_recipe(file, ["train.workers=1"]), out, progress=progress)


def test_sigterm_to_the_group_is_no_bug(tiny: Path, tmp_path: Path) -> None:
    """As timeouts and schedulers send it: the process that loads images dies of it first."""
    assert jobs.run(terminate_the_group, tiny, tmp_path / "run", 5) == 128 + signal.SIGTERM


def test_a_loader_that_is_killed(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def progress(_: str, done: int, __: int) -> None:
        if done == 5:
            (loader,) = multiprocessing.active_children()
            loader.kill()

    with pytest.raises(ChildDied, match=r"--resume train\.workers=0"):
        fit(load_recipe(tiny, ["train.workers=1"]), out, progress=progress)
    assert read_artifact(out).manifest["metrics"]["epochs"] == 2
    fit(load_recipe(tiny, ["train.workers=0"]), out, resume=True)
    assert read_artifact(out).manifest["metrics"]["epochs"] == 4


# -- what belongs together --------------------------------------------------------------------------------------------
PARENTS = {"train": "1" * 64, "init": "2" * 64}


def interrupted(work: Path, recipe: Recipe, world: int = 1, **more: Any) -> Path:
    """A folder as an interrupted training leaves it."""
    work.mkdir()
    content = {"state_dict": {}, "optimizer_states": [], "global_step": 6, STAMP: stamp(recipe, world, PARENTS), **more}
    torch.save(content, work / RESUME)
    return work


def go_on(work: Path, recipe: Recipe, resume: bool = True, parents: Mapping[str, str] = PARENTS) -> Start:
    return begin(work, recipe, 1, resume, True, parents, work.with_name("out"))


@pytest.mark.parametrize(
    "override",
    [
        *("train.epochs=90", "train.workers=3", "train.validate_every=1", "data.root=/elsewhere", "description=other"),
        "train.init=elsewhere/checkpoint",
    ],
)
def test_what_may_change(tiny: Path, tmp_path: Path, override: str) -> None:
    work = interrupted(tmp_path / "work", load_recipe(tiny))
    start = go_on(work, load_recipe(tiny, [override]))
    assert (start.file, start.step) == (work / RESUME, 6)


def test_a_class_map_beside_the_recipe_is_the_one_that_an_older_file_names(tiny: Path, tmp_path: Path) -> None:
    """Older versions kept it as the recipe has it; today its whole path is kept."""
    (tiny.parent / "map.yaml").touch()
    recipe = load_recipe(tiny, ["data.class_map=map.yaml"])
    assert recipe.data is not None
    older = recipe.model_copy(update={"data": recipe.data.model_copy(update={"class_map": "map.yaml"})})
    work = interrupted(tmp_path / "work", older)
    assert go_on(work, recipe).file == work / RESUME


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lr=5e-4", "train.lr: was 0.001, now 0.0005"),
        ("train.seed=1", "train.seed: was 0, now 1"),
        ("classes=[vehicle, scooter]", "classes: was"),
        ("model.options={head_filters: 64}", "model.options.head_filters: was None, now 64"),
        ("augment.crop=[64, 64]", "augment.crop"),
        ("data.train=val.json", "data.train"),
    ],
)
def test_what_may_not_change(tiny: Path, tmp_path: Path, override: str, words: str) -> None:
    work = interrupted(tmp_path / "work", load_recipe(tiny))
    with pytest.raises(BadConfig) as error:
        go_on(work, load_recipe(tiny, [override]))
    assert words in str(error.value)
    assert str(work / RESUME) in str(error.value)


def test_the_number_of_processes_may_not_change(tiny: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny)
    work = interrupted(tmp_path / "work", recipe, world=2)
    with pytest.raises(BadConfig, match="processes: was 2, now 1"):
        go_on(work, recipe)


@pytest.mark.parametrize(
    ("kind", "words"), [("cosine", r"train\.epochs: was 4, now 90 \(a cosine goes by it\)"), ("exponential", "")]
)
def test_more_epochs_are_the_same_training_unless_the_schedule_goes_by_them(
    tiny: Path, tmp_path: Path, kind: str, words: str
) -> None:
    schedule = f"train.schedule={{kind: {kind}}}"
    work = interrupted(tmp_path / "work", load_recipe(tiny, [schedule]))
    with pytest.raises(BadConfig, match=words) if words else contextlib.nullcontext():
        go_on(work, load_recipe(tiny, [schedule, "train.epochs=90"]))


@pytest.mark.parametrize(
    ("parents", "words"),
    [
        ({"init": "3" * 64}, r"train\.init: its contents' hash was 222222222222\.\.\., now 333333333333\.\.\."),
        ({"teacher": "4" * 64}, r"teacher\.weights: its contents' hash was none, now 444444444444"),
        ({"train": "5" * 64}, r"data \(annotations, list of images, classes\): its contents' hash was 1111"),
    ],
)
def test_what_the_weights_were_made_from_may_not_change(
    tiny: Path, tmp_path: Path, parents: dict[str, str], words: str
) -> None:
    """A manifest names the parents of its weights: those that the training began with, wherever they lie now."""
    recipe = load_recipe(tiny)
    work = interrupted(tmp_path / "work", recipe)
    assert go_on(work, recipe).parents == PARENTS
    with pytest.raises(BadConfig, match=words):
        go_on(work, recipe, parents={**PARENTS, **parents})


def test_which_class_began_as_which_may_not_change(tiny: Path, tmp_path: Path) -> None:
    """It is read with ``train.init`` alone, and the manifest tells it."""
    work = interrupted(tmp_path / "work", load_recipe(tiny, ["train.init=x", "train.init_classes={vehicle: car}"]))
    with pytest.raises(BadConfig, match=r"train\.init_classes\.vehicle: was car, now bus"):
        go_on(work, load_recipe(tiny, ["train.init=x", "train.init_classes={vehicle: bus}"]))


def test_a_training_that_replaced_its_own_start_goes_on(tiny: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny, [f"train.init={tmp_path / 'out'}"])
    work = interrupted(tmp_path / "work", recipe)
    assert go_on(work, recipe, parents={**PARENTS, "init": "3" * 64}).parents == PARENTS


def test_files_of_older_versions_go_on(tiny: Path, tmp_path: Path) -> None:
    """They do not say what the weights were made from; what they say is compared."""
    recipe = load_recipe(tiny)
    old = {"recipe": recipe.model_dump(mode="json"), "world": 1}
    work = interrupted(tmp_path / "work", recipe, **{STAMP: old})
    assert go_on(work, recipe) == Start(work / RESUME, 6, PARENTS)
    with pytest.raises(BadConfig, match=r"train\.lr"):
        go_on(work, load_recipe(tiny, ["train.lr=5e-4"]))


def test_a_resume_file_says_what_the_published_manifest_says(tiny: Path, tmp_path: Path, trained: Path) -> None:
    """Another start is refused with the file of a real training, and the same one elsewhere is not."""
    out, moved, other = tmp_path / "run", tmp_path / "moved.safetensors", tmp_path / "other.safetensors"
    shutil.copy2(trained, moved)
    save_weights(build("mobile-centernet", 3), other, jobs.CLASSES)
    settings = ["train.epochs=1", "train.workers=0", "data.val=null"]
    before = fit(load_recipe(tiny, [*settings, f"train.init={trained}"]), out).manifest["parents"]
    assert before.keys() == {"train", "init"}
    settings = [*settings, "train.epochs=2"]
    with pytest.raises(BadConfig, match=r"train\.init: its contents' hash was"):
        fit(load_recipe(tiny, [*settings, f"train.init={other}"]), out, resume=True)
    assert fit(load_recipe(tiny, [*settings, f"train.init={moved}"]), out, resume=True).manifest["parents"] == before


def broken(kind: str, file: Path) -> None:
    content = file.read_bytes()
    changed = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "no checkpoint": b"weights",
        "flipped": content[:400] + bytes(b ^ 255 for b in content[400:500]) + content[500:],
    }
    file.write_bytes(changed[kind])


@pytest.mark.parametrize("kind", ["cut", "empty", "no checkpoint", "flipped"])
def test_a_broken_resume_file_is_named(tiny: Path, tmp_path: Path, kind: str) -> None:
    recipe = load_recipe(tiny)
    work = interrupted(tmp_path / "work", recipe)
    broken(kind, work / RESUME)
    with pytest.raises(EdgeKitError) as error:
        go_on(work, recipe)
    assert str(work / RESUME) in str(error.value)


def test_other_peoples_files_are_named(tiny: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny)
    work = interrupted(tmp_path / "work", recipe)
    torch.save({"some": "weights"}, work / RESUME)
    with pytest.raises(ArtifactError, match="not a training's resume file"):
        go_on(work, recipe)


def test_nothing_to_resume(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nothing to resume"):
        fit(load_recipe(tiny), tmp_path / "run", resume=True)


def test_a_training_without_a_finished_epoch_says_that_it_begins_anew(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run-training").mkdir()
    fit(load_recipe(tiny, ["train.epochs=1", "train.workers=0", "data.val=null"]), tmp_path / "run", resume=True)
    assert "no epoch of this training was finished before; it begins anew" in caplog.messages


def test_a_new_training_does_not_continue_an_older_one(tiny: Path, tmp_path: Path) -> None:
    """Its folder is set aside: killed in its first epoch, the new one has nothing of the older to resume from."""
    recipe = load_recipe(tiny)
    work = interrupted(tmp_path / "work", recipe)
    for _ in range(2):  # twice: the folder set aside before gives way
        assert go_on(work, recipe, resume=False).file is None
        assert not work.exists()
        assert (tmp_path / "work.previous" / RESUME).is_file()
        interrupted(work, recipe)
    (work / RESUME).unlink()
    assert go_on(work, recipe).file is None
