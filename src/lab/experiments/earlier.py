"""Runs that a table's CSV file tells of, perhaps another machine's: they count as done where they are the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.types import HydraContext
from omegaconf import DictConfig

from lab.errors import UserError, first_line
from lab.experiments.jobs import composed_job, images_of
from lab.experiments.keras_beside import take_over
from lab.experiments.rows import MEASURED, OF_SOME, Row
from lab.files import read_csv


def adopt(path: Path, rows: Sequence[Row], folder: Path, config: DictConfig, context: HydraContext) -> set[str]:
    """Give `rows` what the runs of `path` measured on the images of here; return the names of these runs.

    A run's name ends in its recipe's digest. What has its result in `folder` already stays as it is. Keras' seeds,
    where they lie beside `path`, are taken too.
    """
    measured, others = _read(path), 0
    for row in rows:
        known = [job for job in row.jobs if job.folder.name in measured and not job.result()]
        images = {}  # of each fold: a row's seeds have one split
        for job in known:
            if (fold := job.values["fold"]) not in images:
                with composed_job(job.overrides, config, context) as composed:
                    images[fold] = images_of(composed.data)
            if measured[job.folder.name]["sha256"] == images[fold]:
                row.earlier[job.folder.name] = measured[job.folder.name]
        others += len(known) - len(row.earlier)
    taken = {name for row in rows for name in row.earlier}
    print(f"{len(taken)} runs are known from {path}" + (f"; {others} are not taken, of other images" if others else ""))
    take_over(path.parent, folder)
    return taken


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """What each finished run measured, by the name of its folder."""
    try:
        lines = [line for line in read_csv(path) if line["accuracy"]]
        return {line["folder"]: _numbers(line) for line in lines}
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        why = f"it has no column {error.args[0]}" if isinstance(error, KeyError) else first_line(error)
        raise UserError(f"earlier={path}: no CSV file of a table such as docs/published.csv: {why}") from None


def _numbers(line: dict[str, str]) -> dict[str, Any]:
    columns = MEASURED | {name: kind for name, kind in OF_SOME.items() if line.get(name)}
    return {name: kind(line[name]) for name, kind in columns.items()}
