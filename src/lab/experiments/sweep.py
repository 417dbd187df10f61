"""A sweep of train.py: which jobs are still to run, in which folder."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from lab.display.labels import short
from lab.errors import UserError
from lab.experiments.jobs import Job, digest_of, identify, is_of_these_images, launch, name_folder
from lab.experiments.ranking import rank
from lab.runs.folder import locked


def sweep(
    overrides: Sequence[list[str]], swept: Sequence[str], config: DictConfig, context: HydraContext, launcher: Launcher
) -> Path:
    """Run the jobs, one for each list of `overrides`, that have not finished; rank all of them; give their folder.

    Its name says which keys are swept, not the values: a command with more values goes on in the same folder. UserError
    where jobs fail.
    """
    HydraConfig.instance().set_config(config)
    folder = name_folder("sweep", swept, config, digest_of(config, sorted(swept)))
    jobs = _list_jobs(overrides, swept, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "sweep"):
        identify(jobs, config, context, folder)
        todo = [job for job in jobs if config.rerun or not _has_finished(job)]
        print(f"{len(jobs)} jobs, {len(todo)} to run, in {folder}")
        launch(todo, launcher, config.rerun)
        failed = rank(jobs, [key.removeprefix("++") for key in swept], folder, config.show_test)
    if failed:
        raise UserError(f"{failed} of {len(jobs)} jobs failed: the lines above say why, the same command tries again")
    return folder


def _list_jobs(overrides: Sequence[list[str]], swept: Sequence[str], folder: Path) -> list[Job]:
    """A job for each list of `overrides`; its values name its folder."""
    jobs: dict[str, Job] = {}
    for job in {repr(job): job for job in overrides}.values():  # a value given twice counts once
        values = {key: value for key, _, value in (override.partition("=") for override in job) if key in swept}
        name = ",".join(f"{short(key)}={value}" for key, value in values.items()) or "run"
        name = re.sub(r"[^\w.,=+-]", "_", name)
        if name in jobs or len(name) > 100:
            name = f"{name[:80]}_{hashlib.sha256(repr(job).encode()).hexdigest()[:8]}"
        values = {key.removeprefix("++"): value for key, value in values.items()}  # ++seed says what seed says
        alone = [] if any(override.startswith("threads=") for override in job) else ["threads=1"]
        jobs[name] = Job([*job, *alone], values, folder / name)
    return list(jobs.values())


def _has_finished(job: Job) -> bool:
    """UserError where its folder has the result of another configuration, or of other images."""
    result = job.result()
    choice = "rerun=true replaces it, hydra.sweep.dir=FOLDER leaves it where it is"
    if result and result.get("digest") != job.digest:
        raise UserError(f"{job.folder} holds a run with another configuration: {choice}")
    if result and not is_of_these_images(job):
        raise UserError(f"{job.folder} holds a run on other images than lie there today: {choice}")
    return result is not None
