"""The page of a table that reproduce.py has measured again."""

import itertools
from pathlib import Path
from statistics import mean
from typing import Any

from lab.display.figures import published, ranking
from lab.display.language import retell, say, translate
from lab.display.markdown import read_blocks
from lab.display.page import Table, draw
from lab.errors import UserError
from lab.experiments.keras_beside import SCORES
from lab.files import read_csv, read_text


def describe(folder: Path, root: Path | None) -> tuple[dict[str, Any], None]:
    """What reproduced.html says of table.md in `folder` and of the runs that the CSV file beside it lists."""
    path = folder / "table.md"
    try:
        blocks, rows = read_blocks(read_text(path)), _read_runs(folder)
        first = next(content for kind, content in blocks if kind == "table")
    except (ValueError, KeyError, TypeError, StopIteration):
        raise UserError(f"{path}: damaged, or not of this version") from None
    start = blocks.index(("table", first))
    summary = blocks[0][1] if blocks[0][0] == "list" else []
    has_published = any(row["published"] is not None for row in rows)
    runs = [row for row in rows if row["scores"]]
    figure = ""
    if runs and has_published:
        figure = draw(published, runs)
    elif runs:
        figure = draw(ranking, {row["name"]: row["scores"] for row in runs}, say("accuracy (%)"))
    return (
        {
            "title": say("Published and measured") if has_published else say("What each step buys"),
            "summary": [retell(line) for line in summary],
            "picture": figure,
            "table_rows": _retell(first),
            "others": [  # each after its heading
                (retell(before), _retell(content))
                for (above, before), (kind, content) in itertools.pairwise(blocks[start + 1 :])
                if (above, kind) == ("heading", "table")
            ],
            "findings": [line for kind, lines in blocks[start:] if kind == "list" for line in lines],
            "about": blocks[bool(summary) : start],
        },
        None,
    )


def _retell(rows: list[list[str]]) -> Table:
    """A table in the language of the moment; a cell may say several things."""
    columns, *cells = rows
    told = [["; ".join(map(retell, cell.split("; "))).replace(" ± ", "\u00a0±\u00a0") for cell in row] for row in cells]
    return Table(list(map(translate, columns)), told)


def _read_runs(folder: Path) -> list[dict[str, Any]]:
    """Of each row what its figure shows: "name", "scores" in %, of each seed all of whose folds ran, "published"."""
    rows: dict[str, dict[str, Any]] = {}
    for path in [path for path in sorted(folder.glob("*.csv")) if path.name != SCORES][:1]:
        for line in read_csv(path):
            row = rows.setdefault(line["row"], {"seeds": {}, "published": line["published"]})
            row["seeds"].setdefault(line["seed"], []).append(line.get("accuracy"))  # no column where none has run
    return [
        {
            "name": name,
            "scores": [100 * mean(map(float, scores)) for scores in row["seeds"].values() if all(scores)],
            "published": float(row["published"]) if row["published"] else None,
        }
        for name, row in rows.items()
    ]
