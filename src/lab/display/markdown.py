"""Tables and sections of a Markdown file."""

import re
from collections.abc import Sequence
from pathlib import Path

from lab.files import write_text


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, a line each, bars in the cells escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def replace_section(path: Path, title: str, body: str) -> None:
    """Put `body` under the heading `## title` of the file, instead of what stood there; the rest stays."""
    text = path.read_text() if path.exists() else "# Results\n"
    section = f"## {title}\n\n{body.strip()}\n"
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    start, end = found.span() if found else (len(text), len(text))
    text = f"{text[:start].rstrip()}\n\n{section}\n{text[end:]}"
    write_text(text.rstrip() + "\n", path)
