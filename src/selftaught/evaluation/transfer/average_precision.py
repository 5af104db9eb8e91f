"""Average precision of detections: faster-coco-eval's, and the same of resampled images for intervals.

COCO's AP is the mean over classes and over thresholds of intersection over union from 0.5 to 0.95; AP50 and AP75 have
one threshold. Precision is interpolated at 101 levels of recall (Lin et al. 2014, and cocodataset.org, "Detection
evaluation"). Resampling images changes how often each counts, but not which detection matches which box, so matches are
computed once.

Letters: n detections, m boxes, T thresholds, N images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftaught.errors import UserError

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100
"""Detections per image and class that count."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one image: annotated ones, or detections with scores."""

    boxes: Floats
    """(n, 4): x1, y1, x2, y2 in pixels of the image."""
    labels: NDArray[np.int64]
    """(n,) class numbers from 0."""
    scores: Floats
    """(n,); of annotated boxes 1, or 0 for ignored ones: detections of these count neither as right nor as wrong."""

    def chosen(self, rows: NDArray[np.bool_]) -> "Boxes":
        """Some of the boxes: `rows` is (n,)."""
        return Boxes(self.boxes[rows], self.labels[rows], self.scores[rows])


def average_precision(truths: Sequence[Boxes], found: Sequence[Boxes], classes: int) -> dict[str, float]:
    """COCO's AP, AP50 and AP75, each from 0 to 1."""
    precision = _precisions(truths, found, classes)
    by_threshold = [_mean_of_valid(precision[index]) for index in range(len(THRESHOLDS))]
    return {"ap": float(np.mean(by_threshold)), "ap50": by_threshold[0], "ap75": by_threshold[5]}


def precision_by_class(truths: Sequence[Boxes], found: Sequence[Boxes], classes: int) -> tuple[float | None, ...]:
    """COCO's AP of every class; None for a class without boxes."""
    values = _precisions(truths, found, classes).mean((0, 1))
    return tuple(None if value < 0 else float(value) for value in values)


def _precisions(truths: Sequence[Boxes], found: Sequence[Boxes], classes: int) -> Floats:
    """Precision at every threshold, level of recall and class, by faster-coco-eval; -1 for classes without boxes.

    Args:
        truths: the annotated boxes of every image.
        found: the detections in every image.
        classes: number of classes.

    Raises:
        UserError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise UserError("average precision needs faster-coco-eval: install selftaught[detection].") from error
    images = [{"id": number, "width": 1, "height": 1} for number in range(len(truths))]
    categories = [{"id": number, "name": str(number)} for number in range(classes)]
    annotations = [
        {"id": 0, **entry, "iscrowd": int(score == 0)}
        for number, image in enumerate(truths)
        for entry, score in zip(_entries(number, image), image.scores.tolist(), strict=True)
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    truth = COCO({"images": images, "categories": categories, "annotations": annotations})
    results = [
        {**entry, "score": score}
        for number, image in enumerate(found)
        for entry, score in zip(_entries(number, image), image.scores.tolist(), strict=True)
    ]
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox", print_function=_silent)
    evaluation.params.maxDets = [1, 10, MOST]
    evaluation.evaluate()
    evaluation.accumulate()
    precision: Floats = np.asarray(evaluation.eval["precision"])[..., 0, -1]  # all areas
    return precision


def _entries(number: int, image: Boxes) -> list[dict[str, Any]]:
    corners = image.boxes.tolist()
    return [
        {"image_id": number, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
        for (x1, y1, x2, y2), label in zip(corners, image.labels.tolist(), strict=True)
    ]


def _mean_of_valid(precision: Floats) -> float:
    """The mean over the classes that have boxes; the others have -1."""
    valid = precision[precision > -1]
    return float(valid.mean()) if len(valid) else 0.0


def _silent(*_: object) -> None:
    """Print nothing."""


def overlaps(found: Floats, boxes: Floats, ignored: NDArray[np.bool_]) -> Floats:
    """Intersection over union of detections (n, 4) and boxes (m, 4); over the detection's area for ignored boxes."""
    low, high = (edge(found[:, None, half], boxes[None, :, half]) for edge, half in _EDGES)
    shared = (high - low).clip(0).prod(2)
    own, other = ((each[:, 2:] - each[:, :2]).prod(1) for each in (found, boxes))
    union = np.where(ignored[None], own[:, None], own[:, None] + other[None] - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


_EDGES = ((np.maximum, slice(0, 2)), (np.minimum, slice(2, 4)))


@dataclass(frozen=True, eq=False)
class Matches:
    """All detections of a class, by descending score, and how many boxes there are."""

    image: NDArray[np.int64]
    """(n,) number of the image."""
    right: NDArray[np.bool_]
    """(T, n) whether a box that counts is matched."""
    wrong: NDArray[np.bool_]
    """(T, n) whether none is matched; ignored detections are neither right nor wrong."""
    boxes: NDArray[np.int64]
    """(N,) boxes that count in each image."""


def match(truths: Sequence[Boxes], found: Sequence[Boxes], classes: int) -> list[Matches]:
    """Match the detections of every class to boxes, as COCO does."""
    matches = []
    for label in range(classes):
        parts, counts = [], []
        for number, (truth, image) in enumerate(zip(truths, found, strict=True)):
            mine, theirs = truth.labels == label, image.labels == label
            counts.append(int((mine & (truth.scores > 0)).sum()))
            order = np.argsort(-image.scores[theirs], kind="mergesort")[:MOST]
            boxes, ignored = truth.boxes[mine], truth.scores[mine] == 0
            first = np.argsort(ignored, kind="mergesort")  # boxes that count come first
            iou = overlaps(image.boxes[theirs][order], boxes[first], ignored[first])
            right, wrong = _matched(iou, ignored[first])
            parts.append((np.full(len(order), number), image.scores[theirs][order], right, wrong))
        images, scores, rights, wrongs = zip(*parts, strict=True)
        order = np.argsort(-np.concatenate(scores), kind="mergesort")
        right, wrong = (np.concatenate(each, 1)[:, order] for each in (rights, wrongs))
        matches.append(Matches(np.concatenate(images)[order], right, wrong, np.array(counts)))
    return matches


def _matched(iou: Floats, ignored: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Greedy matching of detections by descending score: (T, n) right and wrong.

    A detection takes the free box with the largest overlap of at least the threshold; an ignored box only where no
    other is left, and any number of times.
    """
    right, wrong = (np.zeros((len(THRESHOLDS), len(iou)), bool) for _ in range(2))
    for row, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(ignored), bool)
        for number, values in enumerate(iou):
            counted = np.where(free & ~ignored & (values >= min(threshold, 1 - 1e-10)), values, -1.0)
            if len(counted) and counted.max() >= 0:
                # The last one of equal overlaps, as in COCO's loop.
                free[len(counted) - 1 - int(counted[::-1].argmax())] = False
                right[row, number] = True
            else:
                wrong[row, number] = not (ignored & (values >= threshold)).any()
    return right, wrong


def resampled_ap(matches: Sequence[Matches], counts: NDArray[np.int64]) -> Floats:
    """AP of samples of the images.

    Args:
        matches: of every class.
        counts: (R, N), how often each image is in each of R samples.

    Returns:
        (R,); NaN where a sample has no boxes.
    """
    values = np.full((len(counts), len(matches)), np.nan)
    for row, count in enumerate(counts):
        for column, each in enumerate(matches):
            total = int(count @ each.boxes)
            if total:
                values[row, column] = _precision(each, count[each.image], total)
    valid = ~np.isnan(values)
    return np.divide(np.nansum(values, 1), valid.sum(1), out=np.full(len(counts), np.nan), where=valid.any(1))


def _precision(matches: Matches, weights: NDArray[np.int64], total: int) -> float:
    """Mean precision over thresholds and levels of recall, where detection i counts `weights[i]` times."""
    right, wrong = (np.cumsum(each * weights, 1) for each in (matches.right, matches.wrong))
    recall = right / total
    precision = right / np.maximum(right + wrong, np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    padded = np.concatenate([envelope, np.zeros((len(envelope), 1))], 1)
    return float(np.mean([row[np.searchsorted(levels, RECALLS)] for row, levels in zip(padded, recall, strict=True)]))
