"""Files: written whole or not at all, after a power cut too; read as if a stranger had made them."""

import csv
import hashlib
import io
import json
import os
import re
import secrets
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lab.errors import UserError

SOURCES = Path(__file__).parents[1]
MOST_BYTES = 2**30  # that a compressed file may unpack to
MOST_STORED = 2**33  # bytes of any other file
MOST_TEXT = 2**25  # bytes
LEFT_OVER = (
    r"\.(\d+|[0-9a-f]{16})-\w+\.(ckpt|csv|html|json|npz|png|yaml)"  # by a killed process; of older versions a number
)


@contextmanager
def atomic_write(path: Path, replaces: bool = True) -> Iterator[Path]:
    """Give a file beside `path` to write to. It becomes `path` when the block ends, and is removed if the block fails.

    The content is on the disk before it gets its name. With `replaces=False` FileExistsError if `path` is there.
    """
    beside = path.with_name(f".{secrets.token_hex(8)}-{path.name}")  # a name that nobody has planted a link under
    beside.touch(exist_ok=False)
    try:
        yield beside
        with beside.open("r+b") as file:  # Windows syncs nothing that is only read
            os.fsync(file.fileno())
        beside.replace(path) if replaces else _link(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _link(beside: Path, path: Path) -> None:
    """Give `beside` the name `path` too. FileExistsError if that is there."""
    try:
        os.link(beside, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with path.open("xb") as file:
            file.write(beside.read_bytes())


def open_plain(path: Path, most: int = MOST_STORED, mode: str = "rb") -> IO[Any]:
    """Open a file that may be a stranger's. UserError where it is a pipe or a device, or larger than `most` bytes."""
    no_wait = getattr(os, "O_NONBLOCK", 0)  # for whoever would write into the pipe
    options = {} if "b" in mode else {"encoding": "utf-8"}  # on Windows too
    file = open(path, mode, opener=lambda name, flags: os.open(name, flags | no_wait), **options)  # noqa: SIM115
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= most:
        return file
    file.close()
    why = f"{status.st_size:,} bytes are too many" if stat.S_ISREG(status.st_mode) else "not a plain file"
    raise UserError(f"{path}: {why}")


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """The text of a file that may be a stranger's. ValueError where it is no text."""
    with open_plain(path, most, "r") as file:
        return file.read()


def read_bytes(path: Path, most: int = MOST_TEXT) -> bytes:
    """The bytes of a file that may be a stranger's."""
    with open_plain(path, most) as file:
        return file.read()


def hash_text(path: Path) -> str:
    """SHA-256 of a file's text, the same whatever ends its lines."""
    return hashlib.sha256(read_text(path).encode()).hexdigest()


def parse_table(content: bytes, path: Path, columns: Set[str], otherwise: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV table, `content` of `path`, each with the number of its line; a missing cell is empty.

    UserError where it is no table, or lacks one of `columns`: `otherwise` says that.
    """
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        names = rows.fieldnames or ()
        if not columns <= set(names):
            raise UserError(f"{path}: {otherwise}")
        for row in rows:
            yield rows.line_num, {name: row[name] or "" for name in names}
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a table in UTF-8, separated by commas ({error})") from None


def shield_processes() -> None:
    """Let the processes to come import this project, and nothing that lies in the current directory."""
    inherited = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(SOURCES), *inherited]))
    os.environ["PYTHONSAFEPATH"] = "1"


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
    with open_plain(path) as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def write_text(text: str, path: Path) -> None:
    """Replace `path` as a whole."""
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """ValueError where a number is not finite: JSON has no word for it."""
    write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", path)


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a column for each key of any row, in the order in which the keys come."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    options = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with atomic_write(path) as beside, beside.open("w", **options) as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows({name: _as_text(value) for name, value in row.items()} for row in rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a file of write_csv, which may be a stranger's. ValueError where it is no table."""
    try:
        with open_plain(path, MOST_TEXT, "r") as file:
            return list(csv.DictReader(file))
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _as_text(value: Any) -> Any:
    """With a ' before it where a spreadsheet would compute it: a class or a file called =cmd, say."""
    is_formula = isinstance(value, str) and re.match(r"[=@]|[+-](?![\d.]+(e[+-]?\d+)?$)", value)
    return f"'{value}" if is_formula else value
