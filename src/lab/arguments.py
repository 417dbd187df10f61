"""The command line of the commands that take a run's folder: argparse, with errors of one line."""

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

from lab import UserError
from lab.config import one_line


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SystemExit(f"error: {message}; see --help")


def run_parser(parser: Parser, task: Callable[..., None], words: Sequence[str] | None = None) -> None:
    """`task` with what the parser made of `words`, by default the command line's, as keyword arguments."""
    given = parser.parse_args(words)
    try:
        task(**vars(given))
    except (UserError, OSError) as error:
        raise SystemExit(f"error: {one_line(error)}") from None
    except KeyboardInterrupt:
        raise SystemExit("error: interrupted") from None
