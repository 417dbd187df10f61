"""What a data set really contains: counts, duplicates, contradictions, images without content."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lab.datasets.dataset import Dataset, group_same
from lab.datasets.duplicates import find_alike, find_constant, find_same
from lab.datasets.pictures import blocks
from lab.datasets.pitfalls import find_pitfalls
from lab.display.figures import gallery
from lab.display.terminal import make_bar, print_classes, print_notes, print_table
from lab.errors import printable
from lab.files import write_csv, write_json

LEAST = 0.99  # correlation of near-duplicates
MOST_PIXELS = 10**9  # of which 4 bytes each fit into memory
SHOWN = 12  # pairs, in the picture
PAIRS = "pairs side by side, the same or nearly (r: correlation of the pixels)"
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
    first_file: str | None = None  # where each image is a file of its own
    second_file: str | None = None

    def order(self) -> tuple[bool, bool, float]:
        """Contradicting before others, of several parts before those of one, the same before nearly."""
        return self.first_class == self.second_class, self.first_part == self.second_part, -self.correlation


def check_data(name: str, dataset: Dataset, scale: float, folder: Path) -> None:
    """Print what is there, leave check.json, pairs.csv and a sheet of what was found in `folder`.

    `scale` is what pixels will be divided by.
    """
    images, counts = dataset.images, dataset.counts()
    shape = list(dataset.shape)
    least, greatest, sums = zip(*((some.min(), some.max(), some.sum()) for some in blocks(images)), strict=True)
    least, greatest, mean = min(least), max(greatest), sum(map(int, sums)) / images.size
    print_classes(f"{name}: {len(images):,} images of {'x'.join(map(str, shape))}", counts, dataset.classes)
    print(f"Pixels: {images.dtype}, from {least} to {greatest}, mean {mean:.1f}")
    pitfalls = find_pitfalls(dataset, scale)
    print_notes(pitfalls)
    too_large = images.size > MOST_PIXELS
    same, alike, nearly = _find_pairs(dataset, too_large)
    places = _count_places(same, nearly)
    _print_pairs(places)
    if too_large:
        print("Near-duplicates were not looked for: the data set is too large.")
    constant = find_constant(images).tolist()
    numbers = ", ".join(_name(dataset, number) for number in constant[:10])
    print(f"Images of one colour: {len(constant)}" + (f", {numbers}" if constant else ""))
    divided = _find_divided(dataset)
    _print_files(dataset, same, divided)
    rows = [{key: value for key, value in asdict(pair).items() if value is not None} for pair in same + alike]
    write_csv(rows, folder / "pairs.csv")
    _draw(dataset, same + alike, constant, name, folder / "check.png")
    classes = {part: dict(zip(dataset.classes, count.tolist(), strict=True)) for part, count in counts.items()}
    found = {
        "same": len(same),
        "nearly_the_same": None if too_large else nearly.total(),
        "measure": f"Pearson's correlation of the pixels, {LEAST} or more",
        "pairs": places,
        "constant": constant,
        "pitfalls": pitfalls,
        **({"divided_groups": divided} if dataset.groups is not None else {}),
    }
    about = {"data": name, "shape": shape, "pixels": [int(least), int(greatest)], "classes": classes}
    write_json(about | found, folder / "check.json")
    print(f"Files: check.json, pairs.csv, check.png in {folder}")


def _find_pairs(dataset: Dataset, too_large: bool) -> tuple[list[Pair], list[Pair], Counter[str]]:
    """The same images; the nearest of those that are nearly the same, and how many of these are in which parts."""
    images, labels, classes = dataset.images, dataset.labels, dataset.classes
    part_of = np.full(len(labels), len(PARTS) - 1)
    for part, indices in dataset.parts.items():
        part_of[indices] = PARTS.index(part)

    def describe(first: int, second: int, correlation: float) -> Pair:
        places = [PARTS[part_of[number]] for number in (first, second)]
        named = [classes[labels[number]] for number in (first, second)]
        files = [dataset.files[number] for number in (first, second)] if dataset.files else []
        return Pair(first, second, *places, *named, round(correlation, 5), *files)

    groups = group_same(dataset.digests)
    same = [describe(*pair, 1.0) for pair in find_same(groups)]
    if too_large:
        return same, [], Counter()
    with make_bar(len(images), " images") as bar:
        counts, nearest = find_alike(images, groups, part_of, LEAST, bar.update)
    alike = [describe(int(first), int(second), correlation) for first, second, correlation in nearest.tolist()]
    nearly = {_join(PARTS[one], PARTS[other]): int(count) for (one, other), count in np.ndenumerate(counts) if count}
    return same, alike, Counter(nearly)


def _name(dataset: Dataset, number: int) -> str:
    return printable(dataset.files[number]) if dataset.files else f"no. {number}"


def _find_divided(dataset: Dataset) -> list[dict[str, str]]:
    """A file in each part of every group that lies in several: what is trained on tells what is tested."""
    if dataset.groups is None:
        return []
    first: dict[int, dict[str, str]] = {}
    for part, indices in dataset.parts.items():
        for number in indices.tolist():
            first.setdefault(int(dataset.groups[number]), {}).setdefault(part, _name(dataset, number))
    return [files for files in first.values() if len(files) > 1]


def _print_files(dataset: Dataset, same: Sequence[Pair], divided: Sequence[dict[str, str]]) -> None:
    """The first of the files that are the same, and of the groups that lie in several parts."""
    for pair in sorted(same, key=Pair.order)[:SHOWN] if dataset.files else ():
        places = f"{pair.first_class}, {pair.first_part}; {pair.second_class}, {pair.second_part}"
        print(f"The same: {_name(dataset, pair.first)} and {_name(dataset, pair.second)} ({places})")
    if divided:
        print(f"Groups that lie in several parts: {len(divided):,}")
    for files in divided[:SHOWN]:
        print("  " + ", ".join(f"{part}: {file}" for part, file in files.items()))


def _count_places(same: Sequence[Pair], nearly: Counter[str]) -> dict[str, dict[str, int]]:
    """How many pairs there are in which parts."""
    exact, wrong = Counter(), Counter()
    for pair in same:
        place = _join(*sorted((pair.first_part, pair.second_part), key=PARTS.index))
        exact[place] += 1
        wrong[place] += pair.first_class != pair.second_class
    return {
        place: {"same": exact[place], "nearly": nearly[place], "contradicting": wrong[place]}
        for place in sorted(exact | nearly)
    }


def _join(one: str, other: str) -> str:
    return one if one == other else f"{one} and {other}"


def _print_pairs(places: dict[str, dict[str, int]]) -> None:
    if places:
        rows = [[place, *(f"{count:,}" for count in counts.values())] for place, counts in places.items()]
        columns = ["pairs of images in", "the same", f"nearly (r ≥ {LEAST})", "the same, other class"]
        print_table("Duplicates", columns, rows)
    else:
        print(f"No two images are the same, or nearly (correlation of their pixels {LEAST} or more).")


def _draw(dataset: Dataset, pairs: Sequence[Pair], constant: Sequence[int], name: str, path: Path) -> None:
    shown, captions = [], []
    for pair in sorted(pairs, key=Pair.order)[:SHOWN]:
        shown += [pair.first, pair.second]
        captions.append(
            f"{pair.first_class}, {pair.first_part}\n{_name(dataset, pair.first)}, r {pair.correlation:.3f}"
        )
        captions.append(
            f"{pair.second_class}, {pair.second_part}\n{_name(dataset, pair.second)}, r {pair.correlation:.3f}"
        )
    for number in constant[:SHOWN]:
        shown.append(number)
        captions.append(f"{dataset.classes[dataset.labels[number]]}, of one colour\n{_name(dataset, number)}")
    if shown:
        what = [f"{len(some):,} {kind}" for some, kind in ((pairs, PAIRS), (constant, "images of one colour")) if some]
        most = f"; the first {SHOWN} of them" if max(len(pairs), len(constant)) > SHOWN else ""
        gallery(dataset.images[shown], captions, f"{name}: {' and '.join(what)}{most}", path, columns=6)
