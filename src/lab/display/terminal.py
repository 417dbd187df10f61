"""What a command prints: tables, a progress bar, a warning."""

import re
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from tqdm import tqdm

MOST_ROWS = 20  # classes


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], totals: Sequence[Sequence[str]] = ()
) -> None:
    """Numbers to the right and never cut, words to the left; `totals` below a line."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        cells = [row[place] for row in rows if row[place] not in ("", "-")]
        numbers = all(re.match(r"[-+]?\d", cell) for cell in cells)
        table.add_column(column, justify="right" if numbers else "left", no_wrap=numbers, overflow="fold")
    for part in (rows, totals):
        for cells in part:
            table.add_row(*map(escape, cells))
        table.add_section()
    Console().print(table)


def print_classes(title: str, counts: Mapping[str, Sequence[int]], classes: Sequence[str]) -> None:
    """Images a class, [classes], in each part."""
    rows = [[name, *(f"{count[number]:,}" for count in counts.values())] for number, name in enumerate(classes)]
    total = ["images", *(f"{sum(count):,}" for count in counts.values())]
    print_table(title, ["class", *counts], shorten(rows), [total])


def shorten(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The first MOST_ROWS, then how many more there are."""
    more = [f"... {len(rows) - MOST_ROWS} more", *[""] * (len(rows[0]) - 1)]
    return [*rows[:MOST_ROWS], *([more] if len(rows) > MOST_ROWS else [])]


def make_bar(total: int | None, unit: str, shows: bool = True, done: int = 0) -> tqdm:
    """Rate and time left, on a terminal only; `done` of the `total` were done before."""
    return tqdm(
        total=total,
        initial=done,
        unit=unit,
        disable=None if shows else True,  # None: only where it is not a terminal
        leave=False,
        dynamic_ncols=True,
        mininterval=0.2,
        smoothing=0.1,
    )


def warn(message: str) -> None:
    """In a frame, on stderr."""
    Console(stderr=True).print(Panel(message, title="WARNING", style="bold yellow"))
