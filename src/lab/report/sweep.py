"""The page of a sweep."""

from pathlib import Path
from typing import Any

from lab.config.again import command_again
from lab.config.overrides import command_line
from lab.display.labels import label
from lab.display.language import say
from lab.display.page import Table, draw
from lab.errors import UserError
from lab.experiments import ranking
from lab.experiments.jobs import Job, is_of_sample
from lab.experiments.knobs import DRAWS
from lab.files import read_csv
from lab.runs.folder import read_config

SCORES = {*ranking.HEADINGS, "error", "folder"}  # columns of sweep.csv; the others are what was swept


def describe(folder: Path, root: Path | None) -> tuple[dict[str, Any], None]:
    """What sweep.html says of the jobs that sweep.csv in `folder` lists; a sweep needs no images."""
    jobs, swept = _read_jobs(folder)
    results = [(job, job.result()) for job in jobs]
    finished = [result for _, result in results if result]
    if not finished:
        raise UserError(f"{folder}: none of its jobs has finished")
    metric = f"val_{finished[0].get('monitor', 'accuracy')}"
    settings = ranking.group_by_setting(results, metric)
    has_winner = metric in ranking.common(settings)
    columns, rows = ranking.tabulate(settings, metric, shows_test=not has_winner or set(swept) <= set(DRAWS))
    title = ranking.title_of(finished[0], swept)
    keys = [label(key) for key in swept]
    return {
        "title": say("{title}, by {keys}", title=title, keys=say(" and ").join(keys)),
        "is_sample": any(map(is_of_sample, finished)),
        "finished": len(finished),
        "failed": [
            f"{job.folder.name}: {job.error() or say('has left no result')}" for job, result in results if not result
        ],
        "conclusion": ranking.conclusion(settings, metric),
        "command": _command(settings[0].jobs[0]) if has_winner else None,
        "picture": draw(lambda untitled, path: ranking.draw(settings, swept, title, metric, path)),
        "keys": keys,
        "settings": Table([" ".join(column.split()) for column in columns], rows),
        "result": finished[0],
    }, None


def _read_jobs(folder: Path) -> tuple[list[Job], list[str]]:
    path = folder / "sweep.csv"
    try:
        rows = read_csv(path)
        swept = [name for name in rows[0] if name not in SCORES]
        names = [Path(row["folder"]).name for row in rows]  # a stranger's table names none outside
        places = [folder / name for name in names if name != ".."]
        return [
            Job([], {key: row[key] or "" for key in swept}, place) for row, place in zip(rows, places, strict=True)
        ], swept
    except (ValueError, KeyError, IndexError, TypeError):
        raise UserError(f"{path}: damaged, or not of this version") from None


def _command(job: Job) -> str:
    """Of the winner."""
    config = read_config(job.folder, builds=False)
    return command_again(config) or command_line([f"{key}={value}" for key, value in job.values.items()])
