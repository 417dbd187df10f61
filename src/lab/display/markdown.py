"""Tables and sections of a Markdown file."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.files import read_text, write_text


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; bars in its cells are escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def replace_section(path: Path, title: str, body: str) -> None:
    """Put `body` under the heading `## title` of the file, in place of what stood there; the rest stays."""
    text = read_text(path) if path.exists() else "# Results\n"
    section = f"## {title}\n\n{body.strip()}\n"
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    start, end = found.span() if found else (len(text), len(text))
    text = f"{text[:start].rstrip()}\n\n{section}\n{text[end:]}"
    write_text(text.rstrip() + "\n", path)


def read_blocks(text: str) -> list[tuple[str, Any]]:
    """What stands in `text`, in order, without its marks and pictures.

    ("heading", text), ("paragraph", text), ("list", [text, ...]), ("table", [cells, ...]), the first its columns'.
    ValueError where a table has rows of different lengths.
    """
    blocks: list[tuple[str, Any]] = []
    for block in filter(None, map(str.strip, text.split("\n\n"))):
        lines = [re.sub(r"(\*\*|\*|`)(.+?)\1", r"\2", line) for line in block.splitlines()]
        if block.startswith("| "):
            cells = [re.split(r" \| ", line[2:].removesuffix(" |")) for line in block.splitlines()]
            if len({*map(len, cells)}) > 1 or len(cells) < 3:
                raise ValueError("not a table")
            blocks.append(("table", [[cell.replace("\\|", "|") for cell in row] for row in (cells[0], *cells[2:])]))
        elif block.startswith("#"):
            blocks.append(("heading", lines[0].lstrip("# ")))
        elif block.startswith("- "):
            blocks.append(("list", [line.removeprefix("- ") for line in lines]))
        elif not block.startswith("!["):
            blocks.append(("paragraph", " ".join(lines)))
    return blocks
