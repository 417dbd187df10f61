"""Files are whole or absent, after a power cut too."""

import csv
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_BYTES = 2**30  # that a compressed file may hold


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to. It becomes `path` when the block ends, and is removed if the block fails.

    The content is on the disk before it gets its name.
    """
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield beside
        with beside.open("r+b") as file:  # Windows syncs nothing that is only read
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def refuse_bomb(path: Path) -> None:
    """ValueError where a zip archive would unpack to more than MOST_BYTES; other files pass."""
    if path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            promised = sum(member.file_size for member in archive.infolist())
        if promised > max(MOST_BYTES, path.stat().st_size):
            raise ValueError(f"it would unpack to {promised / 1e9:.1f} GB")


def read_arrays(path: Path) -> dict[str, npt.NDArray]:
    """All arrays of an .npz file; nothing in it is unpickled. Raises whatever the parsers say of a damaged one."""
    refuse_bomb(path)
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def write_text(text: str, path: Path) -> None:
    """Replace `path` as a whole."""
    with atomic_write(path) as beside:
        beside.write_text(text)


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """ValueError where a number is not finite: JSON has no word for it."""
    write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", path)


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A column for each key of any row, in the order in which the keys come."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
