"""What a command prints: tables, progress bars, notes, warnings."""

import re
import textwrap
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from tqdm import tqdm

MOST_ROWS = 20  # classes
AS_IT_IS = {"markup": False, "emoji": False}  # a name may be [b] or :cat:
LONG = 30  # letters of a word, from which on it may be broken


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    totals: Sequence[Sequence[str]] = (),
    spare: Sequence[str] = (),
) -> None:
    """Print a table, numbers to the right, words to the left; `totals` below a line.

    Where the terminal is too narrow, the `spare` columns are left out in turn; where that is not enough, each row
    becomes a line of text. Numbers are never broken, nor words of up to LONG letters.
    """
    console, places = Console(**AS_IT_IS), list(range(len(columns)))
    for column in (None, *spare):
        places = [place for place in places if columns[place] != column]
        shown = [[[row[place] for place in places] for row in part] for part in (rows, totals)]
        if table := _make_table(title, [columns[place] for place in places], *shown, console.width):
            console.print(table)
            return
    print(title)
    for cells in (*rows, *totals):
        told = (f"{' '.join(column.split())} {cell}" for column, cell in zip(columns, cells, strict=True) if cell)
        print(textwrap.fill(f"- {', '.join(told)}", console.width, subsequent_indent="  ", break_long_words=False))


def _make_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], totals: Sequence[Sequence[str]], room: int
) -> Table | None:
    """The table, None where it needs more than `room` letters a line.

    rich would rather break numbers than leave a column out: so the widths are computed here.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    wanted = []
    for place, column in enumerate(columns):
        cells = [row[place] for row in (*rows, *totals)]
        numbers = all(re.match(r"[-+]?\d", row[place]) for row in rows if row[place] not in ("", "-"))
        words = [*column.split(), *(cells if numbers else " ".join(cells).split())]
        least = max(cell_len(word) if numbers else min(cell_len(word), LONG) for word in words)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold", width=least)
        wanted.append(max(map(cell_len, (*column.splitlines(), *cells))))
    room -= sum(column.width for column in table.columns) + 3 * len(columns) + 1
    if room < 0:
        return None
    for column, width in zip(table.columns, wanted, strict=True):
        more = min(max(width - column.width, 0), room)
        column.width, room = column.width + more, room - more
    for part in (rows, totals):
        for cells in part:
            table.add_row(*cells)
        table.add_section()
    return table


def print_classes(title: str, counts: Mapping[str, Sequence[int]], classes: Sequence[str]) -> None:
    """Print how many images of each class, [classes], each part has."""
    rows = [[name, *(f"{count[number]:,}" for count in counts.values())] for number, name in enumerate(classes)]
    total = ["images", *(f"{sum(count):,}" for count in counts.values())]
    print_table(title, ["class", *counts], shorten(rows), [total])


def shorten(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The first MOST_ROWS rows, then one that says how many more there are."""
    more = [f"... {len(rows) - MOST_ROWS} more", *[""] * (len(rows[0]) - 1)]
    return [*rows[:MOST_ROWS], *([more] if len(rows) > MOST_ROWS else [])]


def make_bar(total: int | None, unit: str, shows: bool = True, done: int = 0) -> tqdm:
    """A progress bar with rate and time left, on a terminal only; `done` of the `total` were done before."""
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


def print_notes(sentences: Sequence[str]) -> None:
    """Print each sentence as a line."""
    for sentence in sentences:
        print(f"Note: {sentence}")


def warn(message: str) -> None:
    """Print the message in a frame, on stderr."""
    Console(stderr=True, **AS_IT_IS).print(Panel(message, title="WARNING", style="bold yellow"))
