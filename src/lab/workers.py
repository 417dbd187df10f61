"""Folds trained side by side: one process of one thread each, epoch by epoch in turn where cores are fewer."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from tqdm import tqdm

from lab import UserError
from lab.config import in_users_words, one_line


@dataclass
class Fold:
    """One in training, in a `process` at the other end of `connection`, which writes into `folder`."""

    number: int
    folder: Path
    process: BaseProcess
    connection: Connection
    epoch: int = 0
    waits: bool = False


def start_importing() -> BaseContext:
    """Where processes come from. On Linux they are forked from one that has imported torch, which begins here."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lab.fit"])
    before = dict(os.environ)
    # all that it knows of sys.path
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), before.get("PYTHONPATH", "")])
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is this process's to answer
    multiprocessing.forkserver.ensure_running()
    signal.signal(signal.SIGINT, interrupted)
    os.environ.clear()
    os.environ.update(before)
    return context


def train_folds(
    configs: dict[int, dict[str, Any]], folder: Path, workers: int, bar: tqdm, tell: Callable[[int], None]
) -> None:
    """Train fold k as configs[k] says, into `folder`/fold_k, which is there when it is whole; `tell` its number then.

    At most `workers` train at a time. The last ones, too few to fill the workers evenly, take turns.
    """
    context, todo, running = start_importing(), list(configs), []
    try:
        while todo or running:
            while todo and (len(running) < workers or len(running) + len(todo) < 2 * workers):
                running.append(_start(context, todo[0], configs[todo.pop(0)], folder))
            _give_turns(running, workers)
            for connection in wait([fold.connection for fold in running]):
                fold = next(fold for fold in running if fold.connection is connection)
                kind, value = _receive(fold)
                if kind == "epoch":
                    fold.epoch, fold.waits = value, True
                elif kind == "images":
                    bar.update(value)
                elif kind == "total":
                    bar.total = value and value * len(configs)
                elif kind == "failed":
                    raise UserError(f"fold {fold.number}: {value}")
                else:
                    fold.process.join()
                    fold.folder.replace(folder / f"fold_{fold.number}")
                    running.remove(fold)
                    tell(fold.number)
    except KeyboardInterrupt:
        raise UserError("interrupted: the same command goes on with the folds that are missing") from None
    finally:
        for fold in running:
            fold.process.kill()
            fold.process.join()
            shutil.rmtree(fold.folder, ignore_errors=True)


def _start(context: BaseContext, number: int, config: dict[str, Any], folder: Path) -> Fold:
    beside = folder / f".fold_{number}-{os.getpid()}"
    beside.mkdir()
    ours, theirs = context.Pipe()
    process = context.Process(target=_train_fold, args=(config, beside, theirs), daemon=True)
    process.start()
    theirs.close()  # so that its end is heard
    return Fold(number, beside, process, ours)


def _give_turns(running: Sequence[Fold], workers: int) -> None:
    """To those who are furthest behind, as many as are free to work."""
    waiting = sorted((fold for fold in running if fold.waits), key=lambda fold: fold.epoch)
    for fold in waiting[: max(workers - (len(running) - len(waiting)), 0)]:
        fold.connection.send("go")
        fold.waits = False


def _receive(fold: Fold) -> tuple[str, Any]:
    try:
        return fold.connection.recv()
    except (EOFError, ConnectionError):
        fold.process.join()
        hint = " (no memory left? workers=1 takes the least)" if fold.process.exitcode == -signal.SIGKILL else ""
        raise UserError(
            f"fold {fold.number}: its process ended with exit code {fold.process.exitcode}{hint}: "
            "the same command goes on with the folds that are missing"
        ) from None


def _train_fold(config: dict[str, Any], folder: Path, connection: Connection) -> None:
    """The worker's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that gives the turns sees to it
    from lab.callbacks import Turns
    from lab.fit import fit_fold

    try:
        fit_fold(OmegaConf.create(config), folder, Turns(connection))
        said = "done", None
    except (EOFError, ConnectionError):
        return  # nobody waits for this fold any more
    except Exception as error:
        known = in_users_words(error)
        if not isinstance(known, UserError | OSError):
            traceback.print_exc()  # a mistake of ours
        said = "failed", one_line(known)
    with contextlib.suppress(OSError):
        connection.send(said)
