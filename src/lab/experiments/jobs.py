"""Jobs, the runs that another command starts: what one is, what it leaves, how many run at a time, what is shown."""

import contextlib
import functools
import hashlib
import json
import multiprocessing
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from filelock import FileLock, Timeout
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from lab.config.checks import check
from lab.config.overrides import quoted, replace_schedule
from lab.config.own import named
from lab.config.schema import CONF, Train, data_folder, fingerprint, run_folder
from lab.datasets.dataset import load
from lab.display.labels import short
from lab.display.terminal import make_bar
from lab.errors import DEFECT, UserError, explain, first_line, printable, was_interrupted
from lab.experiments.processes import count_workers, end_with_parent, prepare_environment, wait_for_fork_server
from lab.files import SOURCES, read_text, write_json, write_text
from lab.runs.folder import read_config, read_result


@dataclass
class Job:
    """A run that another command starts."""

    overrides: list[str]  # what train.py would be told
    values: dict[str, str]  # of these what tells the job from the others
    folder: Path
    kind: str = "test"  # of its result; "held_out" of a fold
    digest: str = ""  # its config's fingerprint
    epochs: int = 0
    work: float = 0.0  # of all its epochs, in the progress bar's unit; 0: each epoch counts one

    def result(self) -> dict[str, Any] | None:
        """Its result.json, None before it has finished; UserError where that is damaged."""
        return read_result(self.folder, self.kind) if (self.folder / "result.json").exists() else None

    def error(self) -> str | None:
        """Why it failed, in a line; None where it did not."""
        path = self.folder / "error.txt"
        return printable(read_text(path)) if path.exists() else None

    def has_ended(self) -> bool:
        """Whether it has finished or failed."""
        return self.error() is not None or (self.folder / "result.json").exists()

    def name(self) -> str:
        """What the terminal calls it."""
        return self.folder.name

    def line(self) -> str:
        """What the terminal shows of its end."""
        if (result := self.result()) is None:
            return f"error: {self.name()}: {self.error()}"
        seconds = f"{result['seconds']:.0f} s"
        if "held_out" in result:
            scores, name = result["held_out"]["last"], self.folder.name.replace("_", " ")
            told = f"{name}: {scores['images']:,} images held out, loss {scores['loss']:.4f}"
            return f"> {scores['accuracy'] * 100:.3f}   {told}, {seconds}"
        validation = result["validation"].get("last")
        metric = result.get("monitor", "accuracy")
        told = f"validation {metric.replace('_', ' ')}"
        score = f"{told} {validation[metric] * 100:.3f} %" if validation else "no validation part"
        stopped = f"stopped below the others after epoch {result['epochs']}, " if result.get("pruned") else ""
        return f"{self.name()}: {stopped}{score}, {seconds}"


def is_of_sample(result: dict[str, Any]) -> bool:
    """Whether a run used the sample that replaces MNIST where it cannot be downloaded."""
    return result["data"]["name"].endswith("_sample")


@contextlib.contextmanager
def take(folder: Path) -> Iterator[Path]:
    """The `folder` that a job was launched for, locked."""
    with FileLock(folder / ".lock"):
        yield folder


def run_job(
    config: DictConfig,
    tested: str = "test",
    turns: int = 0,
    take: Callable[[Path], contextlib.AbstractContextManager[Path]] = take,
    decide: Callable[[DictConfig, Path], DictConfig] | None = None,
) -> None:
    """Train one job. What it prints goes to train.log in its folder; an error becomes one line in error.txt.

    So many as `turns` of the jobs in one folder train at the same time; 0: all of them. A search launches its jobs
    before their values are known: it says which folder they `take` when they start, and `decide` makes the config.
    """
    from lab.training.train import train  # torch, in the job's process alone
    from lab.training.trainer import Turns

    if was_interrupted():  # at the end of the job before, which did not notice
        raise KeyboardInterrupt
    if multiprocessing.current_process().name != "MainProcess":
        threading.Thread(target=end_with_parent, daemon=True).start()
    with take(run_folder()) as folder, (folder / "train.log").open("w", buffering=1, encoding="utf-8") as log:
        try:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                if decide:
                    config = decide(config, folder)
                replace_schedule(config)
                check(config, Train)
                train(config, folder, tested, callbacks=[Turns(folder.parent, turns)] if turns else [])
        except Exception as error:
            if was_interrupted():
                raise KeyboardInterrupt from None
            line = explain(error)
            if line is None:
                traceback.print_exc(file=log)
                line = f"{type(error).__name__}: {first_line(error)}: {DEFECT}, {folder}/train.log has more"
            write_text(line, folder / "error.txt")  # others look for it


def identify(jobs: Sequence[Job], config: DictConfig, context: HydraContext, folder: Path) -> None:
    """Give each job its config's fingerprint and its epochs.

    Composing a config takes a tenth of a second: jobs.json in `folder` keeps what is known.
    """
    known: dict[str, tuple[str, int]] = {}
    sources = [*sorted(CONF.rglob("*.*")), SOURCES / "lab" / "config" / "schema.py", *named]
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    path, root = folder / "jobs.json", str(data_folder(config.data.root).absolute())
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(read_text(path))
        if content["root"] != root:
            raise UserError(f"{folder} is of the data in {content['root']}: choose another folder for these jobs")
        known = content["jobs"] if content["conf"] == version else {}
    for job in tqdm(jobs, "configurations", delay=1, disable=None, leave=False):
        key = " ".join(job.overrides)
        if key not in known or "${" in key or "corrections=" in key:  # may mean another value today
            with composed_job(job.overrides, config, context) as composed:
                known[key] = fingerprint(composed), composed.trainer.max_epochs or composed.model.epochs
        job.digest, job.epochs = known[key]
        job.epochs = max(job.epochs, 0)  # -1: no end
    write_json({"root": root, "conf": version, "jobs": known}, path)


@contextlib.contextmanager
def composed_job(overrides: Sequence[str], config: DictConfig, context: HydraContext) -> Iterator[DictConfig]:
    """The config of one job of the sweep `config`. Meanwhile Hydra's interpolations, ${hydra:...}, read it."""
    composed = context.config_loader.load_sweep_config(config, list(overrides))
    with _hydra_config(composed):
        replace_schedule(composed)
        yield composed


def name_folder(kind: str, keys: Sequence[str], config: DictConfig, digest: str) -> Path:
    """Where a sweep's jobs go: hydra.sweep.dir where it was told, else a folder in it that `keys` and `digest` name."""
    parent = Path(config.hydra.sweep.dir).absolute()
    if any(override.startswith("hydra.sweep.dir=") for override in config.hydra.overrides.hydra):
        return parent
    choices = [config.hydra.runtime.choices[group] for group in ("model", "data") if group not in keys]
    return parent / "_".join([kind, *map(short, keys), "-".join(choices), digest])


def digest_of(config: DictConfig, *decided: Any) -> str:
    """Eight hexadecimal digits: the same for the same recipe, data folder and whatever else is `decided`."""
    content = [fingerprint(config), *decided, str(data_folder(config.data.root).absolute())]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]


def is_current(job: Job) -> bool:
    """Whether `job` has finished, with the configuration and the images of today."""
    result = job.result()
    return result is not None and result.get("digest") == job.digest and is_of_these_images(job)


def is_of_these_images(job: Job) -> bool:
    """Whether the finished `job` trained on the images that its data folder has today: they may have been replaced."""
    trained = job.result()["data"].get("sha256")  # older versions did not say
    return trained is None or images_of(read_config(job.folder).data) in (trained, None)


def images_of(data: DictConfig) -> str | None:
    """SHA-256 of the images that a run's config has today, with their labels and parts; None where they are gone."""
    return _sha256(json.dumps(OmegaConf.to_container(data, resolve=True)))


@functools.cache
def _sha256(data: str) -> str | None:
    try:
        return load(OmegaConf.create(json.loads(data)), untrusted=True).sha256
    except UserError:
        return None


def compose_train(overrides: Sequence[str] = ()) -> tuple[DictConfig, HydraContext]:
    """The config of train.py, for another command that starts runs of it, and what make_launcher needs beside."""
    loader = GlobalHydra.instance().config_loader()
    config = loader.load_configuration("train", overrides=list(overrides), run_mode=RunMode.MULTIRUN)
    return config, HydraContext(config_loader=loader, callbacks=Callbacks())


def make_launcher(config: DictConfig, context: HydraContext, **options: Any) -> Launcher:
    """The launcher that `config` names; `options` go to run_job."""
    return Plugins.instance().instantiate_launcher(context, functools.partial(run_job, **options), config)


def count_at_a_time(launcher: Launcher, jobs: int) -> int:
    """How many of the `jobs` it runs at a time; a Ray cluster that runs already counts as this machine's cores."""
    if at_a_time := getattr(launcher, "joblib", {}):
        number = at_a_time["n_jobs"] if at_a_time["n_jobs"] > 0 else count_workers(jobs)
    elif (name := type(launcher).__name__) == "BasicLauncher":
        number = 1
    elif name == "RayLauncher":
        number = launcher.ray_cfg.init.get("num_cpus") or joblib.cpu_count()
    else:
        number = launcher.params.get("array_parallelism", jobs)
    return min(number, jobs)


def launch(
    jobs: list[Job],
    launcher: Launcher,
    rerun: bool,
    workers: int | None = None,
    unit: str = " epochs",
    describe: Callable[[], str] | None = None,
    shows_errors: bool = True,
) -> None:
    """Run `jobs` anew. Where a process is killed, its job has failed and the others go on.

    This machine runs `workers` at a time, by default as many as it has cores. A progress bar counts the jobs' work in
    `unit`; what `describe` gives stands before it, by default how many jobs are left.
    """
    for job in jobs:
        clear(job, rerun)
        job.work = job.work or job.epochs
    prepare_environment()
    if (at_a_time := getattr(launcher, "joblib", {})) and (workers or at_a_time["n_jobs"] == -1):
        at_a_time["n_jobs"] = workers or count_workers(len(jobs))
    bar = make_bar(sum(job.work for job in jobs), unit)
    with bar, _Watch(jobs, bar, describe, shows_errors), _hydra_config(launcher.config):
        while jobs:
            try:
                if at_a_time and at_a_time["n_jobs"] != 1:
                    wait_for_fork_server(at_a_time["n_jobs"])
                launcher.launch([[*job.overrides, *_place(job.folder)] for job in jobs], initial_job_idx=0)
                return
            except BrokenExecutor:
                for job in [job for job in jobs if job.folder.exists() and not job.has_ended()]:
                    write_text("stopped when a process was killed (no memory left?)", job.folder / "error.txt")
                before, jobs = len(jobs), [job for job in jobs if not job.has_ended()]
                if len(jobs) == before:
                    raise UserError("a process was killed before its first job (no memory left?)") from None
            except (KeyboardInterrupt, Exception) as error:  # the launcher's own: a job's is in its error.txt
                if isinstance(error, KeyboardInterrupt) or was_interrupted():
                    raise UserError("interrupted: the same command goes on with the jobs that are missing") from None
                if not isinstance(error, RuntimeError | ValueError | OSError):
                    raise
                raise UserError(f"the launcher, {type(launcher).__name__}: {first_line(error)}") from None


@contextlib.contextmanager
def _hydra_config(config: DictConfig) -> Iterator[None]:
    """Let Hydra's interpolations and launchers read `config` meanwhile."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def _place(folder: Path) -> list[str]:
    """The overrides that send a job into `folder`."""
    places = {"hydra.sweep.dir": str(folder.parent), "hydra.sweep.subdir": folder.name}
    return [quoted(key, place) for key, place in places.items()]


def clear(job: Job, rerun: bool) -> None:
    """Remove the folder of a job that failed or was killed, or is to `rerun`. UserError where it is anything else."""
    if not job.folder.exists():
        return
    there = {path.name for path in job.folder.iterdir()}
    if ("train.log" not in there and there - {"error.txt", ".lock"}) or (job.result() and not rerun):
        raise UserError(f"{job.folder}: not the folder of a job: choose another one for all of them")
    try:
        with FileLock(job.folder / ".lock", blocking=False):
            shutil.rmtree(job.folder)
    except Timeout:  # a cluster's, whose sweep was killed
        raise UserError(f"{job.folder}: this job is still running: the same command later") from None


class _Watch:
    """A thread that shows how far the jobs are by what they leave in their folders, whichever process runs them."""

    def __init__(self, jobs: Sequence[Job], bar: tqdm, describe: Callable[[], str] | None, shows_errors: bool) -> None:
        self.running, self.done, self.bar, self.shows_errors = list(jobs), 0.0, bar, shows_errors
        self.out, self.err = sys.stdout, sys.stderr  # a job in this process redirects both
        self.describe = describe or (lambda: f"{len(self.running)} jobs left")
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self._look()

    def _run(self) -> None:
        while not self.ended.wait(0.5):
            self._look()

    def _look(self) -> None:
        for job in [job for job in self.running if job.has_ended()]:
            self.running.remove(job)
            self.done += job.work
            has_failed = job.error() is not None
            if self.shows_errors or not has_failed:
                self.bar.write(job.line(), file=self.err if has_failed else self.out)
        part = sum(job.work * min(_count_epochs(job) / (job.epochs or 1), 1) for job in self.running)
        self.bar.n = round(self.done + part)
        self.out.flush()  # where it is a file, too
        self.bar.set_description(self.describe(), refresh=False)
        self.bar.refresh()


def _count_epochs(job: Job) -> int:
    """How many epochs a running job has done."""
    path = job.folder / "metrics.csv"
    return path.read_text().count("\n") - 1 if path.exists() else 0
