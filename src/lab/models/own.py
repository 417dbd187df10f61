"""A network out of the user's own file."""

import runpy
import traceback
from pathlib import Path
from typing import Any

from torch.nn import Module, Sequential

from lab.errors import UserError, first_line
from lab.files import hash_text


def own(classes: int, file: str, name: str, sha256: str, **options: Any) -> Sequential:
    """The network that the function `name` in the Python file `file` makes, called with `classes` and the `options`.

    UserError where the file has changed since its `sha256` was taken; where it fails, with the line.
    """
    path = Path(file)
    if hash_text(path) != sha256:
        raise UserError(f"{path}: it has changed since this run began: name the copy that the run keeps, networks.py")
    try:
        net = runpy.run_path(file)[name](classes, **options)
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        lines += [error.lineno] if isinstance(error, SyntaxError) else []
        raise UserError(
            f"{path}, line {lines[-1] if lines else 1}: {type(error).__name__}: {first_line(error)}"
        ) from None
    if not isinstance(net, Module):
        raise UserError(f"{path}: {name} gives a {type(net).__name__}, must give a torch.nn.Module")
    return net if type(net).forward is Sequential.forward else Sequential(net)
