"""Runs that a table's CSV file tells of, perhaps another machine's: they count as done where they are the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.types import HydraContext
from omegaconf import DictConfig

from lab.errors import UserError, first_line, printable
from lab.experiments.jobs import composed_job, images_of, is_current, is_of_sample
from lab.experiments.keras_beside import take_over
from lab.experiments.rows import MEASURED, OF_SOME, Row
from lab.files import parse_table, read_bytes

LIMITS = dict.fromkeys(("accuracy", "train_accuracy", "auc", "balanced_accuracy"), (0, 1)) | {"tail": (0, 100)}
LIMITS |= {"loss": (1e-12, 1e12), "seconds": (0, 1e12)}


def adopt(path: Path, rows: Sequence[Row], folder: Path, config: DictConfig, context: HydraContext) -> list[str]:
    """Give `rows` what the runs of `path` measured on the images of here; return the runs that saw other images.

    A run's name ends in its recipe's digest. What `folder` has already stays as it is. With the runs of a row come the
    seeds of Keras that lie beside `path`.
    """
    measured, others = read_runs(path), []
    for row in rows:
        images = {}  # of each fold: a row's seeds have one split
        for job in row.jobs:
            name, fold = job.folder.name, job.values["fold"]
            if name not in measured or (is_current(job) and not is_of_sample(job.result())):
                continue
            if fold not in images:
                with composed_job(job.overrides, config, context) as composed:
                    images[fold] = images_of(composed.data)
            if measured[name]["sha256"] != images[fold]:
                others.append(name)
            elif row.tail == 0 or "tail" in measured[name]:
                row.earlier[name] = measured[name]
    told = f"; {len(others)} are not taken, of other images than here: {others[0]}, ..." if others else ""
    print(f"Known from {path}: {sum(len(row.earlier) for row in rows)} runs{told}")
    take_over(path.parent, folder, {row.name for row in rows if row.earlier and "keras" in row.entry})
    return others


def read_runs(path: Path) -> dict[str, dict[str, Any]]:
    """What each finished run measured, by the name of its folder."""
    otherwise = "earlier= wants the CSV file of a table, with the columns of docs/published.csv"
    try:
        lines = parse_table(read_bytes(path), path, {*MEASURED, "folder"}, otherwise)
        return {line["folder"]: _figures(line) for _, line in lines if line["accuracy"]}
    except (OSError, ValueError) as error:
        raise UserError(f"earlier={path}: {first_line(error)}") from None


def _figures(line: dict[str, str]) -> dict[str, Any]:
    """What the line says, as numbers; ValueError where they cannot be."""
    columns = MEASURED | {name: kind for name, kind in OF_SOME.items() if line.get(name)}
    figures = {name: kind(line[name]) for name, kind in columns.items()}
    for name, (least, most) in LIMITS.items():
        if name in figures and not least <= figures[name] <= most:
            raise ValueError(f"{name} of {line['folder']} cannot be {line[name]}")
    return figures | {"machine": printable(figures["machine"])}
