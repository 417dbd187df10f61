"""The processes that jobs run in: how many, what they inherit, how they begin and end."""

import multiprocessing
import os
import platform
import shutil
import signal
import sys
import time
from multiprocessing import forkserver

import joblib
from joblib.externals.loky.backend.context import get_start_method, set_start_method

from lab.files import shield_processes


def count_workers(jobs: int) -> int:
    """How many jobs to run at a time: as many as there are cores, one on a GPU."""
    return 1 if _has_gpu() else min(joblib.cpu_count(), jobs)


def prepare_environment() -> None:
    """Shield the processes to come, and silence what joblib says of a sweep that was interrupted."""
    shield_processes()
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"


def start_fork_server(threads: int) -> None:
    """Let joblib's processes be forks of one that has imported torch, which begins here: each saves the seconds of it.

    Each has so many `threads`; a server that is there already stays as it is. On Linux without a GPU alone: CUDA does
    not work in forks of a process that has used it.
    """
    if sys.platform != "linux" or _has_gpu():
        return
    prepare_environment()
    set_start_method("forkserver", force=True)
    multiprocessing.set_forkserver_preload(["lab.training.train"])
    before, interrupt = dict(os.environ), signal.signal(signal.SIGINT, signal.SIG_IGN)  # this process ends the others
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
        signal.signal(signal.SIGINT, interrupt)


def wait_for_fork_server(at_a_time: int) -> None:
    """Return once the server forks, for so many jobs `at_a_time`: Ctrl-C meanwhile ends no job that waits to begin."""
    start_fork_server(max(joblib.cpu_count() // at_a_time, 1))  # as joblib shares the cores
    if get_start_method() == "forkserver":
        first = multiprocessing.get_context("forkserver").Process(target=int)  # it does nothing
        first.start()
        first.join()


def end_with_parent() -> None:
    """End this process once the one that launched it has ended: a sweep that was killed leaves nobody at work."""
    parent = multiprocessing.parent_process()
    if os.getppid() != parent.pid:  # a fork of the fork server
        parent.join()
    while os.getppid() == parent.pid:
        time.sleep(0.5)
    os._exit(1)


def _has_gpu() -> bool:
    """Whether this machine has one that torch uses."""
    return bool(shutil.which("nvidia-smi")) or (sys.platform, platform.machine()) == ("darwin", "arm64")
