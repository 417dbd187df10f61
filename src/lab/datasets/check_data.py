"""What a data set really contains: counts, duplicates, contradictions, images without content."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab.datasets.dataset import Dataset, group_same, print_counts
from lab.datasets.duplicates import find_alike, find_constant, find_same
from lab.datasets.pictures import blocks
from lab.datasets.pitfalls import find_pitfalls
from lab.display.figures import gallery
from lab.display.terminal import make_bar, print_notes, print_table
from lab.errors import printable
from lab.files import write_csv, write_json

LEAST = 0.99  # correlation of near-duplicates
MOST_PIXELS = 10**9  # for near-duplicates, which take 4 bytes of memory a pixel
SHOWN = 12  # pairs, in the picture
PARTS = ("train", "validation", "test", "not used")
BOTH = ("first", "second")

Pair = dict[str, Any]  # two images that are the same or nearly, a row of pairs.csv: "first", "first_part", ...


def check_data(name: str, dataset: Dataset, scale: float, folder: Path) -> None:
    """Print what is there, leave check.json, pairs.csv and a picture of what was found in `folder`.

    `scale` is what pixels will be divided by.
    """
    images, counts, shape = dataset.images, dataset.counts(), list(dataset.shape)
    least, greatest, sums = zip(*((some.min(), some.max(), some.sum()) for some in blocks(images)), strict=True)
    least, greatest, mean = min(least), max(greatest), sum(map(int, sums)) / images.size
    print_counts(dataset, name)
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
    write_csv(same + alike, folder / "pairs.csv")
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
    drawn = ", check.png" if same or alike or constant else ""
    print(f"Files: check.json, pairs.csv{drawn} in {folder}")


def _find_pairs(dataset: Dataset, too_large: bool) -> tuple[list[Pair], list[Pair], Counter[str]]:
    """Pairs that are the same; the nearest of those that are nearly the same; how many of these are in which parts."""
    images, labels, classes = dataset.images, dataset.labels, dataset.classes
    part_of = np.full(len(labels), len(PARTS) - 1)
    for part, indices in dataset.parts.items():
        part_of[indices] = PARTS.index(part)

    def describe(first: int, second: int, correlation: float) -> Pair:
        both = {"first": int(first), "second": int(second)}
        pair = both | {f"{which}_part": PARTS[part_of[number]] for which, number in both.items()}
        pair |= {f"{which}_class": classes[labels[number]] for which, number in both.items()}
        files = {f"{which}_file": dataset.files[number] for which, number in both.items()} if dataset.files else {}
        return pair | {"correlation": round(correlation, 5)} | files

    groups = group_same(dataset.digests)
    same = [describe(*pair, 1.0) for pair in find_same(groups)]
    if too_large:
        return same, [], Counter()
    with make_bar(len(images), " images") as bar:
        counts, nearest = find_alike(images, groups, part_of, LEAST, bar.update)
    alike = [describe(*row) for row in nearest.tolist()]
    nearly = {_join(PARTS[one], PARTS[other]): int(count) for (one, other), count in np.ndenumerate(counts) if count}
    return same, alike, Counter(nearly)


def _most_telling(pairs: Sequence[Pair]) -> list[Pair]:
    """SHOWN pairs: those of two classes first, then those of two parts, then those that are most alike."""

    def order(pair: Pair) -> tuple[bool, bool, float]:
        is_of_one_class, is_of_one_part = (pair[f"first_{key}"] == pair[f"second_{key}"] for key in ("class", "part"))
        return is_of_one_class, is_of_one_part, -pair["correlation"]

    return sorted(pairs, key=order)[:SHOWN]


def _name(dataset: Dataset, number: int) -> str:
    return printable(dataset.files[number]) if dataset.files else f"no. {number}"


def _find_divided(dataset: Dataset) -> list[dict[str, str]]:
    """For each group that lies in several parts, one file in each part: training then tells what is tested."""
    if dataset.groups is None:
        return []
    first: dict[int, dict[str, str]] = {}
    for part, indices in dataset.parts.items():
        for number in indices.tolist():
            first.setdefault(int(dataset.groups[number]), {}).setdefault(part, _name(dataset, number))
    return [files for files in first.values() if len(files) > 1]


def _print_files(dataset: Dataset, same: Sequence[Pair], divided: Sequence[dict[str, str]]) -> None:
    """The first of the files that are the same, and of the groups that lie in several parts."""
    for pair in _most_telling(same) if dataset.files else ():
        names = " and ".join(_name(dataset, pair[which]) for which in BOTH)
        print(f"The same: {names} ({'; '.join(_place(pair, which) for which in BOTH)})")
    if divided:
        print(f"Groups that lie in several parts: {len(divided):,}")
    for files in divided[:SHOWN]:
        print("  " + ", ".join(f"{part}: {file}" for part, file in files.items()))


def _place(pair: Pair, which: str) -> str:
    """The class and the part of its `first` or `second` image."""
    return f"{pair[f'{which}_class']}, {pair[f'{which}_part']}"


def _count_places(same: Sequence[Pair], nearly: Counter[str]) -> dict[str, dict[str, int]]:
    """How many pairs there are in which parts."""
    exact, wrong = Counter(), Counter()
    for pair in same:
        place = _join(*sorted((pair["first_part"], pair["second_part"]), key=PARTS.index))
        exact[place] += 1
        wrong[place] += pair["first_class"] != pair["second_class"]
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
    """The pairs side by side, then the images of one colour; nothing where there are none."""
    shown, captions = [], []
    for pair in _most_telling(pairs):
        for which in BOTH:
            number = pair[which]
            shown.append(number)
            captions.append(f"{_place(pair, which)}\n{_name(dataset, number)}, r {pair['correlation']:.3f}")
    for number in constant[:SHOWN]:
        shown.append(number)
        captions.append(f"{dataset.classes[dataset.labels[number]]}, of one colour\n{_name(dataset, number)}")
    kinds = ("pairs side by side, the same or nearly (r: correlation of the pixels)", "images of one colour")
    if shown:
        what = [f"{len(some):,} {kind}" for some, kind in zip((pairs, constant), kinds, strict=True) if some]
        most = f"; the first {SHOWN} of them" if max(len(pairs), len(constant)) > SHOWN else ""
        gallery(dataset.images[shown], captions, f"{name}: {' and '.join(what)}{most}", path, columns=6)
