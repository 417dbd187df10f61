"""What a data set really contains: counts, duplicates, contradictions, images without content."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lab.data import Parts
from lab.datasets import Dataset
from lab.duplicates import find_alike, find_constant, group_same
from lab.files import write_csv, write_json
from lab.plots import gallery
from lab.terminal import make_bar, print_data, print_table

LEAST = 0.99  # correlation of near-duplicates
MOST_PIXELS = 10**9  # of which 4 bytes each fit into memory
SHOWN = 12  # pairs, in the picture


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


def inspect(name: str, dataset: Dataset, parts: Parts, classes: list[str], folder: Path) -> None:
    """Print what is there, leave check.json, pairs.csv and a sheet of what was found in `folder`."""
    images, labels = dataset.images, dataset.labels
    height, width, channels = images.shape[1:]
    counts = {part: np.bincount(labels[indices], minlength=len(classes)) for part, indices in parts.items()}
    print_data(f"{name}: {len(labels):,} images of {channels}x{height}x{width}", counts, classes)
    print(f"Pixels: {images.dtype}, from {images.min()} to {images.max()}, mean {images.mean():.1f}")
    part_of = np.full(len(labels), "not used", "<U10")
    for part, indices in parts.items():
        part_of[indices] = part
    same = _same_pairs(images)
    alike, n_alike = _alike_pairs(images, same) if images.size <= MOST_PIXELS else ([], None)
    pairs = [_describe(*pair, part_of, labels, classes) for pair in (*((i, j, 1.0) for i, j in same), *alike)]
    exact, near = pairs[: len(same)], pairs[len(same) :]
    constant = find_constant(images)
    rows = []
    for places in sorted({_places(pair) for pair in pairs}):
        found = [[pair for pair in kind if _places(pair) == places] for kind in (exact, near)]
        contradicting = sum(pair.first_class != pair.second_class for pair in found[0])
        rows.append([places, *(str(len(kind)) for kind in found), str(contradicting)])
    if rows:
        columns = ["pairs of images in", "the same", f"nearly (r ≥ {LEAST})", "the same, other class"]
        print_table("Duplicates", columns, rows)
    else:
        print(f"No two images are the same, or nearly (correlation of their pixels {LEAST} or more).")
    if n_alike is None:
        print("Near-duplicates were not looked for: the data set is too large.")
    elif n_alike > len(near):
        print(f"Of {n_alike:,} nearly equal pairs the {len(near):,} nearest are listed.")
    print(
        f"Images of one colour: {len(constant)}" + (f", no. {', '.join(map(str, constant[:10]))}" * bool(len(constant)))
    )
    report: dict[str, Any] = {
        "data": name,
        "shape": [channels, height, width],
        "pixels": [int(images.min()), int(images.max())],
        "classes": {part: dict(zip(classes, map(int, counted), strict=True)) for part, counted in counts.items()},
        "same": len(exact),
        "nearly_the_same": n_alike,
        "measure": f"Pearson's correlation of the pixels, {LEAST} or more",
        "pairs": {row[0]: {"same": int(row[1]), "nearly": int(row[2]), "contradicting": int(row[3])} for row in rows},
        "constant": constant.tolist(),
    }
    write_csv([asdict(pair) for pair in pairs], folder / "pairs.csv")
    _draw(images, _worst_first(pairs), constant, labels, classes, f"{name}: what was found", folder / "check.png")
    write_json(report, folder / "check.json")
    print(f"Files: check.json, pairs.csv, check.png in {folder}")


def _same_pairs(images: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Each image that was there before, with the first of its kind."""
    groups = group_same(images)
    _, first = np.unique(groups, return_index=True)
    return [(int(first[group]), number) for number, group in enumerate(groups) if first[group] != number]


def _alike_pairs(
    images: npt.NDArray[np.uint8], same: list[tuple[int, int]], most: int = 1000
) -> tuple[list[tuple[int, int, float]], int]:
    """The `most` nearest ones, and how many there are; what is there twice is looked at once."""
    repeated = np.zeros(len(images), bool)
    repeated[[second for _, second in same]] = True
    found: list[tuple[int, int, float]] = []
    count = 0
    with make_bar(len(images), " images") as bar:
        for first, second, correlation in find_alike(images, LEAST, bar.update):
            new = ~repeated[first] & ~repeated[second]
            count += int(new.sum())
            found += zip(first[new].tolist(), second[new].tolist(), correlation[new].tolist(), strict=True)
            found = sorted(found, key=lambda pair: -pair[2])[:most]
    return found, count


def _describe(
    first: int, second: int, correlation: float, part_of: npt.NDArray, labels: npt.NDArray, classes: list[str]
) -> Pair:
    named = [str(classes[labels[number]]) for number in (first, second)]
    return Pair(first, second, str(part_of[first]), str(part_of[second]), *named, round(correlation, 5))


def _places(pair: Pair) -> str:
    return " and ".join(sorted({pair.first_part, pair.second_part}, key="train validation test not used".index))


def _worst_first(pairs: list[Pair]) -> list[Pair]:
    """Of several parts before those of one, contradicting before others, the same before nearly."""

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
