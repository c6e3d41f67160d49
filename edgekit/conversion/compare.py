"""Do two versions of a detector see the same boxes? Compared as sets, because ties may change the order."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..data.imagefile import read_image
from ..runtime.preprocess import Preprocess
from ..words import counted
from .child import run_in_child
from .session import cpu_session

BOX_TOLERANCE = 0.1  # pixels of the network input
SCORE_TOLERANCE = 1e-4
MOST_UNPAIRED = 0.01  # of all boxes, and of the strong ones
STRONG = 0.05  # score of a box that may be an object, or half the image's highest where that is less
ROOM = 2  # strong boxes that rounding may move however few there are, as long as half of them stay
FAR = 1e4  # pixels
LONGEST_SET = 1000  # boxes; the pairing takes their number squared in time and memory
Array: TypeAlias = NDArray[Any]
Outputs: TypeAlias = tuple[Array, Array]  # boxes [N, A, 4], scores [N, A, C]


@dataclass(frozen=True)
class Comparison:
    """worst_box in pixels and worst_score over the paired boxes; unpaired: boxes that have no partner in tolerance.

    ties: boxes left out because their score ties with the last one that the top-k kept.
    strong: boxes that may be objects (see STRONG); lost: those of them that have no partner. Thousands of anchors on
        the background always have one, so a share of all boxes says nothing of a few dozen objects.
    """

    boxes: int
    worst_box: float
    worst_score: float
    unpaired: int
    ties: int
    strong: int = 0
    lost: int = 0

    @property
    def same(self) -> bool:
        return self.unpaired == 0 and self.lost == 0

    @property
    def alike(self) -> bool:
        """Whether rounding explains what has no partner.

        Where two neighbours of a heat map differ in the last bit, each library may take another one for the peak.
        """
        return self.within(MOST_UNPAIRED)

    def within(self, share: float) -> bool:
        """Whether at most this share of all boxes, and of the strong ones, has no partner."""
        few = min(ROOM, self.strong // 2)
        return self.unpaired <= share * self.boxes and self.lost <= max(few, share * self.strong)

    def __str__(self) -> str:
        verdict = "all have a partner" if self.same else f"{max(self.unpaired, self.lost)} have no partner"
        verdict += f" ({self.lost} of the {self.strong} strong ones)" if self.lost else ""
        worst = f"worst difference {self.worst_box:.3g} px and {self.worst_score:.3g} in score"
        return f"{counted(self.boxes, 'box')}, {verdict}; {worst}"

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            self.boxes + other.boxes,
            max(self.worst_box, other.worst_box),
            max(self.worst_score, other.worst_score),
            self.unpaired + other.unpaired,
            self.ties + other.ties,
            self.strong + other.strong,
            self.lost + other.lost,
        )


NOTHING = Comparison(0, 0.0, 0.0, 0, 0)


def compare_outputs(
    expected: Outputs, found: Outputs, box_tolerance: float = BOX_TOLERANCE, score_tolerance: float = SCORE_TOLERANCE
) -> Comparison:
    """Pair the boxes of two outputs one to one, within both tolerances, on each image of the batch.

    Boxes whose best score lies within the tolerance of the lowest one kept may be missing on either side: a tie at the
    border of the top-k is decided by the last bit. More than LONGEST_SET boxes are anchors, which have no top-k: those
    are compared in their order. Raises ValueError when the shapes differ.
    """
    if expected[0].shape != found[0].shape or expected[1].shape != found[1].shape:
        raise ValueError(f"outputs differ in shape: {_shapes(expected)} and {_shapes(found)}")
    total = NOTHING
    for image in range(len(expected[0])):
        a, b = _image(expected, image), _image(found, image)
        compare = _compare_sets if len(a[0]) <= LONGEST_SET else _compare_in_order
        total += compare(a, b, box_tolerance, score_tolerance)
    return total


def _image(outputs: Outputs, index: int) -> Outputs:
    # an untrained head may put a corner at 1e30, where float32 has no tenth of a pixel; FAR out, all corners are one
    return np.clip(outputs[0][index].astype(np.float64), -FAR, FAR), outputs[1][index].astype(np.float64)


def _shapes(outputs: Outputs) -> str:
    return " ".join(str(list(part.shape)) for part in outputs)


def _compare_in_order(a: Outputs, b: Outputs, box_tolerance: float, score_tolerance: float) -> Comparison:
    box_gap, score_gap = np.abs(a[0] - b[0]).max(1), np.abs(a[1] - b[1]).max(1)
    good = (box_gap <= box_tolerance) & (score_gap <= score_tolerance)  # false for NaN
    worst_box, worst_score = (float(np.nanmax(gap, initial=0.0)) for gap in (box_gap, score_gap))
    strong = np.logical_or(*_strong(a, b))
    return Comparison(
        len(a[0]), worst_box, worst_score, int(np.sum(~good)), 0, int(np.sum(strong)), int(np.sum(strong & ~good))
    )


def _strong(a: Outputs, b: Outputs) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which boxes of either side may be objects."""
    best_a, best_b = (np.nan_to_num(scores.max(1)) for _, scores in (a, b))
    least = min(STRONG, max(best_a.max(initial=0.0), best_b.max(initial=0.0)) / 2)
    return best_a >= least, best_b >= least


def _lost(lonely: Array, strong: Array, scores: Array, others: Array, score_tolerance: float) -> int:
    """Strong boxes without a partner that a top-k cannot have left out for those that the other side kept."""
    border = float(others.max(1).min()) + score_tolerance
    return int(np.sum(strong[lonely] & ~(scores[lonely].max(1) <= border)))


def _compare_sets(a: Outputs, b: Outputs, box_tolerance: float, score_tolerance: float) -> Comparison:
    # [A, A], row by row: with all classes at once it would be gigabytes
    box_gap, score_gap = (np.stack([np.abs(row - b[k]).max(1) for row in a[k]]) for k in (0, 1))
    cost = np.maximum(box_gap / box_tolerance, score_gap / score_tolerance)
    cost[np.isnan(cost)] = np.inf
    partner = _pair(cost)
    paired = np.flatnonzero(partner >= 0)
    border = max(float(scores.max(1).min()) for _, scores in (a, b)) + score_tolerance
    lonely_a = np.setdiff1d(np.arange(len(cost)), paired)
    lonely_b = np.setdiff1d(np.arange(cost.shape[1]), partner[paired])
    wrong_a = lonely_a[~(a[1][lonely_a].max(1) <= border)]
    wrong_b = lonely_b[~(b[1][lonely_b].max(1) <= border)]
    strong_a, strong_b = _strong(a, b)
    lost_a = _lost(lonely_a, strong_a, a[1], b[1], score_tolerance)
    lost_b = _lost(lonely_b, strong_b, b[1], a[1], score_tolerance)
    # a box without a partner is told by its nearest one
    nearest = np.concatenate([cost[wrong_a].argmin(1), partner[paired]]).astype(int)
    rows = np.concatenate([wrong_a, paired]).astype(int)
    return Comparison(
        boxes=len(cost),
        worst_box=float(box_gap[rows, nearest].max(initial=0.0)),
        worst_score=float(score_gap[rows, nearest].max(initial=0.0)),
        unpaired=max(len(wrong_a), len(wrong_b)),
        ties=len(lonely_a) - len(wrong_a),
        strong=max(int(strong_a.sum()), int(strong_b.sum())),
        lost=max(lost_a, lost_b),
    )


def _pair(cost: Array) -> NDArray[np.int64]:
    """Largest one-to-one pairing of rows and columns among costs of at most 1: partner of each row, or -1.

    Each row takes its cheapest free column; where all are taken, a holder is asked to move (augmenting paths).
    """
    choices = [[int(j) for j in np.argsort(row) if row[j] <= 1] for row in cost]
    holder, partner = np.full(cost.shape[1], -1), np.full(len(cost), -1)
    for row in range(len(cost)):
        asked: dict[int, int] = {}  # column -> the row that wants it
        waiting = deque([row])
        while waiting and partner[row] < 0:
            wanting = waiting.popleft()
            for column in choices[wanting]:
                if column not in asked:
                    asked[column] = wanting
                    if holder[column] < 0:
                        _move_along(column, asked, holder, partner)
                        break
                    waiting.append(int(holder[column]))
    return partner


def _move_along(column: int, asked: Mapping[int, int], holder: NDArray[np.int64], partner: NDArray[np.int64]) -> None:
    """Give a free ``column`` to the row that asked for it, that row's own to the one that asked for that, and so on."""
    while column >= 0:
        row = asked[column]
        left = int(partner[row])
        holder[column], partner[row] = row, column
        column = left


# -- running both -----------------------------------------------------------------------------------------------------
def network_inputs(images: Sequence[str | Path], preprocess: Preprocess, layout: str) -> list[Array]:
    """Read images and bring them to the network's input. Raises BadInput naming an image that cannot be read."""
    return [network_input(path, preprocess, layout) for path in images]


def network_input(path: str | Path, preprocess: Preprocess, layout: str) -> Array:
    """One image file as the network's input with its batch axis. Raises BadInput naming the file."""
    return preprocess(read_image(Path(path)), layout)[0]


def run_onnx(path: str | Path, inputs: Sequence[Array]) -> list[Outputs]:
    """Boxes and scores of an ONNX file on ONNX Runtime with one thread. Native code: it may crash."""
    session = cpu_session(path, threads=1)
    batch = session.get_inputs()[0].shape[0]
    return [_both(session.run(["boxes", "scores"], {"image": fill_batch(x, batch)})) for x in inputs]


def fill_batch(image: Array, batch: object) -> Array:
    """One image as many times as a static batch asks for; a symbolic batch takes one."""
    return np.repeat(image, batch, axis=0) if isinstance(batch, int) and batch > 1 else image


def _both(outputs: Sequence[Any]) -> Outputs:
    return np.asarray(outputs[0]), np.asarray(outputs[1])


def compare_files(
    reference: str, other: str, images: Sequence[str], preprocess: Mapping[str, Any], layout: str
) -> dict[str, Any]:
    """Compare two ONNX files on real images; made for ``run_in_child``. Returns the fields of Comparison."""
    inputs = network_inputs(images, Preprocess.from_dict(preprocess), layout)
    total = NOTHING
    for a, b in zip(run_onnx(reference, inputs), run_onnx(other, inputs), strict=True):
        total += compare_outputs(a, b)
    return asdict(total)


def compare_with_torch(
    detect: Callable[[Array], Outputs],
    path: str | Path,
    images: Sequence[str | Path],
    preprocess: Preprocess,
    layout: str,
) -> Comparison:
    """PyTorch against the ONNX file on golden images; the ONNX file runs in a child process.

    detect: float32 [1, 3, H, W], as ``Preprocess`` makes it -> (boxes, scores) of the network in PyTorch
    """
    expected = [detect(network_input(image, preprocess, "nchw_float")) for image in images]
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "expected.npz"
        boxes, scores = (np.concatenate([one[part] for one in expected]) for part in (0, 1))
        np.savez(saved, boxes=boxes, scores=scores)
        request = {
            "expected": str(saved),
            "path": str(path),
            "images": [str(image) for image in images],
            "preprocess": preprocess.to_dict(),
            "layout": layout,
        }
        child = "edgekit.conversion.compare:compare_with_saved"
        return Comparison(**run_in_child(child, request, "compare with PyTorch", path))


def compare_with_saved(
    expected: str, path: str, images: Sequence[str], preprocess: Mapping[str, Any], layout: str
) -> dict[str, Any]:
    """The child's side of ``compare_with_torch``."""
    saved = np.load(expected, allow_pickle=False)
    outputs = run_onnx(path, network_inputs(images, Preprocess.from_dict(preprocess), layout))
    first = [np.concatenate([one[part][:1] for one in outputs]) for part in (0, 1)]
    return asdict(compare_outputs((saved["boxes"], saved["scores"]), (first[0], first[1])))
