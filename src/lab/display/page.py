"""A page in one file: no address outside it, nothing that runs but its own script, images in one sheet."""

import base64
import hashlib
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from lab.display.language import number, say, spoken

HERE = Path(__file__).parent
SMALL = 32  # pixels: up to here images keep their size, and every pixel its value
LONG = 40  # letters, of a cell that may break into lines
SIDE = 96  # pixels, of larger ones


def render(template: Path, script: str = "", sheet: "Sheet | None" = None, **content: Any) -> str:
    """The page that `template`, which extends page.html, makes of `content`, whose texts are escaped.

    Its policy lets the browser run `script`, apply the style and show what the page holds, and nothing else.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (HERE / "page.css").read_text(encoding="utf-8") + (sheet.style() if sheet else "")
    allowed = {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "img-src": "data:"}
    allowed |= {"style-src": _hash(style), "script-src": _hash(script) if script else "'none'"}
    return environment.get_template(template.name).render(
        say=say,
        number=number,
        contents=[],  # each heading adds itself
        language=spoken(),
        policy="; ".join(f"{kind} {sources}" for kind, sources in allowed.items()),
        style=Markup(style),
        script=Markup(script),
        **content,
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def data_address(content: bytes, kind: str) -> str:
    """Of `content`, as the src of an <img>: of the kind "svg+xml", "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


class Sheet:
    """The images of a page, all of one size, in one picture: an element of class "tile" shows the one it names."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Of images of `shape`, [h, w, ...]."""
        self.shape = tuple(shape)
        height, width = shape[:2]
        shrink = min(1.0, SIDE / max(height, width)) if max(height, width) > SMALL else 1.0
        self.size = max(round(width * shrink), 1), max(round(height * shrink), 1)
        self.tiles: list[Image.Image] = []

    def add(self, image: npt.NDArray[np.uint8]) -> str:
        """Take an image [h, w, c], in colour where c is 3, else grey; the class of the element that is to show it."""
        pixels = image if image.shape[-1] == 3 else image.mean(-1).astype(np.uint8)
        tile = Image.fromarray(pixels)
        self.tiles.append(tile if tile.size == self.size else tile.resize(self.size, Image.Resampling.BOX))
        return f"tile i{len(self.tiles) - 1}"

    def style(self) -> str:
        """The sheet and each tile's place in it, as CSS; places are shares, so that a tile may have any size."""
        if not self.tiles:
            return ""
        columns = max(round(len(self.tiles) ** 0.5), 1)
        rows = -(-len(self.tiles) // columns)
        address = self._picture(columns, rows)
        width, height = self.size
        rules = [
            f".tile{{aspect-ratio:{width}/{height};background-image:url({address});"
            f"background-size:{100 * columns}% {100 * rows}%;"
            f"image-rendering:{'pixelated' if max(self.size) <= SMALL else 'auto'}}}"
        ]
        for place in range(len(self.tiles)):
            across, down = place % columns / max(columns - 1, 1), place // columns / max(rows - 1, 1)
            rules.append(f".i{place}{{background-position:{100 * across:.4f}% {100 * down:.4f}%}}")
        return "\n".join(rules)

    def _picture(self, columns: int, rows: int) -> str:
        width, height = self.size
        is_colour = any(tile.mode != "L" for tile in self.tiles)
        picture = Image.new("RGB" if is_colour else "L", (columns * width, rows * height))
        for place, tile in enumerate(self.tiles):
            picture.paste(tile, (place % columns * width, place // columns * height))
        kind, options = ("png", {"optimize": True}) if max(self.size) <= SMALL else ("jpeg", {"quality": 85})
        file = io.BytesIO()
        picture.save(file, kind, **options)
        return data_address(file.getvalue(), kind)


@dataclass
class Table:
    """Of a page: headings, rows of texts, the first of each its heading, and a last row that sums up."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: Sequence[str] = ()

    def alignment(self, place: int) -> str:
        """The class of the column's cells: "n" where they are numbers, which stand at the right, "t" of long texts."""
        cells = [row[place] for row in self.rows if row[place] not in ("", "-")]
        if cells and all(re.match(r"[-+]?\d", cell) for cell in cells):
            return "n"
        return "t" if place and any(len(cell) > LONG for cell in cells) else ""


def draw(figure: Callable[..., None], *content: Any) -> str:
    """What a `figure` of lab.display.figures makes of `content`, as the src of an <img>.

    An image of its own: nothing in it is part of the page.
    """
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # that matplotlib's font lacks: the reader's has it
        path = Path(folder) / "figure.svg"
        figure(*content, "", path)
        return data_address(path.read_bytes(), "svg+xml")
