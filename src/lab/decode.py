"""Decodes a picture's file into pixels, exactly as a device does: by predict.py's own functions.

Processes that decode side by side import this file: without torch they start in a fraction of a second.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import predict
from lab.errors import UserError, first_line
from lab.files import open_plain
from predict import PICTURES as PICTURES  # how the names of pictures' files end

MOST_BYTES = 2**29  # of a picture's file


def decode(path: Path, size: dict[str, Any]) -> bytes:
    """The pixels [h, w, c] of the picture at `path`, fitted to `size`, the "input" of an exported model's metadata.

    UserError where the file is no picture, or a dangerous one; OSError where it cannot be read.
    """
    try:
        with open_plain(path, MOST_BYTES) as file:
            return predict.fit(predict.open_picture(file, size), size, False)[0].tobytes()
    except predict.UserError as error:
        raise UserError(first_line(error)) from None


def decode_into(file: Path, start: int, paths: Sequence[Path], size: dict[str, Any]) -> list[tuple[str, str]]:
    """Write the pixels of `paths` to `file`, one after another from the byte `start` on, zeros for a broken picture.

    Give for each the digest of its pixels and "", or "" and the reason why it is broken.
    """
    found = []
    with file.open("r+b") as opened:
        opened.seek(start)
        for path in paths:
            try:
                pixels = decode(path, size)
                found.append((digest(pixels), ""))
            except (UserError, OSError) as error:
                pixels = bytes(size["height"] * size["width"] * size["channels"])
                reason = error.strerror if isinstance(error, OSError) else first_line(error).removeprefix(f"{path}: ")
                found.append(("", reason or first_line(error)))
            opened.write(pixels)
    return found


def digest(pixels: bytes) -> str:
    """32 hexadecimal digits, the same for the same pixels."""
    return hashlib.blake2b(pixels, digest_size=16).hexdigest()
