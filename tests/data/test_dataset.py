"""Items, the order of an epoch, and the loader that is watched."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from edgekit.data.augment import Augment
from edgekit.data.coco import CocoSet, read_coco
from edgekit.data.dataset import DetectionDataset, EpochSampler, WatchedLoader, stack_canvases
from edgekit.runtime.errors import BadInput
from edgekit.runtime.images import read_image
from edgekit.runtime.preprocess import Preprocess

SAMPLE = Path(__file__).resolve().parents[2] / "calibration" / "dhaka-calib"


@pytest.fixture(scope="module")
def coco() -> CocoSet:
    return read_coco(SAMPLE / "annotations.json", SAMPLE / "images", check_images=False)


# -- items ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
def test_an_item_is_what_the_board_sees(coco: CocoSet, mode: str) -> None:
    """Without augmentation the canvas is Preprocess's own, and the boxes go back to where they came from."""
    preprocess = Preprocess((128, 96), mode=mode, colour="rgb")
    sample = coco.samples[3]
    item = DetectionDataset(coco, preprocess)[0, 3]
    canvas, _ = preprocess.canvas(read_image(sample.path))
    np.testing.assert_array_equal(item.canvas, canvas)
    assert item.image_id == sample.image_id
    np.testing.assert_allclose(item.placement.to_original(item.boxes.xyxy), sample.boxes, atol=1e-3)
    np.testing.assert_array_equal(item.boxes.labels, sample.labels)


def test_randomness_is_of_seed_epoch_and_image_alone(coco: CocoSet) -> None:
    def item(seed: int, epoch: int, index: int = 0) -> np.ndarray:
        return DetectionDataset(coco, Preprocess((64, 64)), Augment(), seed)[epoch, index].canvas

    np.testing.assert_array_equal(item(0, 0), item(0, 0))
    for other in (item(1, 0), item(0, 1)):
        assert (item(0, 0) != other).any()


def test_augmentation_leaves_the_set_as_it_was(coco: CocoSet) -> None:
    before = coco.samples[0].boxes.copy()
    dataset = DetectionDataset(coco, Preprocess((64, 64)), Augment(flip=1))
    for epoch in range(3):
        assert dataset[epoch, 0].boxes.xyxy.max() <= 64
    np.testing.assert_array_equal(coco.samples[0].boxes, before)


def test_canvases_are_stacked_without_a_copy_to_channels_first(coco: CocoSet) -> None:
    dataset = DetectionDataset(coco, Preprocess((64, 32)))
    batch = stack_canvases([dataset[0, 0], dataset[0, 1]])
    assert batch.shape == (2, 3, 32, 64)
    assert batch.stride() == (32 * 64 * 3, 1, 64 * 3, 3)


# -- the order of an epoch --------------------------------------------------------------------------------------------
def epoch_of(sampler: EpochSampler, epoch: int) -> list[tuple[int, int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_an_epoch_is_shuffled_anew_and_is_the_same_again() -> None:
    sampler = EpochSampler(20, True, seed=3)
    first, second = epoch_of(sampler, 0), epoch_of(sampler, 1)
    assert [e for e, _ in second] == [1] * 20
    assert sorted(i for _, i in first) == sorted(i for _, i in second) == list(range(20))
    assert [i for _, i in first] != [i for _, i in second]
    assert epoch_of(EpochSampler(20, True, seed=3), 1) == second
    assert epoch_of(EpochSampler(20, True, seed=4), 1) != second


@pytest.mark.parametrize(("length", "world", "batch"), [(24, 2, 4), (23, 2, 4), (31, 3, 2), (7, 2, 3), (8, 1, 4)])
def test_processes_together_make_the_doubled_batch(length: int, world: int, batch: int) -> None:
    """Batch k of all processes is batch k of one process with a batch as large as theirs together."""
    alone = epoch_of(EpochSampler(length, True, 0, 0, 1, batch * world), 2)
    parts = [epoch_of(EpochSampler(length, True, 0, rank, world, batch), 2) for rank in range(world)]
    assert {len(part) for part in parts} == {len(EpochSampler(length, True, 0, 0, world, batch))}
    for k in range(len(parts[0]) // batch):
        together = {key for part in parts for key in part[k * batch : (k + 1) * batch]}
        assert together == set(alone[k * batch * world : (k + 1) * batch * world])
    assert len(parts[0]) * world == len(alone) == length // (batch * world) * batch * world


@pytest.mark.parametrize(("length", "world"), [(10, 1), (10, 3), (2, 3)])
def test_validation_takes_every_image_once_and_in_order(length: int, world: int) -> None:
    parts = [EpochSampler(length, False, 0, rank, world) for rank in range(world)]
    assert [len(list(part)) for part in parts] == [len(part) for part in parts]
    assert sorted(i for part in parts for _, i in part) == list(range(length))
    assert all(list(part) == sorted(part) for part in parts)


# -- the loader -------------------------------------------------------------------------------------------------------
class Slow:
    """Ten numbers; each takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return 10

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        time.sleep(self.seconds)
        return key


def loader(dataset: Any, kind: type[DataLoader[Any]] = WatchedLoader, workers: int = 0) -> DataLoader[Any]:
    return kind(
        dataset,
        batch_size=2,
        sampler=EpochSampler(len(dataset), True),
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=list,
    )


def test_the_wait_is_counted_and_the_work_is_not() -> None:
    slow = loader(Slow(0.01))
    for _ in slow:
        time.sleep(0.02)
    assert isinstance(slow, WatchedLoader)
    assert 0.1 <= slow.waited < 0.2  # ten times 0.01, of 0.2 in all


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_begins_with_its_first_batch(workers: int) -> None:
    """Lightning makes the iterator first and sets the epoch then, when it resumes."""
    watched = loader(Slow(0), workers=workers)
    batches = iter(watched)
    watched.sampler.set_epoch(7)  # type: ignore[attr-defined]
    assert {epoch for batch in batches for epoch, _ in batch} == {7}
    watched.sampler.set_epoch(8)  # type: ignore[attr-defined]
    assert {epoch for batch in watched for epoch, _ in batch} == {8}


def test_a_plain_loader_with_workers_begins_too_early() -> None:
    """Why WatchedLoader exists: should PyTorch or Lightning change, this tells."""
    plain = loader(Slow(0), DataLoader, workers=1)
    batches = iter(plain)
    plain.sampler.set_epoch(7)  # type: ignore[attr-defined]
    assert {epoch for batch in batches for epoch, _ in batch} == {0}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_without_a_traceback(tmp_path: Path, workers: int) -> None:
    content = json.loads((SAMPLE / "annotations.json").read_text(encoding="utf-8"))
    file = tmp_path / "images" / content["images"][0]["file_name"]
    file.parent.mkdir()
    file.write_bytes((SAMPLE / "images" / file.name).read_bytes()[:2000])
    content["images"] = content["images"][:1]
    content["annotations"] = []
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
    coco = read_coco(tmp_path / "a.json", file.parent, check_images=False)
    with pytest.raises(BadInput) as error:
        list(loader(DetectionDataset(coco, Preprocess((64, 64))), workers=workers))
    assert str(error.value).startswith(str(file))
    assert "Traceback" not in str(error.value)
