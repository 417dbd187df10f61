"""Keras trains on the same files, in a process of its own beside the runs: src/yardsticks/keras_scores.py."""

import contextlib
import itertools
import os
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from lab.config.schema import PROJECT, data_folder
from lab.display.terminal import warn
from lab.errors import UserError, first_line, was_interrupted
from lab.files import read_csv, write_csv

SCORES = "keras.csv"
ALONE = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
ALONE |= {"PYTHONSAFEPATH": ""}  # off, whatever our own processes have: the script imports what lies beside it


def read_scores(folder: Path, row: str) -> list[float]:
    """Keras' accuracies in % of `row`: of seed 1, 2, ... up to the first seed that is missing."""
    scores = {int(line["seed"]): float(line["accuracy"]) for line in _read(folder) if line["row"] == row}
    return [scores[seed] for seed in itertools.takewhile(scores.__contains__, itertools.count(1))]


def take_over(earlier: Path, folder: Path, rows: Set[str]) -> None:
    """Put into `folder` the seeds of `rows` in another folder that it lacks."""
    if lines := [line for line in _read(earlier) if line["row"] in rows]:
        seeds = {(line["row"], line["seed"]): line for line in [*lines, *_read(folder)]}
        write_csv(list(seeds.values()), folder / SCORES)


@contextlib.contextmanager
def beside(python: str | None, asked: dict[str, int], folder: Path) -> Iterator[None]:
    """Meanwhile train in Keras, with one thread, the seeds that `folder`/keras.csv lacks: so many of each row `asked`.

    `python` is an interpreter that has Keras and scikit-learn; None: nothing is run. In the end it waits for Keras,
    unless an error has ended the block.
    """
    missing = {row: range(len(read_scores(folder, row)) + 1, seeds + 1) for row, seeds in asked.items()}
    if python is None or not any(missing.values()):
        yield
        return
    worker = _Worker(python, {row: seeds for row, seeds in missing.items() if seeds}, folder)
    worker.start()
    try:
        yield
        while worker.is_alive():
            worker.join(0.5)  # so that Ctrl-C is heard
    finally:
        worker.stop()
    if worker.failed:
        raise UserError(f"keras={python}: {worker.failed}")


class _Worker(threading.Thread):
    def __init__(self, python: str, missing: dict[str, Sequence[int]], folder: Path) -> None:
        super().__init__(daemon=True)
        self.python, self.missing, self.folder = python, missing, folder
        self.process: subprocess.Popen | None = None
        self.stopped, self.failed = False, ""

    def run(self) -> None:
        for row, seeds in self.missing.items():
            for seed in seeds:
                if self.stopped or self.failed:
                    return
                self._train(row, seed)

    def _train(self, row: str, seed: int) -> None:
        script = PROJECT / "src" / "yardsticks" / "keras_scores.py"
        command = list(map(str, (self.python, script, row, data_folder(os.environ.get("LAB_DATA")), seed)))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        try:
            self.process = subprocess.Popen(command, env=os.environ | ALONE, **pipes)
            if self.stopped:  # meanwhile: stop() has not seen this process
                self.process.terminate()
            told, error = self.process.communicate()
        except OSError as failure:
            self.failed = first_line(failure)
            return
        has_failed = self.process.returncode != 0
        line = ((error if has_failed else told).strip().splitlines() or ["nothing"])[-1]
        found = re.fullmatch(rf"{seed},(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)", line)
        if not has_failed and found and float(found[1]) <= 100:
            scores = {"row": row, "seed": seed, "accuracy": found[1], "seconds": found[2]}
            write_csv([*_read(self.folder), scores], self.folder / SCORES)
        elif not (self.stopped or was_interrupted()):
            why = f"has failed, {line}" if has_failed else f"ends in {line!r}, not in {seed},PERCENT,SECONDS"
            self.failed = f"{shlex.join(command)} {why}"
            warn(f"keras={self.python}: {self.failed}: our side goes on alone")

    def stop(self) -> None:
        self.stopped = True
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.join(10)


def _read(folder: Path) -> list[dict[str, str]]:
    """The lines of `folder`'s keras.csv, none where it has no such file. UserError where that is damaged."""
    path = folder / SCORES
    try:
        lines = read_csv(path) if path.exists() else []
        if all(int(line["seed"]) > 0 and 0 <= float(line["accuracy"]) <= 100 and line["row"] for line in lines):
            return [{name: line[name] for name in ("row", "seed", "accuracy", "seconds")} for line in lines]
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(f"{path}: is damaged: delete it, and Keras is trained anew")
