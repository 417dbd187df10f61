"""Files are whole or absent."""

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it becomes `path` once the block ends, and is gone if the block fails."""
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(content: Mapping[str, Any], path: Path) -> None:
    with whole(path) as beside:
        beside.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A column for each key of any row, in the order in which they come."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with whole(path) as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
