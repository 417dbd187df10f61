"""The published tables again: the runs behind each row, those that are still missing, by the machinery of sweeps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lab.config.overrides import nearest, quoted
from lab.errors import UserError
from lab.experiments.earlier import adopt
from lab.experiments.jobs import Job, compose_train, identify, is_current, is_of_sample, launch, make_launcher
from lab.experiments.keras_beside import beside, read_scores
from lab.experiments.processes import count_workers
from lab.experiments.protocol import tell
from lab.experiments.rows import Row, data_set
from lab.experiments.verdicts import report
from lab.runs.folder import locked

MOST_SECONDS = 300  # of a core, for a row to get several seeds
SEEDS = 3


def reproduce(config: DictConfig, folder: Path) -> None:
    """Run what `folder` lacks of the rows of `config`, a Reproduce; print their table, and write it.

    Each run's folder is named by the digest of what decides its result: another recipe is another run.
    """
    table = OmegaConf.to_container(config.table, resolve=True)
    rows = _list_rows(table, config, folder)
    for rule in tell(table.get("protocol")):
        print(f"- {rule}")
    # a verdict needs all seeds that a protocol asks for: then row by row, the cheap ones first; else seed by seed
    jobs = [job for row in sorted(rows, key=lambda row: sum(job.work for job in row.jobs)) for job in row.jobs]
    if "protocol" not in table:
        jobs.sort(key=lambda job: (int(job.values["seed"]), job.work))
    train, context = compose_train()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "table"):
        identify(jobs, train, context, folder)
        for job in jobs:
            job.folder = folder / f"{job.folder}_{job.digest}"
        others = adopt(Path(config.earlier), rows, folder, train, context) if config.earlier else []
        taken = {name for row in rows for name in row.earlier}
        # where only a sample of the data was there, the real files may be there today
        missing = [job for job in jobs if not is_current(job) or is_of_sample(job.result())]
        todo = [job for job in missing if job.folder.name not in taken]
        print(f"{len(rows)} rows, {len(jobs)} runs, {len(todo)} to do, in {folder}")
        results = _choose_results(config, others)
        asked = {row.name: min(row.asked, config.seeds or row.asked) for row in rows if "keras" in row.entry}
        workers = config.workers
        is_beside = config.keras and any(len(read_scores(folder, row)) < seeds for row, seeds in asked.items())
        if is_beside and not workers:  # Keras takes one of the cores
            workers = max(count_workers(len(todo) + 1) - 1, 1)
        try:
            with beside(config.keras, asked, folder):
                launcher = make_launcher(train, context)
                launch(todo, launcher, True, workers, " s of a core", lambda: _count_ended(rows))
        except (UserError, KeyboardInterrupt):  # the table marks what has not run
            report(rows, table, folder, results)
            raise
        report(rows, table, folder, results)
    if failed := [row.name for row in rows if row.error()]:
        raise UserError(f"{', '.join(failed)}: could not be run, the table says why; the same command tries again")


def _choose_results(config: DictConfig, others: Sequence[str]) -> Path | None:
    """The file that gets the table; None where that would not be whole, or would lose the runs `others`."""
    # with fewer seeds than a protocol asks for no row has a verdict
    if not config.results or config.rows is not None or (config.seeds and "protocol" in config.table):
        return None
    if others:
        print(f"{config.results} stays as it is: it has runs that are not taken")
        return None
    return Path(config.results)


def _count_ended(rows: Sequence[Row]) -> str:
    return f"{sum(map(Row.has_ended, rows))} of {len(rows)} rows done"


def _list_rows(table: dict[str, Any], config: DictConfig, folder: Path) -> list[Row]:
    """Those that were asked for, with their jobs, whose folders have no digest yet."""
    rows = []
    for name, entry in _choose(table["rows"], config.rows).items():
        asked = count_seeds(entry, table.get("protocol"))
        jobs = _list_jobs(name, entry, table.get("common", ""), config, config.seeds or asked)
        tail = table["protocol"]["tail"] if "protocol" in table and "tail" in entry else 0
        rows.append(Row(name, jobs, entry, asked, tail, lambda name=name: read_scores(folder, name)))
    return rows


def _choose(known: dict[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    """The rows with these names, or whose names begin so: A5 is all of A5-0.01, A5-0.001, A5-0.0001."""
    for name in names or ():
        if not any(_is_meant(row, name) for row in known):
            raise UserError(f"rows=[{name}]: there is no such row{nearest(name, known)} Known: {', '.join(known)}")
    return {row: entry for row, entry in known.items() if names is None or any(_is_meant(row, name) for name in names)}


def _is_meant(row: str, name: str) -> bool:
    return row == name or row.startswith(f"{name}-")


def count_seeds(entry: dict[str, Any], protocol: dict[str, Any] | None) -> int:
    """How many seeds the row itself or the table's protocol asks for."""
    if "seeds" in entry:
        return entry["seeds"]
    if protocol is None:
        return SEEDS if entry["seconds"] <= MOST_SECONDS else 1
    allowed = protocol["seeds"][data_set(entry)]
    return next(seeds for seconds, seeds in sorted(allowed.items()) if entry["seconds"] <= seconds)


def _list_jobs(name: str, entry: dict[str, Any], common: str, config: DictConfig, seeds: int) -> list[Job]:
    """A job for each seed and fold of the row `name`."""
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
