"""A sweep of train.py: which jobs are still to run, in which folder."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from lab.config.schema import data_folder, fingerprint
from lab.display.terminal import make_bar
from lab.errors import UserError
from lab.experiments.jobs import Job, identify, is_of_these_images, launch
from lab.experiments.ranking import rank, short


def sweep(
    overrides: Sequence[list[str]], swept: Sequence[str], config: DictConfig, context: HydraContext, launcher: Launcher
) -> Path:
    """Run those of the jobs, one for each list of `overrides`, that have not finished; rank all; the sweep's folder.

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
            with make_bar(sum(job.work for job in todo), " epochs") as bar:
                launch(todo, launcher, config.rerun, bar)
            failed = rank(jobs, swept, folder, bool(todo), config.show_test)
    except Timeout:
        raise UserError(f"{folder}: another process is at this sweep") from None
    if failed:
        raise UserError(f"{failed} of {len(jobs)} jobs failed: the lines above say why, the same command tries again")
    return folder


def _name_folder(config: DictConfig, swept: Sequence[str]) -> Path:
    parent = Path(config.hydra.sweep.dir).absolute()
    if any(override.startswith("hydra.sweep.dir=") for override in config.hydra.overrides.hydra):
        return parent
    choices = [config.hydra.runtime.choices[group] for group in ("model", "data") if group not in swept]
    decided = [fingerprint(config), sorted(swept), str(data_folder(config.data.root).absolute())]
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


def _has_finished(job: Job) -> bool:
    result = job.result()
    choice = "rerun=true replaces it, hydra.sweep.dir=FOLDER leaves it where it is"
    if result and result.get("digest") != job.digest:
        raise UserError(f"{job.folder} holds a run with another configuration: {choice}")
    if result and not is_of_these_images(job):
        raise UserError(f"{job.folder} holds a run on other images than lie there today: {choice}")
    return result is not None
