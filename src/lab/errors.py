"""UserError, a mistake that a user can mend; and what makes one line of any exception."""

import os
import re
from typing import NoReturn

from omegaconf.errors import InterpolationResolutionError

# control characters, changes of direction, and the bytes of a file's name that are no text
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
DEFECT = "a defect of this program"


class UserError(Exception):
    """A mistake that its user can mend: told in one line, without a traceback."""


def printable(text: str) -> str:
    """`text` with escapes, \\x1b say, for what a terminal would obey or show as something else."""
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


_interrupts: list[int] = []


def interrupt(signal_number: int, _: object) -> NoReturn:
    """Do what Ctrl-C does, and remember it: a library that it stops may raise another error on top, or none."""
    _interrupts.append(signal_number)
    raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Whether `interrupt` was called: then a KeyboardInterrupt may have been swallowed, or replaced."""
    return bool(_interrupts)


def explain(error: BaseException) -> str | None:
    """The line that the user reads; None where `error` is a defect of this program."""
    line = _line(error)
    return line and printable(line)


def tell(error: BaseException) -> str:
    """The line of any error; that of a defect says how to see more."""
    return explain(error) or f"{type(error).__name__}: {first_line(error)}: {DEFECT}, HYDRA_FULL_ERROR=1 shows where"


def _line(error: BaseException) -> str | None:
    # torch is not imported here, and on a CPU it raises a plain RuntimeError
    if isinstance(error, MemoryError) or re.search("out of memory|[Cc]an't allocate memory|bad_alloc", str(error)):
        return "not enough memory: try a smaller model.batch_size, or fewer runs at a time"
    if isinstance(error, RecursionError):
        return "something is too deep: a folder in folders, or a value in values"
    if isinstance(error, InterpolationResolutionError):  # seed=${seed}
        return f"{error.full_key}: {first_line(error)}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(str(error).split()) if isinstance(error, UserError | OSError) else None


def first_line(error: BaseException) -> str:
    """The first line of an error's text: libraries go on with hints for programmers."""
    return printable(" ".join(str(error).strip().partition("\n")[0].split())) or type(error).__name__
