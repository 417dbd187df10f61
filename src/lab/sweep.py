"""A sweep: which jobs are still to run, by what launcher, what the terminal sees of them."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import platform
import re
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path

import joblib
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig
from tqdm import tqdm

from lab import UserError
from lab.config import CONF, data_folder, digest, in_users_words, one_line, quoted
from lab.files import whole, write_json
from lab.ranking import Job, figures_of, short, sum_up
from lab.terminal import make_bar

SOURCES = Path(__file__).parents[1]


def sweep(
    overrides: Sequence[list[str]], swept: Sequence[str], config: DictConfig, context: HydraContext, launcher: Launcher
) -> None:
    """Run those of the jobs, one for each list of `overrides`, that have not finished; sum up all.

    The folder is named by what is swept and by what is not: the values may grow. UserError where jobs fail.
    """
    HydraConfig.instance().set_config(config)
    folder = _name_folder(config, swept)
    jobs = _list_jobs(overrides, swept, folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", blocking=False):
            identify(jobs, config, context, folder)
            todo = [job for job in jobs if config.rerun or not _has_finished(job)]
            print(f"{len(jobs)} jobs, {len(todo)} to run, in {folder}")
            launch(todo, launcher, config.rerun, make_bar(sum(job.work for job in todo), " epochs"))
            failed = sum_up(jobs, swept, folder, draws=bool(todo))
    except Timeout:
        raise UserError(f"{folder}: another process is at this sweep") from None
    if failed:
        raise UserError(f"{failed} of {len(jobs)} jobs failed: the lines above say why, the same command tries again")


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """A job's life in `folder`: what it prints goes to train.log, what ends it to error.txt, a line."""
    if multiprocessing.current_process().name != "MainProcess":
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with FileLock(folder / ".lock"), (folder / "train.log").open("w", buffering=1) as log:
        try:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                yield
        except Exception as error:
            known = in_users_words(error)
            reason = one_line(known)
            if not isinstance(known, UserError | OSError):
                traceback.print_exc(file=log)
                reason = f"{type(error).__name__}: {reason}: a defect of this program, {folder}/train.log has more"
            with whole(folder / "error.txt") as beside:  # others look for it
                beside.write_text(reason)


def _end_with(parent: int) -> None:
    """A sweep that was killed leaves nobody at work behind."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _name_folder(config: DictConfig, swept: Sequence[str]) -> Path:
    parent = Path(config.hydra.sweep.dir).absolute()
    if any(override.startswith("hydra.sweep.dir=") for override in config.hydra.overrides.hydra):
        return parent
    choices = [config.hydra.runtime.choices[group] for group in ("model", "data") if group not in swept]
    decided = [digest(config), sorted(swept), str(data_folder(config.data.root).absolute())]
    decisive = hashlib.sha256(json.dumps(decided).encode()).hexdigest()[:8]
    names = [short(key) for key in swept]
    return parent / "_".join(["sweep", *names, "-".join(choices), decisive])


def _list_jobs(overrides: Sequence[list[str]], swept: Sequence[str], folder: Path) -> list[Job]:
    """With a folder each, named by its values."""
    jobs: dict[str, Job] = {}
    for job in {repr(job): job for job in overrides}.values():  # a value given twice counts once
        values = {key: value for key, _, value in (override.partition("=") for override in job) if key in swept}
        name = ",".join(f"{short(key)}={value}" for key, value in values.items()) or "run"
        name = re.sub(r"[^\w.,=+-]", "_", name)
        if name in jobs or len(name) > 100:
            name = f"{name[:80]}_{hashlib.sha256(repr(job).encode()).hexdigest()[:8]}"
        alone = [] if any(override.startswith("threads=") for override in job) else ["threads=1"]
        jobs[name] = Job([*job, *alone], values, folder / name)
    return list(jobs.values())


def identify(jobs: Sequence[Job], config: DictConfig, context: HydraContext, folder: Path) -> None:
    """Give each job the digest of its config. Composing takes a tenth of a second: known ones are in jobs.json."""
    known: dict[str, tuple[str, int]] = {}
    sources = hashlib.sha256(
        b"".join(path.read_bytes() for path in [*sorted(CONF.rglob("*.*")), SOURCES / "lab/config.py"])
    )
    path, root = folder / "jobs.json", str(data_folder(config.data.root).absolute())
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_text())
        if content["root"] != root:
            raise UserError(f"{folder} is of the data in {content['root']}: choose another folder for these jobs")
        known = content["jobs"] if content["conf"] == sources.hexdigest() else {}
    before = HydraConfig.instance().cfg
    for job in tqdm(jobs, "configurations", delay=1, disable=None, leave=False):
        key = " ".join(job.overrides)
        if key not in known or "${" in key:  # an interpolation may mean another value today
            composed = context.config_loader.load_sweep_config(config, job.overrides)
            HydraConfig.instance().set_config(composed)
            known[key] = digest(composed), composed.trainer.max_epochs or composed.model.epochs
        job.digest, job.epochs = known[key]
        job.epochs = max(job.epochs, 0)  # -1: no end
        job.work = job.work or job.epochs
    HydraConfig.instance().cfg = before
    write_json({"root": root, "conf": sources.hexdigest(), "jobs": known}, path)


def _has_finished(job: Job) -> bool:
    result = job.result()
    if result and result.get("digest") != job.digest:
        raise UserError(
            f"{job.folder} holds a run with another configuration: rerun=true replaces it, hydra.sweep.dir=FOLDER "
            "leaves it where it is"
        )
    return result is not None


def _clear(job: Job, rerun: bool) -> None:
    """What a failed or killed job has left."""
    if not job.folder.exists():
        return
    there = {path.name for path in job.folder.iterdir()}
    if ("train.log" not in there and there - {"error.txt", ".lock"}) or (job.result() and not rerun):
        raise UserError(f"{job.folder}: not a job of a sweep: choose another hydra.sweep.dir")
    try:
        with FileLock(job.folder / ".lock", blocking=False):
            shutil.rmtree(job.folder)
    except Timeout:  # a cluster's, whose sweep was killed
        raise UserError(f"{job.folder}: this job is still running: the same command later") from None


def launch(
    jobs: list[Job], launcher: Launcher, rerun: bool, bar: tqdm, describe: Callable[[], str] | None = None
) -> None:
    """Run `jobs` anew; where a process of the launcher is killed, its job has failed and the others go on.

    `bar` counts their work, before it stands what `describe` says, else how many are left.
    """
    for job in jobs:
        _clear(job, rerun)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])  # of processes to come
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # joblib's, of a sweep interrupted
    has_gpu = shutil.which("nvidia-smi") or (sys.platform, platform.machine()) == ("darwin", "arm64")
    if getattr(launcher, "joblib", {}).get("n_jobs") == -1:
        launcher.joblib["n_jobs"] = 1 if has_gpu else min(joblib.cpu_count(), len(jobs))
    with _Watch(jobs, bar, describe):
        while jobs:
            try:
                launcher.launch([[*job.overrides, *_place(job.folder)] for job in jobs], initial_job_idx=0)
            except BrokenExecutor:
                for job in jobs:
                    if job.folder.exists() and not job.has_ended():
                        with whole(job.folder / "error.txt") as beside:
                            beside.write_text("stopped when a process of the sweep was killed (no memory left?)")
                left = [job for job in jobs if not job.has_ended()]
                if len(left) == len(jobs):
                    raise UserError(
                        "a process of the sweep was killed before its first job (no memory left?)"
                    ) from None
                jobs = left
            except KeyboardInterrupt:
                raise UserError("interrupted: the same command goes on with the jobs that are missing") from None
            except (RuntimeError, ValueError, OSError) as error:  # the launcher's own: those of jobs are in error.txt
                raise UserError(f"the launcher, {type(launcher).__name__}: {one_line(error)}") from None
            else:
                return


def _place(folder: Path) -> list[str]:
    places = {"hydra.sweep.dir": str(folder.parent), "hydra.sweep.subdir": folder.name}
    return [quoted(key, place) for key, place in places.items()]


class _Watch:
    """A thread that tells of the jobs from what they leave in their folders, whoever runs them, wherever."""

    def __init__(self, jobs: Sequence[Job], bar: tqdm, describe: Callable[[], str] | None) -> None:
        self.running, self.done, self.out, self.err, self.bar = list(jobs), 0.0, sys.stdout, sys.stderr, bar
        self.describe = describe or (lambda: f"{len(self.running)} jobs left")
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self._look()
        self.bar.close()

    def _run(self) -> None:
        while not self.ended.wait(0.5):
            self._look()

    def _look(self) -> None:
        for job in [job for job in self.running if job.has_ended()]:
            self.running.remove(job)
            self.done += job.work
            if result := job.result():
                figures = figures_of(result)
                score = f"{figures['val_accuracy'] * 100:.3f}" if "val_accuracy" in figures else "-"
                test, seconds = f"{figures['test_accuracy'] * 100:.3f}", f"{figures['seconds']:.0f}"
                self.bar.write(f"> {score}   {job.folder.name}: test {test}, {seconds} s", file=self.out)
            else:
                self.bar.write(f"error: {job.folder.name}: {job.error()}", file=self.err)
        part = sum(job.work * min(_count_epochs(job) / (job.epochs or 1), 1) for job in self.running)
        self.bar.n = round(self.done + part)
        self.out.flush()  # into a file too
        self.bar.set_description(self.describe(), refresh=False)
        self.bar.refresh()


def _count_epochs(job: Job) -> int:
    path = job.folder / "metrics.csv"
    return path.read_text().count("\n") - 1 if path.exists() else 0
