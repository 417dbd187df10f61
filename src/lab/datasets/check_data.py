"""What a data set really contains: counts, duplicates, contradictions, images without content."""

from collections import Counter
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lab.datasets.dataset import Dataset, group_same
from lab.datasets.duplicates import find_alike, find_constant
from lab.display.figures import gallery
from lab.display.terminal import make_bar, print_classes, print_table
from lab.files import write_csv, write_json

LEAST = 0.99  # correlation of near-duplicates
MOST_PIXELS = 10**9  # of which 4 bytes each fit into memory
SHOWN = 12  # pairs, in the picture
PARTS = ("train", "validation", "test", "not used")


@dataclass
class Pair:
    """Two images that are the same, correlation 1, or nearly."""

    first: int
    second: int
    first_part: str
    second_part: str
    first_class: str
    second_class: str
    correlation: float


def check_data(name: str, dataset: Dataset, folder: Path) -> None:
    """Print what is there, leave check.json, pairs.csv and a sheet of what was found in `folder`."""
    images, labels, classes, parts = dataset.images, dataset.labels, dataset.classes, dataset.parts
    counts = dataset.counts()
    print_classes(f"{name}: {len(labels):,} images of {'x'.join(map(str, dataset.shape))}", counts, classes)
    print(f"Pixels: {images.dtype}, from {images.min()} to {images.max()}, mean {images.mean():.1f}")
    part_of = np.full(len(labels), len(PARTS) - 1)
    for part, indices in parts.items():
        part_of[indices] = PARTS.index(part)
    groups = group_same(images)
    same = _same_pairs(groups)
    alike = _Alike(groups, part_of)
    too_large = images.size > MOST_PIXELS
    if not too_large:
        with make_bar(len(images), " images") as bar:
            for block in find_alike(images, LEAST, bar.update):
                alike.add(*block)
    pairs = [_describe(*pair, part_of, labels, classes) for pair in (*((i, j, 1.0) for i, j in same), *alike.nearest())]
    exact = Counter(_places(pair) for pair in pairs[: len(same)])
    wrong = Counter(_places(pair) for pair in pairs[: len(same)] if pair.first_class != pair.second_class)
    constant = find_constant(images)
    rows = [
        [places, *(f"{counter[places]:,}" for counter in (exact, alike.counts, wrong))]
        for places in sorted(exact | alike.counts)
    ]
    if rows:
        columns = ["pairs of images in", "the same", f"nearly (r ≥ {LEAST})", "the same, other class"]
        print_table("Duplicates", columns, rows)
    else:
        print(f"No two images are the same, or nearly (correlation of their pixels {LEAST} or more).")
    if too_large:
        print("Near-duplicates were not looked for: the data set is too large.")
    print(
        f"Images of one colour: {len(constant)}" + (f", no. {', '.join(map(str, constant[:10]))}" * bool(len(constant)))
    )
    report: dict[str, Any] = {
        "data": name,
        "shape": list(dataset.shape),
        "pixels": [int(images.min()), int(images.max())],
        "classes": {part: dict(zip(classes, map(int, counted), strict=True)) for part, counted in counts.items()},
        "same": exact.total(),
        "nearly_the_same": None if too_large else alike.counts.total(),
        "measure": f"Pearson's correlation of the pixels, {LEAST} or more",
        "pairs": {
            row[0]: {"same": exact[row[0]], "nearly": alike.counts[row[0]], "contradicting": wrong[row[0]]}
            for row in rows
        },
        "constant": constant.tolist(),
    }
    write_csv([asdict(pair) for pair in pairs], folder / "pairs.csv")
    _draw(images, _worst_first(pairs), constant, labels, classes, f"{name}: what was found", folder / "check.png")
    write_json(report, folder / "check.json")
    print(f"Files: check.json, pairs.csv, check.png in {folder}")


def _same_pairs(groups: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """All pairs of a group of the same images; of a large one each with the first."""
    order = np.argsort(groups, kind="stable")
    found: list[tuple[int, int]] = []
    for group in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        members = group.tolist()
        found += combinations(members, 2) if len(members) <= 10 else ((members[0], other) for other in members[1:])
    return sorted(found)


class _Alike:
    """Pairs that are nearly the same, not quite: how many in which parts, and the nearest."""

    def __init__(self, groups: npt.NDArray[np.int64], part_of: npt.NDArray[np.int64], most: int = 1000) -> None:
        self.groups, self.part_of, self.most = groups, part_of, most
        self.counts: Counter[str] = Counter()
        self.kept = [np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)]

    def add(self, first: npt.NDArray, second: npt.NDArray, correlation: npt.NDArray) -> None:
        new = self.groups[first] != self.groups[second]
        pairs = [first[new], second[new], correlation[new]]
        places = np.sort(np.stack([self.part_of[numbers] for numbers in pairs[:2]]), axis=0)
        for (one, other), count in zip(*np.unique(places.T, axis=0, return_counts=True), strict=True):
            self.counts[_join(PARTS[one], PARTS[other])] += int(count)
        pairs = [np.concatenate(both) for both in zip(self.kept, pairs, strict=True)]
        nearest = np.argsort(-pairs[2], kind="stable")[: self.most]
        self.kept = [column[nearest] for column in pairs]

    def nearest(self) -> list[tuple[int, int, float]]:
        return list(zip(*(column.tolist() for column in self.kept), strict=True))


def _describe(
    first: int, second: int, correlation: float, part_of: npt.NDArray, labels: npt.NDArray, classes: list[str]
) -> Pair:
    places = [PARTS[part_of[number]] for number in (first, second)]
    named = [str(classes[labels[number]]) for number in (first, second)]
    return Pair(first, second, *places, *named, round(correlation, 5))


def _places(pair: Pair) -> str:
    return _join(*sorted((pair.first_part, pair.second_part), key=PARTS.index))


def _join(one: str, other: str) -> str:
    return one if one == other else f"{one} and {other}"


def _worst_first(pairs: list[Pair]) -> list[Pair]:
    """Contradicting before others, of several parts before those of one, the same before nearly."""

    def order(pair: Pair) -> tuple[bool, bool, float]:
        return pair.first_class == pair.second_class, pair.first_part == pair.second_part, -pair.correlation

    return sorted(pairs, key=order)


def _draw(
    images: npt.NDArray,
    pairs: list[Pair],
    constant: npt.NDArray,
    labels: npt.NDArray,
    classes: list[str],
    title: str,
    path: Path,
) -> None:
    shown, captions = [], []
    for pair in pairs[:SHOWN]:
        for number, part, named in (
            (pair.first, pair.first_part, pair.first_class),
            (pair.second, pair.second_part, pair.second_class),
        ):
            shown.append(images[number])
            captions.append(f"{named}, {part}\nno. {number}, r {pair.correlation:.3f}")
    for number in constant[:SHOWN]:
        shown.append(images[number])
        captions.append(f"{classes[labels[number]]}, of one colour\nno. {number}")
    if shown:
        gallery(shown, captions, title, path, columns=6)
