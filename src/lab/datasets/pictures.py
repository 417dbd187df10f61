"""Pictures decoded once, by all cores, into one file that is mapped into memory ever after."""

import contextlib
import filecmp
import hashlib
import json
import mmap
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import PIL
import pooch
from filelock import FileLock
from joblib.externals.loky import FIRST_COMPLETED, BrokenProcessPool, Future, ProcessPoolExecutor, wait

from lab.decode import decode_into
from lab.display.terminal import make_bar
from lab.errors import UserError, first_line
from lab.files import atomic_write, open_plain, read_text, write_json

VERSION = 1  # of what the files here mean
CHUNK = 16  # pictures that a process decodes before it reports
IDLE = 10  # seconds, after which a process ends whose parent was killed
FEW_BYTES = 4_000_000  # of files, which this process decodes before another one has started
MOST_OF_INDEX = 4_000  # bytes of a picture
MOST_HEADER = 1_000  # bytes, of numpy's
LEFT_OVER = r"\.[0-9a-f]{16}-[0-9a-f]{16}-[0-9a-f]{16}\.(npy|json)"  # by a killed process
MAPPED = 2**26  # bytes of images that are read before their pages are handed back


@dataclass
class Pictures:
    """What became of a folder's files, in their order."""

    images: npt.NDArray[np.uint8]  # [n, h, w, c], of those that are not broken; mapped, not read
    digests: list[str]  # [n]
    broken: dict[int, str]  # number of a file: reason


def read_pictures(
    root: Path,
    source: Path,
    files: Sequence[str],
    labels: Sequence[str],
    size: dict[str, Any],
    cache: Path | None,
    fills_cache: bool = True,
) -> Pictures:
    """The pixels of `files`, relative to `root`, fitted to `size`; out of `cache`, where they are decoded if need be.

    Where they are not there and it does not fill `cache`, they are decoded into the user's own cache folder.

    They are decoded once for all who find them with the names, labels, sizes and times that they have now; then those
    that the same `source`, a table or `root`, has listed before are removed. Broken is what cannot be decoded, and what
    is there with two labels.
    """
    own, started = Path(pooch.os_cache("lab")).absolute(), time.perf_counter()
    places, name = [cache.absolute(), own] if cache else [own], _name(root, source, files, labels, size)
    for place in places:
        if found := _open(place / name, size, len(files)):
            return found
    folder = places[0] if fills_cache else own
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if found := _open(folder / name, size, len(files)):
                return found
            _clear(folder)
            _decode(root, files, labels, size, folder / name)
            for path in folder.glob(f"{name.partition('-')[0]}-*"):  # of files that have changed since
                if path.stem != name:
                    with contextlib.suppress(OSError):
                        path.unlink()
            found = _open(folder / name, size, len(files))  # before others may remove it
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror or first_line(error)}: the decoded pictures need "
            f"{len(files) * _bytes(size) / 1e6:,.0f} MB there; data.cache=FOLDER names another place"
        ) from None
    seconds = time.perf_counter() - started
    print(f"{len(files):,} pictures decoded in {seconds:.1f} s, kept in {folder / name}.npy")
    return found


def release(images: npt.NDArray) -> None:
    """Hand back the pages that were read of a mapped array: they stay in the system's cache alone."""
    if isinstance(images, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        images._mmap.madvise(mmap.MADV_DONTNEED)


def blocks(images: npt.NDArray[np.uint8], indices: npt.NDArray[np.int64] | None = None) -> Iterator[npt.NDArray]:
    """`images`, or those at `indices`, some at a time, so that no mapped array is in memory as a whole."""
    numbers = np.arange(len(images)) if indices is None else indices
    step = max(1, MAPPED // max(1, images[:1].nbytes))
    for start in range(0, len(numbers), step):
        yield images[numbers[start : start + step]]
        release(images)


def _name(root: Path, source: Path, files: Sequence[str], labels: Sequence[str], size: dict[str, Any]) -> str:
    """Two digests: of what lists the files and the options, and of what lies there."""
    place = json.dumps([VERSION, str(source.absolute()), size], sort_keys=True)
    listing = hashlib.sha256(PIL.__version__.encode())
    for file, label in zip(files, labels, strict=True):
        try:
            status = os.stat(f"{root}/{file}")  # noqa: PTH116, a Path takes longer than its stat
            about = file, label, status.st_size, status.st_mtime_ns
        except OSError:  # it will be a broken one
            about = file, label
        listing.update(repr(about).encode())
    return f"{hashlib.sha256(place.encode()).hexdigest()[:16]}-{listing.hexdigest()[:16]}"


def _bytes(size: dict[str, Any]) -> int:
    return size["height"] * size["width"] * size["channels"]


def _open(path: Path, size: dict[str, Any], count: int) -> Pictures | None:
    """None where one of the two files is missing, or is not what was written of so many pictures."""
    try:
        index = json.loads(read_text(path.with_suffix(".json"), MOST_OF_INDEX * count))
        digests, broken = index["digests"], {int(number): str(why) for number, why in index["broken"].items()}
        shape = (len(digests), *_nothing(size).shape[1:])
        open_plain(path.with_suffix(".npy"), prod(shape) + MOST_HEADER).close()
        # c: a page that somebody writes to would be a copy, the file is never changed
        images = np.load(path.with_suffix(".npy"), mmap_mode="c", allow_pickle=False) if digests else _nothing(size)
        if len(digests) + len(broken) != count or images.shape != shape or images.dtype != np.uint8:
            return None
        return Pictures(images, digests, broken)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
        return None


def _nothing(size: dict[str, Any]) -> npt.NDArray[np.uint8]:
    return np.empty((0, size["height"], size["width"], size["channels"]), np.uint8)


def _clear(folder: Path) -> None:
    """Remove what a killed process has half written: nobody else is at it, for we have the lock."""
    for path in folder.iterdir():
        if re.fullmatch(LEFT_OVER, path.name):
            path.unlink(missing_ok=True)


def _decode(root: Path, files: Sequence[str], labels: Sequence[str], size: dict[str, Any], path: Path) -> None:
    """Write the two files of `path`, the index last: where it is, both are whole."""
    found: list[tuple[str, str]] = [("", "")] * len(files)
    with atomic_write(path.with_suffix(".npy")) as beside:
        with beside.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, _header(len(files), size))
            start = file.tell()
            file.truncate(start + len(files) * _bytes(size))
        with make_bar(len(files), " pictures") as bar:
            for first, results in _decode_chunks(root, files, size, beside, start):
                found[first : first + len(results)] = results
                bar.update(len(results))
        _find_contradictions([root / file for file in files], labels, found)
        good = [number for number, (known, _) in enumerate(found) if known]
        if len(good) < len(files):
            _close_ranks(beside, start, good, size)
    broken = {str(number): why for number, (known, why) in enumerate(found) if not known}
    write_json({"digests": [found[number][0] for number in good], "broken": broken}, path.with_suffix(".json"))


def _find_contradictions(paths: Sequence[Path], labels: Sequence[str], found: list[tuple[str, str]]) -> None:
    """Files that are the same to the byte, with two labels: in `found` they are broken then."""
    same: dict[str, list[int]] = {}
    for number, (pixels, _) in enumerate(found):
        same.setdefault(pixels or str(number), []).append(number)
    for numbers in same.values():
        for number in numbers:
            others = (other for other in numbers if labels[other] != labels[number])
            twins = (other for other in others if filecmp.cmp(paths[other], paths[number], shallow=False))
            if (twin := next(twins, None)) is not None:
                found[number] = "", f"the same file as {paths[twin].name} of class {labels[twin]}"


def _header(count: int, size: dict[str, Any]) -> dict[str, Any]:
    return {"descr": "|u1", "fortran_order": False, "shape": (count, *_nothing(size).shape[1:])}


def _decode_chunks(
    root: Path, files: Sequence[str], size: dict[str, Any], file: Path, start: int
) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Number of the first picture and the results of each chunk, as they are done."""
    tasks = [
        (file, start + first * _bytes(size), [root / name for name in files[first : first + CHUNK]], size)
        for first in range(0, len(files), CHUNK)
    ]
    weight = 0
    for name in files:
        with contextlib.suppress(OSError):
            weight += (root / name).stat().st_size
        if weight > FEW_BYTES:
            break
    else:
        yield from ((number * CHUNK, decode_into(*task)) for number, task in enumerate(tasks))
        return
    try:
        with ProcessPoolExecutor(workers := joblib.cpu_count(), timeout=IDLE) as pool:
            running: dict[Future, int] = {}
            for number, task in enumerate(tasks):
                if len(running) >= 2 * workers:  # no more, for whoever interrupts waits for them
                    yield from _finish(running)
                running[pool.submit(decode_into, *task)] = number * CHUNK
            while running:
                yield from _finish(running)
    except BrokenProcessPool:
        raise UserError("a process that decoded pictures was killed (no memory left?)") from None


def _finish(running: dict[Future, int]) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Wait for one of `running`, take out those that are done."""
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield running.pop(future), future.result()


def _close_ranks(file: Path, start: int, good: Sequence[int], size: dict[str, Any]) -> None:
    """Move the images numbered `good` to the front, and shorten the file to them."""
    length = _bytes(size)
    with file.open("r+b") as opened:
        for place, number in enumerate(good):
            if place < number:
                opened.seek(start + number * length)
                pixels = opened.read(length)
                opened.seek(start + place * length)
                opened.write(pixels)
        opened.truncate(start + len(good) * length)
        opened.seek(0)
        np.lib.format.write_array_header_1_0(opened, _header(len(good), size))
        if opened.tell() != start:
            raise ValueError("numpy's header has another length")
