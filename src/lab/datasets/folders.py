"""A folder of pictures: where its classes and parts stand, what is wrong with it, which pictures belong together."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lab.config.schema import MOST_CLASSES, is_size
from lab.datasets.pictures import Listing, read_pictures
from lab.datasets.readers import Arrays
from lab.decode import PICTURES
from lab.display.terminal import print_notes
from lab.errors import UserError, printable
from lab.files import parse_table, read_bytes

PARTS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
ORDER = ("train", "validation", "test")
LACKING = 0.15  # of the pictures, for each part that a folder lacks
SHOWN = 10  # broken files
MOST_REPEATS = 4  # of a pattern: each more takes as many times as long as a name has letters
RUNS = "outputs"  # the folder of runs; it lies among the classes where a run is started there


@dataclass
class Picture:
    """A file that is to be a picture."""

    file: str  # relative to the folder, with slashes
    label: str
    part: str = "train"
    group: str = ""


def folder(
    root: Path,
    table: str | None = None,
    size: int | str = 64,
    fit: str = "crop",
    colour: str = "rgb",
    picture: str = "photo",
    group: str | None = None,
    skip_broken: bool = False,
    cache: str | None = None,
    fills_cache: bool = True,
) -> Arrays:
    """Pictures of any format and size: `CLASS/picture`, or `train|validation|val|valid|test/CLASS/picture`.

    `table` is a CSV file in `root` instead, with the columns file, label and perhaps part and group. `size` is
    "HEIGHTxWIDTH" or one number for both. Files in whose names `group` finds the same stay together in every split.
    `cache` is where they are kept decoded, or only looked for.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder: data.root=FOLDER, or --root, names that of the pictures")
    pictures = list(_list_table(root, table) if table else _list_folders(root))
    pictures.sort(key=lambda each: ORDER.index(each.part))  # keeps the order in each
    classes = _name_classes(root, pictures)
    files, labels = [each.file for each in pictures], [each.label for each in pictures]
    listing = Listing(root, root / table if table else root, files, labels, _input(size, fit, colour, picture))
    read = read_pictures(listing, Path(cache).expanduser() if cache else None, fills_cache)
    kept = _leave_out(pictures, read.broken, root, skip_broken)
    counts = {part: sum(each.part == part for each in kept) for part in ORDER}
    return Arrays(
        read.images,
        np.array([classes.index(each.label) for each in kept], np.int64),
        {part: count for part, count in counts.items() if count or part == "train"},
        classes=classes,
        files=[each.file for each in kept],
        groups=_group(kept, group, read.digests),
        known_digests=read.digests,
        skipped=[files[number] for number in read.broken],
        lacking=LACKING,
    )


def _leave_out(pictures: Sequence[Picture], broken: Mapping[int, str], root: Path, skip_broken: bool) -> list[Picture]:
    """The pictures that are not broken. UserError where none may be skipped, or a class would have none left."""
    if broken and not skip_broken:
        named = [f"{printable(pictures[number].file)} ({why})" for number, why in broken.items()]
        shown = "; ".join(named[:SHOWN]) + ("; ..." if len(named) > SHOWN else "")
        told = f"{root}: {len(broken):,} of {len(pictures):,} pictures are broken: {shown}"
        raise UserError(f"{told}: data.skip_broken=true leaves them out")
    kept = [each for number, each in enumerate(pictures) if number not in broken]
    if gone := {each.label for each in pictures} - {each.label for each in kept}:
        raise UserError(f"{root}: no picture of class {min(gone)} can be read")
    return kept


def _list_folders(root: Path) -> Iterator[Picture]:
    """The pictures by part, class and name, as names sort."""
    inside = [each for each in _visible(root) if each.is_dir()]
    parts = [each for each in inside if each.name.lower() in PARTS]
    if not parts:
        yield from _list_classes(root, "", "train")
        return
    for each in inside:
        if each not in parts and any(map(_is_picture, _visible(each.path))):
            raise UserError(f"{each.path}: pictures beside {parts[0].name}: a class lies in the folder of a part")
        if each not in parts and any(_is_picture(entry) for _, entry in _walk(each, "")):
            print_notes([f"{printable(each.path)} is left out: parts are called {', '.join(PARTS)}"])
    for each in parts:
        yield from _list_classes(root, f"{each.name}/", PARTS[each.name.lower()])


def _list_classes(root: Path, place: str, part: str) -> Iterator[Picture]:
    """The pictures of `part` in `root`/`place`, a folder of classes. UserError where a class has none."""
    for each in _visible(root / place):
        if each.is_dir():
            files = dict(_walk(each, f"{place}{each.name}/"))
            pictures = [file for file, entry in files.items() if _is_picture(entry)]
            if not pictures:
                others = ", ".join(sorted({Path(file).suffix or Path(file).name for file in files})[:SHOWN])
                raise UserError(
                    f"{each.path}: a class without pictures{f', there are only {others}' if others else ''}: remove "
                    f"the folder, or put some of {' '.join(PICTURES)} into it"
                )
            for file in pictures:
                yield Picture(file, each.name, part)


def _walk(place: os.DirEntry, name: str) -> Iterator[tuple[str, os.DirEntry]]:
    """Files beneath `place`, as names sort, each with its path relative to the root; that of `place` is `name`."""
    for each in _visible(place.path):
        if not each.is_dir():
            yield name + each.name, each
        elif not each.is_symlink():
            yield from _walk(each, f"{name}{each.name}/")


def _visible(place: Path | str) -> list[os.DirEntry]:
    """What lies in `place` and is not hidden, by name; without this program's runs, which may lie among the classes."""
    with os.scandir(place) as entries:
        seen = sorted((each for each in entries if not each.name.startswith((".", "__MACOSX"))), key=lambda e: e.name)
    return [each for each in seen if each.name != RUNS or Path(each.path).absolute() != Path(RUNS).absolute()]


def _is_picture(entry: os.DirEntry) -> bool:
    return entry.name.lower().endswith(PICTURES)


def _list_table(root: Path, table: str) -> Iterator[Picture]:
    """The pictures in the order of the table's rows. UserError where a row makes no sense."""
    path, seen = root / table, set()
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file: data.source.table names one in data.root") from None
    otherwise = "its first line must name the columns file,label[,part][,group]"
    for line, row in parse_table(content, path, {"file", "label"}, otherwise):
        file, label = row["file"].strip().replace("\\", "/"), row["label"].strip()
        part = PARTS.get((row.get("part") or "train").strip().lower())
        where = f"{path}, line {line}: {printable(file)}"
        if not file or not label or not part:
            raise UserError(f"{where}: needs a file, a label, and of parts one of {', '.join(PARTS)}")
        if printable(file) != file:
            raise UserError(f"{where}: has characters that cannot be printed")
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise UserError(f"{where}: must be a path in {root}")
        if file in seen:
            raise UserError(f"{where}: is listed twice")
        seen.add(file)
        yield Picture(file, label, part, row.get("group", "").strip())


def _name_classes(root: Path, pictures: Sequence[Picture]) -> list[str]:
    """The classes in the order of their names, or of their numbers. UserError where they are no classes to learn."""
    classes = sorted({each.label for each in pictures})
    if all(re.fullmatch(r"\d{1,9}", name) for name in classes):
        classes.sort(key=int)
    if not classes:
        raise UserError(f"{root}: no pictures: each class is a folder in it, CLASS/picture.jpg or train/CLASS/...")
    if len(classes) == 1:
        raise UserError(f"{root}: one class only, {printable(classes[0])}: a network tells two or more apart")
    if len(classes) > MOST_CLASSES:
        raise UserError(f"{root}: {len(classes):,} classes: {MOST_CLASSES:,} at most")
    for name in classes:
        if printable(name) != name:
            raise UserError(f"{root}: class {printable(name)} has characters that cannot be printed: rename it")
    return classes


def _input(size: int | str | None, fit: str, colour: str, picture: str) -> dict[str, int | str]:
    """What pictures are fitted to, in the terms of an exported model's metadata."""
    if not is_size(size):
        raise UserError(f"data.size={size}: must be 64 or 96x128, up to 4096")
    height, width = ([int(side) for side in str(size).split("x")] * 2)[:2]
    channels, name = {"grey": (1, "grey"), "rgb": (3, "RGB")}[colour]
    return {"channels": channels, "height": height, "width": width, "colour": name, "picture": picture, "fit": fit}


def _group(pictures: Sequence[Picture], pattern: str | None, digests: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """A number for each picture, the same for those of one group or with the same pixels; None: each stands alone."""
    if pattern:
        if re.search(r"(?<!\\)\)[*+{]", pattern):
            raise UserError(f"data.group={pattern}: a group that is repeated may search for ever: repeat none")
        if len(re.findall(r"(?<!\\)(?:[*+]|\{\d*,)", pattern)) > MOST_REPEATS:
            raise UserError(f"data.group={pattern}: searches too long: of *, + and {{1,}} {MOST_REPEATS} at most")
        try:
            found = [re.search(pattern, Path(each.file).name) for each in pictures]
        except re.error as error:
            raise UserError(f"data.group={pattern}: not a regular expression ({error})") from None
        if not any(found):
            example = Path(pictures[0].file).name
            raise UserError(f"data.group={pattern}: is in no file's name, as in {printable(example)}")
        names = ["\0".join(map(str, match.groups() or [match[0]])) if match else "" for match in found]
    else:
        names = [each.group for each in pictures]
    # a picture is an edge between its group's name and its pixels: what hangs together is a group
    count, named = len(pictures), [f"={name}" if name else str(number) for number, name in enumerate(names)]
    by_name, by_pixels = (np.unique(each, return_inverse=True)[1] for each in (named, digests))
    edges = coo_array((np.ones(count), (by_name, by_pixels + count)), (2 * count, 2 * count))
    groups = connected_components(edges, directed=False)[1][by_name]
    return groups.astype(np.int64) if len(np.unique(groups)) < count else None
