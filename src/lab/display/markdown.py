"""Tables and sections of a Markdown file."""

import re
from collections.abc import Sequence
from pathlib import Path

from lab.files import write_text


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; bars in its cells are escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def replace_section(path: Path, title: str, body: str) -> None:
    """Put `body` under the heading `## title` of the file, in place of what stood there; the rest stays."""
    text = path.read_text() if path.exists() else "# Results\n"
    section = f"## {title}\n\n{body.strip()}\n"
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    start, end = found.span() if found else (len(text), len(text))
    text = f"{text[:start].rstrip()}\n\n{section}\n{text[end:]}"
    write_text(text.rstrip() + "\n", path)


def read_table(text: str) -> tuple[list[str], list[list[str]], list[str]]:
    """The first `table` in `text`: its columns, its rows; and the paragraphs around it, without their marks."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.replace("\\|", "|") for cell in re.split(r" \| ", line[2:].removesuffix(" |"))] for line in lines]
    paragraphs = [each.strip() for each in text.split("\n\n") if not each.lstrip().startswith(("| ", "!["))]
    plain = [re.sub(r"(\*\*|\*|`)(.+?)\1", r"\2", each) for each in paragraphs if each]
    if len(cells) < 3 or any(len(row) != len(cells[0]) for row in cells):
        raise ValueError("it has no table")
    return cells[0], cells[2:], plain
