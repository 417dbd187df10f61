"""The command line of the commands that take a run's folder: argparse, with errors of one line."""

import argparse
from collections.abc import Callable
from typing import NoReturn

from lab import UserError
from lab.config import in_users_words, one_line


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, exit code 1."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(f"error: {message}; see --help")


def run_parser(parser: Parser, task: Callable[..., None]) -> None:
    """`task` with what the parser made of the command line, as keyword arguments."""
    given = parser.parse_args()
    try:
        task(**vars(given))
    except Exception as error:
        known = in_users_words(error)
        if not isinstance(known, UserError | OSError):
            raise
        raise SystemExit(f"error: {one_line(known)}") from None
    except KeyboardInterrupt:
        raise SystemExit("error: interrupted") from None
