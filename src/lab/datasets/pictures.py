"""Pictures decoded once, by all cores, into one file that is mapped into memory ever after."""

import contextlib
import filecmp
import hashlib
import itertools
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
from joblib.externals.loky.backend import get_context

from lab.decode import decode_into
from lab.display.terminal import make_bar
from lab.errors import UserError, first_line
from lab.files import atomic_write, open_plain, read_text, shield_processes, write_json

VERSION = 1  # of what the files here mean
CHUNK, CHUNK_BYTES = 256, 500_000  # pictures, or bytes of their files, that a process decodes before it reports
IDLE = 10  # seconds, after which a process ends whose parent was killed
FEW_BYTES = 4_000_000  # of files, which this process decodes before another one has started
MOST_OF_INDEX = 4_000  # bytes of a picture
MOST_HEADER = 1_000  # bytes, of numpy's
LEFT_OVER = r"\.[0-9a-f]{16}-[0-9a-f]{16}-[0-9a-f]{16}\.(npy|json)"  # by a killed process
MAPPED = 2**26  # bytes of images that are read before their pages are handed back


@dataclass
class Listing:
    """The files of a data set of pictures, and what they are to become."""

    root: Path
    source: Path  # what lists them: `root` itself, or a table in it
    files: Sequence[str]  # relative to `root`
    labels: Sequence[str]
    size: dict[str, Any]  # what they are fitted to: the "input" of an exported model's metadata

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an image: height, width, channels."""
        return self.size["height"], self.size["width"], self.size["channels"]

    def name(self) -> str:
        """Two digests: of what lists the files and the options, and of the files and labels that there are now."""
        place = json.dumps([VERSION, str(self.source.absolute()), self.size], sort_keys=True)
        found = hashlib.sha256(PIL.__version__.encode())
        for file, label in zip(self.files, self.labels, strict=True):
            try:
                status = os.stat(f"{self.root}/{file}")  # noqa: PTH116, a Path takes longer than its stat
                about = file, label, status.st_size, status.st_mtime_ns
            except OSError:  # it will be a broken one
                about = file, label
            found.update(repr(about).encode())
        return f"{hashlib.sha256(place.encode()).hexdigest()[:16]}-{found.hexdigest()[:16]}"


@dataclass
class Pictures:
    """What became of a listing's files, in their order."""

    images: npt.NDArray[np.uint8]  # [n, h, w, c], of those that are not broken; mapped, not read
    digests: list[str]  # [n]
    broken: dict[int, str]  # number of a file: reason


def read_pictures(listing: Listing, cache: Path | None, fills_cache: bool) -> Pictures:
    """The pixels of the pictures, out of `cache` or the user's own cache folder, where they are decoded if need be.

    They are decoded into `cache` if there is one and the caller `fills_cache`, else into the user's own folder. That is
    done once for all who list them with the names, labels, sizes and times that they have now; what the same source had
    listed before is removed then. Broken is what cannot be decoded, and what is there with two labels.
    """
    own, started, name = Path(pooch.os_cache("lab")).absolute(), time.perf_counter(), listing.name()
    places = [cache.absolute(), own] if cache else [own]
    for place in places:
        if found := _open(place / name, listing):
            return found
    folder = places[0] if fills_cache else own
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if found := _open(folder / name, listing):  # another process was faster
                return found
            _remove(folder, LEFT_OVER)
            _decode(listing, folder / name)
            source, _, files = name.partition("-")
            _remove(folder, f"{source}-(?!{files}).*")  # of files that have changed since
            found = _open(folder / name, listing)  # before others may remove it
    except OSError as error:
        needed = len(listing.files) * prod(listing.shape) / 1e6
        raise UserError(
            f"{error.filename or folder}: {error.strerror or first_line(error)}: the decoded pictures need "
            f"{needed:,.0f} MB there; data.cache=FOLDER names another place"
        ) from None
    seconds = time.perf_counter() - started
    print(f"{len(listing.files):,} pictures decoded in {seconds:.1f} s, kept in {folder / name}.npy")
    return found


def release(images: npt.NDArray) -> None:
    """Free the memory of what was read of a mapped array: it stays in the system's cache."""
    if isinstance(images, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        images._mmap.madvise(mmap.MADV_DONTNEED)


def blocks(images: npt.NDArray[np.uint8], indices: npt.NDArray[np.int64] | None = None) -> Iterator[npt.NDArray]:
    """`images`, or those at `indices`, in blocks, so that a mapped array is never in memory as a whole."""
    numbers = np.arange(len(images)) if indices is None else indices
    step = max(1, MAPPED // max(1, images[:1].nbytes))
    for start in range(0, len(numbers), step):
        yield images[numbers[start : start + step]]
        release(images)


def _open(path: Path, listing: Listing) -> Pictures | None:
    """What was decoded into the two files of `path`; None where one is missing, or is not of this listing."""
    try:
        count = len(listing.files)
        index = json.loads(read_text(path.with_suffix(".json"), MOST_OF_INDEX * count))
        digests, broken = index["digests"], {int(number): str(why) for number, why in index["broken"].items()}
        shape = (len(digests), *listing.shape)
        open_plain(path.with_suffix(".npy"), prod(shape) + MOST_HEADER).close()
        # c: a page that somebody writes to would be a copy, the file is never changed
        mapped = {"mmap_mode": "c", "allow_pickle": False}
        images = np.load(path.with_suffix(".npy"), **mapped) if digests else np.empty(shape, np.uint8)
        if len(digests) + len(broken) != count or images.shape != shape or images.dtype != np.uint8:
            return None
        return Pictures(images, digests, broken)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
        return None


def _remove(folder: Path, pattern: str) -> None:
    """Remove the files with such names: nobody else writes there, for we have the lock."""
    for path in folder.iterdir():
        if re.fullmatch(pattern, path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def _decode(listing: Listing, path: Path) -> None:
    """Decode the pictures into the two files of `path`, .npy and .json; the index, .json, last: then both are whole."""
    count, length = len(listing.files), prod(listing.shape)
    found: list[tuple[str, str]] = [("", "")] * count
    with atomic_write(path.with_suffix(".npy")) as beside:
        with beside.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, _header(count, listing))
            start = file.tell()
            file.truncate(start + count * length)
        with make_bar(count, " pictures") as bar:
            for first, results in _decode_chunks(listing, beside, start):
                found[first : first + len(results)] = results
                bar.update(len(results))
        _find_contradictions(listing, found)
        good = [number for number, (known, _) in enumerate(found) if known]
        if len(good) < count:
            _compact(beside, start, good, listing)
    broken = {str(number): why for number, (known, why) in enumerate(found) if not known}
    write_json({"digests": [found[number][0] for number in good], "broken": broken}, path.with_suffix(".json"))


def _find_contradictions(listing: Listing, found: list[tuple[str, str]]) -> None:
    """Mark as broken, in `found`, the files that are the same to the byte and have two labels."""
    same: dict[str, list[int]] = {}
    for number, (pixels, _) in enumerate(found):
        same.setdefault(pixels or str(number), []).append(number)
    paths, labels = [listing.root / file for file in listing.files], listing.labels
    for numbers in same.values():
        for number in numbers:
            others = (other for other in numbers if labels[other] != labels[number])
            twins = (other for other in others if filecmp.cmp(paths[other], paths[number], shallow=False))
            if (twin := next(twins, None)) is not None:
                found[number] = "", f"the same file as {paths[twin].name} of class {labels[twin]}"


def _header(count: int, listing: Listing) -> dict[str, Any]:
    return {"descr": "|u1", "fortran_order": False, "shape": (count, *listing.shape)}


def _decode_chunks(listing: Listing, file: Path, start: int) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Number of the first picture and the results of each chunk, as they are done."""
    paths, length = [listing.root / name for name in listing.files], prod(listing.shape)
    weights = [_weigh(path) for path in paths]
    tasks = {
        first: (file, start + first * length, paths[first:end], listing.size)
        for first, end in itertools.pairwise(_bounds(weights))
    }
    if sum(weights) <= FEW_BYTES:
        yield from ((first, decode_into(*task)) for first, task in tasks.items())
        return
    shield_processes()
    try:
        workers, alone = joblib.cpu_count(), get_context("loky")  # no forks of one that imports torch
        with ProcessPoolExecutor(workers, timeout=IDLE, context=alone) as pool:
            running: dict[Future, int] = {}
            for first, task in tasks.items():
                if len(running) >= 2 * workers:  # no more, for whoever interrupts waits for them
                    yield from _finish(running)
                running[pool.submit(decode_into, *task)] = first
            while running:
                yield from _finish(running)
    except BrokenProcessPool:
        raise UserError("a process that decoded pictures was killed (no memory left?)") from None


def _weigh(path: Path) -> int:
    """Bytes of the file; 0 where it cannot be looked at: it will be a broken one."""
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _bounds(weights: Sequence[int]) -> list[int]:
    """The number of each chunk's first picture, and how many pictures there are."""
    bounds, weight = [0], 0
    for number, each in enumerate(weights):
        if number - bounds[-1] == CHUNK or (weight and weight + each > CHUNK_BYTES):
            bounds.append(number)
            weight = 0
        weight += each
    return [*bounds, len(weights)]


def _finish(running: dict[Future, int]) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Wait for one of `running`, take out those that are done."""
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield running.pop(future), future.result()


def _compact(file: Path, start: int, good: Sequence[int], listing: Listing) -> None:
    """Move the images numbered `good` to the front, and shorten the file to them."""
    length = prod(listing.shape)
    with file.open("r+b") as opened:
        for place, number in enumerate(good):
            if place < number:
                opened.seek(start + number * length)
                pixels = opened.read(length)
                opened.seek(start + place * length)
                opened.write(pixels)
        opened.truncate(start + len(good) * length)
        opened.seek(0)
        np.lib.format.write_array_header_1_0(opened, _header(len(good), listing))
        if opened.tell() != start:
            raise ValueError("numpy's header has another length")
