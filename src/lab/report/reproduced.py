"""The page of a table that reproduce.py has measured again."""

import csv
from pathlib import Path
from statistics import mean
from typing import Any

from lab.display.figures import published, ranking
from lab.display.language import localise, say, translate
from lab.display.markdown import read_table
from lab.display.page import Table, draw
from lab.errors import UserError
from lab.files import MOST_TEXT, open_plain, read_text

FIGURES = {"published", "measured", "difference", "accuracy %", "what it buys, points", "parameters", "seconds"}


def describe(folder: Path, root: Path | None) -> tuple[dict[str, Any], None]:
    """What reproduced.html says of table.md in `folder` and of the runs that the CSV file beside it lists."""
    path = folder / "table.md"
    try:
        columns, rows, paragraphs = read_table(read_text(path))
        runs = _read_runs(folder)
    except (ValueError, KeyError, TypeError, csv.Error):
        raise UserError(f"{path}: damaged, or not of this version") from None
    shown = [[localise(c) if name in FIGURES else c for name, c in zip(columns, row, strict=True)] for row in rows]
    has_published = any(row["published"] is not None for row in runs)
    points = {row["name"]: row["scores"] for row in runs}
    return {
        "title": say("Published and measured") if has_published else say("What each step buys"),
        "table_rows": Table([translate(column) for column in columns], shown),
        "findings": [each.removeprefix("- ") for each in paragraphs if each.startswith("- ")],
        "about": [each for each in paragraphs if not each.startswith("- ")],
        "picture": draw(published, runs)
        if has_published
        else draw(ranking, points, say("accuracy (%)"))
        if runs
        else "",
    }, None


def _read_runs(folder: Path) -> list[dict[str, Any]]:
    """Of each row that has run what its figure shows: "name", "scores" in %, a seed each, and "published"."""
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.csv"))[:1]:
        with open_plain(path, MOST_TEXT, "r") as file:
            for line in csv.DictReader(file):
                if line["accuracy"]:
                    row = rows.setdefault(line["row"], {"seeds": {}, "published": line["published"]})
                    row["seeds"].setdefault(line["seed"], []).append(100 * float(line["accuracy"]))
    return [
        {
            "name": name,
            "scores": [mean(scores) for scores in row["seeds"].values()],
            "published": float(row["published"]) if row["published"] else None,
        }
        for name, row in rows.items()
    ]
