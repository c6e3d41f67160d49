"""Training at several input sizes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgekit.data.dataset import EpochSampler
from edgekit.recipe import load_recipe
from edgekit.training.batches import DetectionData, SizeSampler
from edgekit.training.fit import training_sets
from edgekit.training.matching import IGNORED, box_collate


def sizes(keys: Iterable[tuple[int, int, int]], batch: int) -> list[int]:
    """The size of each batch; a batch has one."""
    drawn = [size for _, _, size in keys]
    batches = [drawn[i : i + batch] for i in range(0, len(drawn), batch)]
    assert all(len(set(one)) == 1 for one in batches)
    return [one[0] for one in batches]


def sampler(rank: int = 0, world: int = 1, seed: int = 0, every: int = 2) -> SizeSampler:
    return SizeSampler(EpochSampler(40 * world, True, seed, rank, world, 4), 3, every)


def test_every_second_batch_has_a_new_size_and_all_are_drawn() -> None:
    drawn = []
    one = sampler()
    for epoch in range(6):
        one.set_epoch(epoch)
        drawn += sizes(one, 4)
    assert len(drawn) == 60
    assert [drawn[i] for i in range(0, 60, 2)] == [drawn[i] for i in range(1, 60, 2)]
    assert set(drawn) == {0, 1, 2}


def test_sizes_depend_on_seed_and_epoch_alone() -> None:
    """All processes draw the same, so does a training that goes on; another seed draws others."""
    one, other, seeded = sampler(), sampler(rank=1, world=2), sampler(seed=1)
    for each in (one, other, seeded):
        each.set_epoch(3)
    assert sizes(one, 4) == sizes(one, 4) == sizes(other, 4)
    assert sizes(one, 4) != sizes(seeded, 4)
    assert len(one) == 40


def test_images_and_boxes_have_the_size_that_was_drawn(tiny: Path) -> None:
    recipe = load_recipe(
        tiny,
        [
            "model={name: yolo, options: {backbone: darknet-tiny, neck: yolov3-tiny}}",
            "train.multiscale={sizes: [[96, 64], [192, 128]], every: 1}",
            "train.workers=0",
            "augment={flip: 0, scale: [1, 1], shift: 0, colour: 0}",
        ],
    )
    train, _ = training_sets(recipe)
    loader = DetectionData(recipe, train, None, box_collate).train_dataloader()
    seen = {}
    for epoch in range(8):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for image, batch in loader:
            width = image.shape[3]
            assert image.shape[2] * 3 == width * 2
            seen[width] = np.sort((batch.boxes[batch.objects][:, 2] / width).numpy())
    assert seen.keys() == {96, 192}
    for shares in seen.values():
        assert 0 < shares.min() < shares.max() <= 1


def test_a_mosaic_cuts_boxes_as_the_recipe_says(tiny: Path) -> None:
    """Nothing else cuts here: with 1 every cut box is ignored, with 0 none is."""
    ignored = []
    for least in (0, 1):
        plain = f"augment={{flip: 0, scale: [1, 1], shift: 0, colour: 0, mosaic: 1, min_visible: {least}}}"
        recipe = load_recipe(tiny, [plain, "train.workers=0"])
        data = DetectionData(recipe, *training_sets(recipe), box_collate)
        ignored.append(sum(int((batch.labels == IGNORED).sum()) for _, batch in data.train_dataloader()))
    assert ignored[0] == 0 < ignored[1]
