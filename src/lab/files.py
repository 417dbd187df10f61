"""Files are whole or absent, after a power cut too."""

import csv
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST_BYTES = 2**30  # that a compressed file may hold


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it becomes `path` once the block ends, and is gone if the block fails.

    What it holds is on the disk before it has its name.
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
    """ValueError where a zip archive would unpack to more than MOST_BYTES; what is no such archive passes."""
    if path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            promised = sum(member.file_size for member in archive.infolist())
        if promised > max(MOST_BYTES, path.stat().st_size):
            raise ValueError(f"it would unpack to {promised / 1e9:.1f} GB")


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """ValueError where a figure is not finite: JSON has no word for it."""
    with whole(path) as beside:
        beside.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A column for each key of any row, in the order in which they come."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with whole(path) as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
