"""The pictures of a weights' card: loss and mAP by epoch, and the images that went best and worst."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import cv2
import numpy as np

from edgekit.data.coco import CocoSet, Sample
from edgekit.measure import draw
from edgekit.measure.charts import nice_axis
from edgekit.runtime import colours
from edgekit.runtime.detections import Detections
from edgekit.runtime.errors import BadInput
from edgekit.runtime.images import read_image
from edgekit.runtime.postprocess import pairwise_iou
from edgekit.words import counted

Epochs = Sequence[Mapping[str, str]]  # the rows of a metrics.csv

# -- curves -----------------------------------------------------------------------------------------------------------
WIDTH, LEFT, RIGHT, PANEL, TOP, GAP, BOTTOM = 720, 52, 16, 170, 30, 54, 44  # pixels
CURVES = {"val/map50": ("mAP@0.5", "#1b6ca8"), "val/map": ("mAP", "#c2571a"), "train/loss": ("loss", "#3a3a3a")}
SCALE = {"val/map50": 100, "val/map": 100, "train/loss": 1}
PANELS = ("val/map50", "val/map"), ("train/loss",)
TITLES = "on the validation set, percent", "of the training, logarithmic"


def curves(stages: Sequence[Epochs]) -> str:
    """An SVG of mAP and loss over the epochs of consecutive trainings; dashed lines stand between them."""
    ends = np.cumsum([max(int(row["epoch"]) for row in rows) + 1 for rows in stages]).tolist()
    every = [(row, start) for rows, start in zip(stages, [0, *ends], strict=False) for row in rows]
    parts = []
    for k, (names, title) in enumerate(zip(PANELS, TITLES, strict=True)):
        lines = {
            name: [
                (start + int(row["epoch"]) + 1, float(row[name]) * SCALE[name]) for row, start in every if row.get(name)
            ]
            for name in names
        }
        title += "; dashed: stages begin" if len(stages) > 1 else ""
        parts += panel({n: points for n, points in lines.items() if points}, title, TOP + k * (PANEL + GAP), ends)
    height = TOP + 2 * PANEL + GAP + BOTTOM
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{height - 8}" text-anchor="end">epochs</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12" stroke-width="1.5">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def panel(lines: Mapping[str, Sequence[tuple[float, float]]], title: str, top: int, ends: Sequence[int]) -> list[str]:
    """One plot: its grid, the ends of the stages, and a line for every curve; a loss is drawn by its logarithm."""
    if not lines:
        return [f'<text x="{LEFT}" y="{top - 9}">nothing was written down {title}</text>']
    logarithmic = "train/loss" in lines
    values = [y for points in lines.values() for _, y in points]
    ticks = loss_ticks(min(values), max(values)) if logarithmic else nice_axis(0, max(values)).ticks
    low, high = (math.log(ticks[0]), math.log(ticks[-1])) if logarithmic else (ticks[0], ticks[-1])

    def x_of(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * epoch / ends[-1]

    def y_of(value: float) -> float:
        return top + PANEL * (high - (math.log(value) if logarithmic else value)) / (high - low)

    parts = []
    for tick in ticks:
        y = y_of(tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in (t for t in nice_axis(0, ends[-1], 8).ticks if t <= ends[-1]):
        parts.append(f'<text x="{x_of(tick):.1f}" y="{top + PANEL + 16}" text-anchor="middle">{tick:g}</text>')
    for number, end in enumerate(ends[:-1], 2):  # a short stage has no room for more than its number
        x = f"{x_of(end):.1f}"
        parts.append(f'<line x1="{x}" x2="{x}" y1="{top}" y2="{top + PANEL}" stroke="#888" stroke-dasharray="4 3"/>')
        parts.append(f'<text x="{x}" y="{top - 9}" fill="#666" text-anchor="middle">{number}</text>')
    return parts + drawn(lines, title, top, lambda x, y: f"{x_of(x):.1f},{y_of(y):.1f}")


def drawn(
    lines: Mapping[str, Sequence[tuple[float, float]]], title: str, top: int, place: Callable[[float, float], str]
) -> list[str]:
    """The curves and, above them, what they are."""
    parts, words = [], []
    for name, points in lines.items():
        word, colour = CURVES[name]
        way = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}"/>')
        words.append(f'<tspan fill="{colour}" font-weight="bold">{word}</tspan>')
    return [*parts, f'<text x="{LEFT}" y="{top - 9}">{" and ".join(words)} {title}</text>']


def loss_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from the last that is not above ``low`` to the first that is not below."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [round(k * 10.0**power, 12) for power in powers for k in (1, 2, 5)]
    first, last = max(t for t in every if t <= low), min(t for t in every if t >= high)
    return [t for t in every if first <= t <= max(last, every[every.index(first) + 1])]


# -- what was found ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Counts:
    """hit, false: bool of every detection (neither: it lies in what is ignored); found: bool of every labelled box."""

    hit: np.ndarray
    false: np.ndarray
    found: np.ndarray

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN), 0..1; 1 where there is nothing and nothing was seen."""
        total = 2 * self.hit.sum() + self.false.sum() + (~self.found).sum()
        return float(2 * self.hit.sum() / total) if total else 1.0


def matched(sample: Sample, seen: Detections) -> Counts:
    """Detections, the surest first, take the free box of their class that they overlap most, from IoU 0.5 on."""
    wanted = ~sample.ignore
    hit, false, found = np.zeros(len(seen), bool), np.zeros(len(seen), bool), np.zeros(int(wanted.sum()), bool)
    boxes, labels = sample.boxes[wanted], sample.labels[wanted]
    overlaps, in_ignored = pairwise_iou(seen.boxes, boxes), pairwise_iou(seen.boxes, sample.boxes[sample.ignore])
    for i in np.argsort(-seen.scores, kind="stable"):
        free = np.where(~found & (labels == seen.class_ids[i]), overlaps[i], 0)
        if free.size and free.max() >= 0.5:
            hit[i], found[int(free.argmax())] = True, True
        else:
            false[i] = not (in_ignored[i] >= 0.5).any()
    return Counts(hit, false, found)


def surest(seen: Detections, score: float) -> Detections:
    kept: Detections = seen[seen.scores >= score]
    return kept


def count_classes(coco: CocoSet, seen: Mapping[int, Detections], score: float) -> dict[str, tuple[int, int, int]]:
    """Class -> objects found, objects missed, false alarms, of detections with at least ``score``."""
    sums = np.zeros((3, len(coco.classes)), int)
    for sample in coco.samples:
        kept = surest(seen[sample.image_id], score)
        counts, labels = matched(sample, kept), sample.labels[~sample.ignore]
        for row, ids in enumerate((labels[counts.found], labels[~counts.found], kept.class_ids[counts.false])):
            sums[row] += np.bincount(ids, minlength=len(coco.classes))
    return {name: tuple(map(int, sums[:, k])) for k, name in enumerate(coco.classes)}  # type: ignore[misc]


@dataclass(frozen=True)
class Choice:
    """The images with the highest and the lowest F1, of ``pool`` images."""

    best: tuple[Sample, ...]
    worst: tuple[Sample, ...]
    pool: int


def candidates(coco: CocoSet, allowed: Set[int], objects: int) -> list[Sample]:
    """The images that may be shown and have so many objects. Raises BadInput where best and worst would be the same."""
    pool = [s for s in coco.samples if s.image_id in allowed and (~s.ignore).sum() >= objects]
    if len(pool) < 2:
        raise BadInput(
            f"{counted(len(pool), 'image')} with {counted(objects, 'labelled object')} may be shown; two are needed: "
            "ask for fewer --objects"
        )
    return pool


def choose(
    coco: CocoSet, seen: Mapping[int, Detections], allowed: Set[int], score: float, objects: int, count: int = 4
) -> Choice:
    """By F1; among equals the image with more objects is the better, and the worse. Raises BadInput without images."""
    pool = candidates(coco, allowed, objects)
    f1 = {s.image_id: matched(s, surest(seen[s.image_id], score)).f1 for s in pool}
    count = min(count, len(pool) // 2)
    best = sorted(pool, key=lambda s: (-f1[s.image_id], -len(s.boxes), s.path.name))[:count]
    rest = [s for s in pool if s not in best]
    worst = sorted(rest, key=lambda s: (f1[s.image_id], -len(s.boxes), s.path.name))[:count]
    return Choice(tuple(best), tuple(worst), len(pool))


# -- the sheet --------------------------------------------------------------------------------------------------------
TILE, CAPTION, LEGEND = 512, 26, 30  # width of a picture, heights of its caption and of a line of the legend, in pixels
MOST_BYTES = 400_000
QUALITIES = (88, 80, 72, 64, 56, 48, 40)


def sheet(coco: CocoSet, seen: Mapping[int, Detections], choice: Choice, score: float) -> bytes:
    """A JPEG: the best images in the left column, the worst in the right one, and what the colours mean."""
    rows = list(zip(choice.best, choice.worst, strict=True))
    high = max(round(TILE * s.height / s.width) for pair in rows for s in pair)
    high = min(high, 3 * TILE // 4)
    tiles = [tile(s, surest(seen[s.image_id], score), high) for pair in rows for s in pair]
    picture = draw.contact_sheet(tiles, columns=2, tile=(TILE, high + CAPTION))
    picture = np.vstack([legend(coco.classes, picture.shape[1]), picture])
    for quality in QUALITIES:
        data = draw.encode_jpeg(picture, quality)
        if len(data) <= MOST_BYTES:
            break
    return data


def tile(sample: Sample, seen: Detections, high: int) -> np.ndarray:
    """A picture with its labels and detections, and below it how it went."""
    image = draw.fit(read_image(sample.path), TILE, high)
    scale = np.array([image.shape[1] / sample.width, image.shape[0] / sample.height] * 2, np.float32)
    for box, class_id in zip(seen.boxes * scale, seen.class_ids, strict=True):
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        cv2.rectangle(image, (x1, y1), (x2, y2), colours.INK, 4)
        cv2.rectangle(image, (x1, y1), (x2, y2), colours.class_colour(int(class_id)), 2)
    for box in sample.boxes[~sample.ignore] * scale:
        dashed(image, box)
    counts = matched(sample, seen)
    text = f"F1 {counts.f1:.2f}: {counts.found.sum()} found, {(~counts.found).sum()} missed, {counts.false.sum()} false"
    strip = np.full((CAPTION, TILE, 3), draw.SHEET, np.uint8)
    cv2.putText(strip, text, (4, 18), colours.FONT, 0.5, colours.PAPER, 1, cv2.LINE_AA)
    return np.vstack([_as_wide_as(strip, image), strip])


def _as_wide_as(strip: np.ndarray, image: np.ndarray) -> np.ndarray:
    """An upright picture in the middle: what is said of it is wider."""
    free = strip.shape[1] - image.shape[1]
    return cv2.copyMakeBorder(image, 0, 0, free // 2, free - free // 2, cv2.BORDER_CONSTANT, value=draw.SHEET)


def dashed(image: np.ndarray, box: np.ndarray, dash: int = 5) -> None:
    """A thin rectangle, light and dark by turns, that every background shows."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (round(float(v)) for v in np.clip(box, 0, [width - 1, height - 1, width - 1, height - 1]))
    for x in range(x1, x2 + 1):
        image[[y1, y2], x] = colours.PAPER if (x - x1) // dash % 2 else colours.INK
    for y in range(y1, y2 + 1):
        image[y, [x1, x2]] = colours.PAPER if (y - y1) // dash % 2 else colours.INK


def legend(classes: Sequence[str], width: int) -> np.ndarray:
    """What the colours and the dashes are, in as many lines as that takes, and below it what the two columns are."""
    words = [*((name, colours.class_colour(k)) for k, name in enumerate(classes)), ("- - labelled", colours.PAPER)]
    placed, x, line = [], 12, 0
    for word, colour in words:
        wide = cv2.getTextSize(word, colours.FONT, 0.55, 1)[0][0]
        if x + wide > width - 12:
            x, line = 12, line + 1
        placed.append((word, colour, x, line))
        x += wide + 18
    placed += [("best", colours.PAPER, 12, line + 1), ("worst", colours.PAPER, width // 2 + 8, line + 1)]
    strip = np.full((LEGEND * (line + 2), width, 3), draw.SHEET, np.uint8)
    for word, colour, left, row in placed:
        cv2.putText(strip, word, (left, 21 + LEGEND * row), colours.FONT, 0.55, colour, 1, cv2.LINE_AA)
    return strip
