"""The published tables again: the runs behind each row, those that are still missing, by the machinery of sweeps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from lab.config.overrides import nearest, quoted
from lab.display.terminal import make_bar
from lab.errors import UserError
from lab.experiments.jobs import (
    Job,
    compose_train,
    count_workers,
    identify,
    is_of_sample,
    is_of_these_images,
    launch,
    make_launcher,
)
from lab.experiments.keras_beside import beside, read_scores
from lab.experiments.verdicts import Row, data_set, report

MOST_SECONDS = 300  # of a core, for a row to get several seeds
SEEDS = 3


def reproduce(config: DictConfig, folder: Path) -> None:
    """Run what `folder` lacks of the rows of `config`, a Reproduce; print their table, and write it.

    Each run's folder is named by the digest of what decides its result: another recipe is another run.
    """
    table = OmegaConf.to_container(config.table, resolve=True)
    rows = []
    for name, entry in _choose(table["rows"], config.rows).items():
        shown = {
            key: entry[key] for key in ("run", "published", "folds", "note", "against", "continues") if key in entry
        }
        asked = _count_seeds(entry, table.get("protocol"))
        jobs = _list_jobs(name, entry, table.get("common", ""), config, config.seeds or asked)
        rows.append(Row(name, jobs, **shown, asked=asked, keras=lambda name=name: read_scores(folder, name)))
    # a protocol asks for all seeds of a row: row by row, the cheap ones first
    jobs = [job for row in sorted(rows, key=lambda row: sum(job.work for job in row.jobs)) for job in row.jobs]
    if "protocol" not in table:
        jobs.sort(key=lambda job: (int(job.values["seed"]), job.work))  # all rows of a seed, the quick ones first
    train, context = compose_train()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", blocking=False):
            identify(jobs, train, context, folder)
            for job in jobs:
                job.folder = folder / f"{job.folder}_{job.digest}"
            todo = [job for job in jobs if not _has_finished(job)]
            print(f"{len(rows)} rows, {len(jobs)} runs, {len(todo)} to do, in {folder}")
            results = Path(config.results) if config.results and config.rows is None else None
            try:
                beside_us = {row.name: row.asked for row in rows if "keras" in table["rows"][row.name]}
                with beside(config.keras, beside_us, folder):
                    bar = make_bar(sum(job.work for job in todo), " s of a core")
                    launcher, workers = make_launcher(train, context), _count_workers(config, len(todo))
                    with bar:
                        launch(todo, launcher, True, bar, workers, lambda: _count_ended(rows))
            except UserError:  # interrupted: what there is, is shown
                report(rows, table, folder, results)  # what has not run is marked so
                raise
            report(rows, table, folder, results)
    except Timeout:
        raise UserError(f"{folder}: another process is at this table") from None
    if failed := [row.name for row in rows if row.error()]:
        raise UserError(f"{', '.join(failed)}: could not be run, the table says why; the same command tries again")


def _count_workers(config: DictConfig, jobs: int) -> int | None:
    """Keras has one of the cores."""
    return config.workers or (max(count_workers(jobs + 1) - 1, 1) if config.keras else None)


def _count_ended(rows: Sequence[Row]) -> str:
    return f"{sum(map(Row.has_ended, rows))} of {len(rows)} rows done"


def _has_finished(job: Job) -> bool:
    """Not with a sample of the data, for the real ones may be there today; not with images that were replaced."""
    result = job.result()
    known = result is not None and result.get("digest") == job.digest and not is_of_sample(result)
    return known and is_of_these_images(job)


def _choose(known: dict[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    """The rows called so, or whose names begin so: A5 is all of A5-0.01, A5-0.001, A5-0.0001."""
    for name in names or ():
        if not any(_is_meant(row, name) for row in known):
            raise UserError(f"rows=[{name}]: there is no such row{nearest(name, known)} Known: {', '.join(known)}")
    return {row: entry for row, entry in known.items() if names is None or any(_is_meant(row, name) for name in names)}


def _is_meant(row: str, name: str) -> bool:
    return row == name or row.startswith(f"{name}-")


def _count_seeds(entry: dict[str, Any], protocol: dict[str, Any] | None) -> int:
    """What the row itself or the table's protocol asks for."""
    if "seeds" in entry:
        return entry["seeds"]
    if protocol is None:
        return SEEDS if entry["seconds"] <= MOST_SECONDS else 1
    allowed = protocol["seeds"][data_set(entry)]
    return next(seeds for seconds, seeds in sorted(allowed.items()) if entry["seconds"] <= seconds)


def _list_jobs(name: str, entry: dict[str, Any], common: str, config: DictConfig, seeds: int) -> list[Job]:
    """One for each seed and fold."""
    folds = [str(k) for k in range(len(entry.get("folds", ())))]
    given = [*entry["run"].split(), *common.split(), "threads=1"]
    if entry.get("weights") and config.weights:
        given.append(quoted("weights", str(Path(config.weights).absolute())))
    jobs = []
    for seed in range(1, seeds + 1):
        for fold in folds or [""]:
            told = [f"data.folds={len(folds)}", f"data.fold={fold}"] if fold else []
            place = Path(f"{name}_fold={fold}_seed={seed}" if fold else f"{name}_seed={seed}")
            work, values = entry["seconds"] / (len(folds) or 1), {"seed": str(seed), "fold": fold}
            jobs.append(Job([*given, *told, f"seed={seed}"], values, place, work=work))
    return jobs
