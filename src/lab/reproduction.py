"""The published tables again: the runs behind each row, those that are still missing, by the machinery of sweeps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from lab import UserError
from lab.checks import check, nearest
from lab.config import Train, quoted, run_folder
from lab.ranking import Job, is_of_sample
from lab.report import Row, report
from lab.sweep import identify, launch, recorded
from lab.terminal import make_bar

MOST_SECONDS = 300  # of a core, for a row to get several seeds
SEEDS = 3


def reproduce(config: DictConfig, folder: Path) -> None:
    """Run what `folder` lacks of the rows of `config`, a Reproduce; print their table, and write it.

    Each run's folder is named by the digest of what decides its result: another recipe is another run.
    """
    table = OmegaConf.to_container(config.table, resolve=True)
    if config.rows is not None and not config.rows:
        raise UserError("rows=[]: name at least one, or leave it out for all")
    for key in ("seeds", "workers"):
        if config[key] is not None and config[key] < 1:
            raise UserError(f"{key}={config[key]}: must be 1 or more")
    rows = [
        Row(name, _list_jobs(name, entry, table.get("common", ""), config), **_shown(entry))
        for name, entry in _choose(table["rows"], config.rows).items()
    ]
    jobs = [job for row in rows for job in row.jobs]
    jobs.sort(key=lambda job: (int(job.values["seed"]), job.work))  # all rows of a seed, the quick ones first
    loader = GlobalHydra.instance().config_loader()
    train = loader.load_configuration("train", overrides=[], run_mode=RunMode.MULTIRUN)
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", blocking=False):
            identify(jobs, train, context, folder)
            for job in jobs:
                job.folder = folder / f"{job.folder}_{job.digest}"
            todo = [job for job in jobs if not _has_finished(job)]
            print(f"{len(rows)} rows, {len(jobs)} runs, {len(todo)} to do, in {folder}")
            whole = config.results and config.rows is None
            try:
                _run(todo, rows, train, context, config.workers)
            except UserError:  # interrupted: what there is, is shown
                report(rows, table, folder, None)
                raise
            report(rows, table, folder, Path(config.results) if whole else None)
    except Timeout:
        raise UserError(f"{folder}: another process is at this table") from None
    if failed := [row.name for row in rows if row.error()]:
        raise UserError(f"{', '.join(failed)}: could not be run, the table says why; the same command tries again")


def _has_finished(job: Job) -> bool:
    """Not with a sample of the data: the real ones may be there today."""
    result = job.result()
    return result is not None and result.get("digest") == job.digest and not is_of_sample(result)


def _choose(known: dict[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    """The rows called so, or whose names begin so: A5 is all of A5-0.01, A5-0.001, A5-0.0001."""
    for name in names or ():
        if not any(_is_meant(row, name) for row in known):
            raise UserError(f"rows=[{name}]: there is no such row{nearest(name, known)} Known: {', '.join(known)}")
    return {row: entry for row, entry in known.items() if names is None or any(_is_meant(row, name) for name in names)}


def _is_meant(row: str, name: str) -> bool:
    return row == name or row.startswith(f"{name}-")


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("run", "published", "folds", "note", "against") if key in entry}


def _list_jobs(name: str, entry: dict[str, Any], common: str, config: DictConfig) -> list[Job]:
    """One for each seed and fold."""
    several = entry.get("seeds") or (SEEDS if entry["seconds"] <= MOST_SECONDS else 1)
    n_folds = len(entry.get("folds", ()))
    folds = [[f"data.folds={n_folds}", f"data.fold={k}"] for k in range(n_folds)]
    given = [*entry["run"].split(), *common.split(), "threads=1"]
    if entry.get("weights") and config.weights:
        given.append(quoted("weights", str(Path(config.weights).absolute())))
    return [
        Job(
            [*given, *fold, f"seed={seed}"],
            {"seed": str(seed), "fold": fold[-1].partition("=")[2] if fold else ""},
            Path("_".join([name, *(fold[-1:] and [fold[-1].removeprefix("data.")]), f"seed={seed}"])),
            work=entry["seconds"] / (len(folds) or 1),
        )
        for seed in range(1, (config.seeds or several) + 1)
        for fold in folds or [[]]
    ]


def _run(jobs: list[Job], rows: Sequence[Row], train: DictConfig, context: HydraContext, workers: int | None) -> None:
    if workers:
        train.hydra.launcher.n_jobs = workers
    reproducing = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(train)
    launcher = Plugins.instance().instantiate_launcher(context, _train, train)
    try:
        launch(
            jobs,
            launcher,
            rerun=True,
            bar=make_bar(sum(job.work for job in jobs), " s of a core"),
            describe=lambda: f"{sum(row.has_ended() for row in rows)} of {len(rows)} rows done",
        )
    finally:
        HydraConfig.instance().cfg = reproducing


def _train(config: DictConfig) -> None:
    """A job, in a process of the launcher."""
    from lab.fit import fit

    with recorded(run_folder()):
        check(config, Train)
        fit(config, run_folder())
