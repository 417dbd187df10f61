"""The command line of commands that take a run's folder: argparse, with errors of one line."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from lab.config.own import name_networks
from lab.display.language import LANGUAGES
from lab.errors import explain, interrupt, printable, tell

SHARED = {  # options of several commands
    "--weights": {"choices": ("last", "best"), "default": "last", "help": "of which epoch; else the last"},
    "--root": {"type": Path, "help": "folder of the data; else the run's own, else $LAB_DATA"},
    "--lang": {"choices": LANGUAGES, "default": "en", "help": "language of the page and its figures"},
    "--networks": {"type": Path, "metavar": "FILE", "help": "of a run with networks=FILE: it, or its copy"},
}


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, exit code 1."""

    def add_shared(self, *names: str) -> None:
        """Add options of SHARED."""
        for name in names:
            self.add_argument(name, **SHARED[name])

    def error(self, message: str) -> NoReturn:
        raise SystemExit(f"error: {message}; see --help")


def refuse_unprintable() -> None:
    """SystemExit where the command line, or this folder's name, has what a terminal obeys: messages repeat them."""
    for word in (*sys.argv[1:], str(Path.cwd())):
        if printable(word) != word:
            raise SystemExit(f"error: {printable(word)}: has characters that cannot be printed")


def run_parser(parser: Parser, task: Callable[..., None]) -> None:
    """Call `task` with what the parser made of the command line, as keyword arguments."""
    refuse_unprintable()
    signal.signal(signal.SIGTERM, interrupt)  # a machine that shuts down asks as Ctrl-C does
    words = [f"--{word}" if word.startswith("lang=") else word for word in sys.argv[1:]]  # as train.py is told it
    given = vars(parser.parse_args(words))
    try:
        name_networks(given.pop("networks", None))
        task(**given)
    except Exception as error:
        if explain(error) is None and os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        raise SystemExit(f"error: {tell(error)}") from None
    except KeyboardInterrupt:
        raise SystemExit("error: interrupted") from None
