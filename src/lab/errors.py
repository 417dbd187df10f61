"""Mistakes that a user can mend, and the one place that makes a line of an exception."""

import os
import re

from omegaconf.errors import InterpolationResolutionError


class UserError(Exception):
    """A mistake that its user can mend: told in one line, without a traceback."""


def explain(error: BaseException) -> str | None:
    """The line that the user reads, None where `error` is a defect of this program."""
    # torch is not imported here, and on a CPU it raises a plain RuntimeError
    if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", str(error)):
        return "not enough memory: try a smaller model.batch_size, or fewer runs at a time"
    if isinstance(error, InterpolationResolutionError):  # seed=${seed}
        return f"{error.full_key}: {first_line(error)}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(str(error).split()) if isinstance(error, UserError | OSError) else None


def first_line(error: BaseException) -> str:
    """What libraries say first; they go on with hints for programmers."""
    return " ".join(str(error).partition("\n")[0].split())
