"""What a network answered, image by image: the matrix whose cells open, the surest mistakes, scores a class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt

from lab.datasets.dataset import Dataset
from lab.display.figures import calibration, confusion
from lab.display.language import number, say
from lab.display.page import Sheet, Table, draw
from lab.errors import printable
from lab.evaluation.metrics import evaluate, worst_mistakes
from lab.runs.predictions import Predictions

MOST_CLASSES = 25  # of a matrix that can be read
MOST_OF_CELL = 60  # images, of a mistake
MOST_RIGHT = 12  # images of a cell on the diagonal, the least sure
MOST_TILES = 600  # on a page, of small images
MOST_LARGE = 240  # of larger ones
MISTAKES = 12
LETTERS = 24  # of a file's name, its last
SHADES = 6  # of a cell

# of images of the data set [n] and the classes named there: a name, and how much each pixel counts, [n, h, w]
Saliency = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], tuple[str, npt.NDArray[np.float32]]]


@dataclass
class Shown:
    """An image on the page: its tile, what stands below it, what a screen reader says."""

    tile: str
    lines: list[str]
    alt: str
    saliency: str = ""  # the tile of where the network looked


@dataclass
class Cell:
    """Images of one class read as one class: how many, the shade, and those that the page shows."""

    place: str  # the id of its images; "" where it has none
    title: str
    count: int
    share: float
    shade: int
    is_right: bool
    images: list[Shown] = field(default_factory=list)


@dataclass
class Answers:
    """All that a page says of predictions."""

    evaluation: dict[str, Any]
    names: list[str]  # [classes]
    mistaken: int  # images
    matrix: list[list[Cell]]  # [classes, classes]; empty where classes are too many
    confusion: str  # the figure in its place
    cells: list[Cell]  # those with images, mistakes first
    mistakes: list[Shown]
    saliency: str
    calibration: str
    classes: Table


def describe_answers(
    predictions: Predictions, dataset: Dataset, sheet: Sheet, saliency: Saliency | None = None
) -> Answers:
    """Of `predictions` on images of `dataset`, which go into `sheet`."""
    evaluation, names = evaluate(predictions), predictions.classes.tolist()
    show = _Tiles(predictions, dataset, sheet)
    matrix = _fill(evaluation["confusion"], show)
    mistakes, method = _mistakes(show, saliency)
    rows = [
        [name, *(number(scores[key], ".2%") for key in ("precision", "recall", "f1")), number(scores["images"])]
        for name, scores in evaluation["classes"].items()
    ]
    cells = sorted((cell for row in matrix for cell in row if cell.images), key=lambda c: (c.is_right, -c.count))
    is_readable = len(names) <= MOST_CLASSES
    return Answers(
        evaluation,
        names,
        int((~predictions.correct()).sum()),
        matrix if is_readable else [],
        "" if is_readable else draw(confusion, evaluation["confusion"], names),
        cells,
        mistakes,
        method,
        draw(calibration, evaluation["calibration"]),
        Table([say("class"), say("precision"), say("recall"), "F1", say("images")], rows),
    )


class _Tiles:
    """Puts an image into the sheet once, wherever the page shows it."""

    def __init__(self, predictions: Predictions, dataset: Dataset, sheet: Sheet) -> None:
        self.predictions, self.dataset, self.sheet = predictions, dataset, sheet
        self.shares, self.named = predictions.probabilities(), predictions.logits.argmax(1)
        self.tiles: dict[int, str] = {}

    def __call__(self, row: int) -> Shown:
        image = int(self.predictions.indices[row])
        if row not in self.tiles:
            self.tiles[row] = self.sheet.add(self.dataset.images[image])
        files, names = self.dataset.files, self.predictions.classes
        name = printable(files[image]) if files else say("no. {row}", row=int(row))
        told = {"label": str(names[self.predictions.labels[row]]), "read_as": str(names[self.named[row]])}
        told |= {"sure": float(self.shares[row].max()), "name": name}
        alt = say("{name}: {label} read as {read_as}, {sure:.1%} sure", **told)
        return Shown(self.tiles[row], [name[-LETTERS:], say("{sure:.1%} sure", **told)], alt)


def _fill(counts: Sequence[Sequence[int]], show: _Tiles) -> list[list[Cell]]:
    """The matrix, each cell with its images as far as the page has room: of mistakes the surest first."""
    labels, names, side = show.predictions.labels, show.predictions.classes, max(show.dataset.images.shape[1:3])
    most = _most_of_cell(np.asarray(counts), MOST_TILES if side <= 64 else MOST_LARGE)
    order = np.argsort(-show.shares.max(1), kind="stable")
    of_cell: dict[tuple[int, int], list[int]] = {}
    for row in order.tolist():
        of_cell.setdefault((int(labels[row]), int(show.named[row])), []).append(row)
    matrix = []
    for label, line in enumerate(counts):
        cells, total = [], max(sum(line), 1)
        for read_as, count in enumerate(line):
            is_right, rows = label == read_as, of_cell.get((label, read_as), [])
            told = {"label": str(names[label]), "read_as": str(names[read_as])}
            title = say("{label}, rightly read", **told) if is_right else say("{label} read as {read_as}", **told)
            rows = rows[::-1][:MOST_RIGHT] if is_right else rows[:most]
            place = f"cell-{label}-{read_as}" if rows else ""
            shade = 0 if not count else 1 + min(int((count / total) ** 0.5 * (SHADES - 1)), SHADES - 2)
            cells.append(Cell(place, title, count, count / total, shade, is_right, list(map(show, rows))))
        matrix.append(cells)
    return matrix


def _most_of_cell(counts: npt.NDArray[np.int64], room: int) -> int:
    """Of how many images of a mistake there is room for, if each mistake gets as many."""
    right = np.minimum(np.diag(counts), MOST_RIGHT).sum()
    wrong = counts[~np.eye(len(counts), dtype=bool)]
    fitting = [most for most in range(1, MOST_OF_CELL + 1) if np.minimum(wrong, most).sum() + right <= room]
    return max(fitting, default=1)


def _mistakes(show: _Tiles, saliency: Saliency | None) -> tuple[list[Shown], str]:
    """The surest, and by what it is told where the network looked, "" where it is not."""
    predictions = show.predictions
    worst, names = worst_mistakes(predictions, MISTAKES), predictions.classes
    shown = [show(row) for row in worst.tolist()]
    for each, row in zip(shown, worst, strict=True):
        told = {"label": str(names[predictions.labels[row]]), "read_as": str(names[show.named[row]])}
        each.lines.insert(0, say("{label} read as {read_as}", **told))
    if saliency is None or not shown:
        return shown, ""
    images = predictions.indices[worst]
    method, maps = saliency(images, show.named[worst])
    for each, image, heat in zip(shown, images, maps, strict=True):
        each.saliency = show.sheet.add(_overlay(show.dataset.images[image], heat))
    return shown, method


def _overlay(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The image [h, w, c] in a dim grey, and over it what counts [h, w], brighter the more it does."""
    grey = image.mean(2, keepdims=True)
    colours = matplotlib.colormaps["inferno"](heat)[..., :3] * 255
    return (0.35 * grey + 0.65 * colours).round().astype(np.uint8)
