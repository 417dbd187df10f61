"""Pictures of handwritten and printed digits, as people take them: on squared paper, in a shadow, on a table."""

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FONTS = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf"))
FONTS = [
    path
    for path in FONTS
    if path.stem.startswith(("DejaVu", "cmr", "cmss", "cmtt", "STIXGeneral")) and "Display" not in path.stem
]


def stroke(image: np.ndarray, side: int) -> Image.Image:
    """The ink, 0 to 255, of an image of MNIST, as smooth as a pen's at `side` pixels."""
    large = Image.fromarray(image).resize((side, side), Image.BICUBIC).filter(ImageFilter.GaussianBlur(side / 56))
    return large.point(lambda value: max(0, min(255, (value - 90) * 6)))


def printed(digit: int, font: Path, side: int) -> Image.Image:
    ink = Image.new("L", (side, side))
    type_face = ImageFont.truetype(str(font), int(side * 0.72))
    ImageDraw.Draw(ink).text((side // 2, side // 2), str(digit), fill=255, font=type_face, anchor="mm")
    return ink


def place(ink: Image.Image, random: np.random.Generator, share: float = 0.6, off: float = 0.1, side: int = 280):
    """The ink on a square of `side`, its box `share` of it high or wide, `off` of the side from the middle."""
    box = ink.getbbox()
    ink = ink.crop(box)
    scale = side * share / max(ink.size)
    ink = ink.resize([max(1, round(length * scale)) for length in ink.size], Image.BICUBIC)
    room = [(side - length) // 2 for length in ink.size]
    shift = [int(random.uniform(-1, 1) * min(off * side, each)) for each in room]
    page = Image.new("L", (side, side))
    page.paste(ink, tuple(r + s for r, s in zip(room, shift, strict=True)))
    return page


def write(ink: Image.Image, paper: np.ndarray | float, pen: float = 25) -> np.ndarray:
    """Grey levels, float [h, w]: ink of the level `pen` on `paper`."""
    share = np.asarray(ink, np.float64) / 255
    return paper * (1 - share) + pen * share


def fall(side: int, random: np.random.Generator, least: float) -> np.ndarray:
    """Light [side, side] that falls from 1 to `least` across the picture in some direction."""
    angle = random.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:side, 0:side] / (side - 1) - 0.5
    along = x * math.cos(angle) + y * math.sin(angle)
    along = (along - along.min()) / (along.max() - along.min())
    return 1 - (1 - least) * along


def squares(side: int, random: np.random.Generator, level: float = 175) -> np.ndarray:
    paper, pitch = np.full((side, side), 245.0), side / random.uniform(8, 16)
    start = random.uniform(0, pitch, 2)
    for number in range(20):
        for axis in (0, 1):
            at = int(start[axis] + number * pitch)
            if at < side:
                line = (slice(at, at + max(1, side // 200)), slice(None))
                paper[line if axis else line[::-1]] = level
    return paper


def table(side: int, random: np.random.Generator) -> np.ndarray:
    """Paper [side, side] with a darker table beyond the paper's edge, at one or two sides."""
    level, paper = random.uniform(40, 120), np.full((side, side), 240.0)
    slope = random.uniform(-0.08, 0.08)
    y, x = np.mgrid[0:side, 0:side]
    for _ in range(int(random.integers(1, 3))):
        edge = side * random.uniform(0.05, 0.14) + slope * y
        beyond = np.rot90(x < edge, int(random.integers(4)))
        paper[beyond] = level + random.normal(0, 4, beyond.sum())
    return paper


def finish(grey: np.ndarray, random: np.random.Generator, noise: float = 0, colour=(1, 1, 1), quality: int = 0):
    grey = grey + random.normal(0, noise, grey.shape) if noise else grey
    if colour == (1, 1, 1):
        picture = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    else:
        picture = Image.fromarray(np.clip(grey[..., None] * np.array(colour), 0, 255).astype(np.uint8))
    if quality:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        picture = Image.open(file)
        picture.load()
    return picture


def turn(ink: Image.Image, random: np.random.Generator, degrees: float) -> Image.Image:
    return ink.rotate(random.uniform(-degrees, degrees), Image.BICUBIC)


def phone(ink: Image.Image, random: np.random.Generator) -> Image.Image:
    side = 640
    page = turn(place(ink, random, random.uniform(0.3, 0.6), 0.15, side), random, 6)
    grey = write(page, 232, random.uniform(30, 80)) * fall(side, random, random.uniform(0.5, 0.75))
    picture = finish(grey, random, 7, (1, 0.97, 0.88)).filter(ImageFilter.GaussianBlur(1.6))
    return finish(np.asarray(picture.convert("L"), float), random, 2, quality=55)


def touching(ink: Image.Image, random: np.random.Generator) -> Image.Image:
    """Cut at the ink's box on one or two sides, or on all."""
    page = finish(write(place(ink, random, 0.6, 0), 250), random)
    box, sides = list(place(ink, np.random.default_rng(0), 0.6, 0).getbbox()), random.permutation(4)
    whole = [0, 0, *page.size]
    for each in sides[: int(random.integers(1, 5))]:
        whole[each] = box[each]
    return page.crop(whole)


def clouds(side: int, random: np.random.Generator, cells: int = 8) -> np.ndarray:
    """Smooth random numbers from 0 to 1, [side, side]: stains, creases, a board that was wiped."""
    coarse = Image.fromarray(random.integers(0, 256, (cells, cells), dtype=np.uint8))
    return np.asarray(coarse.resize((side, side), Image.BICUBIC), np.float64) / 255


def glare(side: int, random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side] / side
    at = random.uniform(0, 1, 2)
    return np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 0.08)


def wide_table(side: int, random: np.random.Generator) -> np.ndarray:
    """Paper with a wooden table at one side, up to a third of the picture."""
    paper, edge = np.full((side, side), random.uniform(215, 245)), random.uniform(0.1, 0.33)
    wood = random.uniform(60, 150) + 30 * clouds(side, random, 40)
    y, x = np.mgrid[0:side, 0:side] / side
    beyond = np.rot90(x < edge + random.uniform(-0.1, 0.1) * (y - 0.5), int(random.integers(4)))
    paper[beyond] = wood[beyond]
    return paper


def framed(ink: Image.Image, random: np.random.Generator) -> Image.Image:
    page = place(ink, random, 0.45, 0.05)
    inset = int(random.uniform(8, 30))
    ImageDraw.Draw(page).rectangle((inset, inset, 279 - inset, 279 - inset), outline=255, width=2)
    return finish(write(page, 245), random)


def ruled(side: int, random: np.random.Generator) -> np.ndarray:
    paper, pitch = np.full((side, side), 243.0), int(side / random.uniform(6, 10))
    paper[int(random.integers(pitch)) :: pitch] = 160
    margin = int(random.uniform(0.05, 0.2) * side)
    paper[:, margin : margin + 2] = 150
    return paper


CONDITIONS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "clean": lambda ink, r: finish(write(place(ink, r), 250), r),
    "inverted": lambda ink, r: finish(write(place(ink, r), 10, 235), r),
    "coloured": lambda ink, r: finish(write(place(ink, r), 235, 60), r, 0, (1, 0.95, 0.7)),
    "thin": lambda ink, r: finish(write(place(ink.filter(ImageFilter.MinFilter(5)), r), 250), r),
    "thick": lambda ink, r: finish(write(place(ink.filter(ImageFilter.MaxFilter(11)), r), 250), r),
    "40 pixels": lambda ink, r: finish(write(place(ink, r, side=40), 250), r),
    "1500 pixels": lambda ink, r: finish(write(place(ink, r, side=1500), 250), r),
    "small in it": lambda ink, r: finish(write(place(ink, r, 0.2, 0.3, 400), 250), r),
    "JPEG": lambda ink, r: finish(write(place(ink, r), 250), r, quality=20),
    "turned": lambda ink, r: finish(write(place(turn(ink, r, 15), r), 250), r),
    "off centre": lambda ink, r: finish(write(place(ink, r, 0.45, 0.5), 250), r),
    "touching": touching,
    "pencil": lambda ink, r: finish(write(place(ink, r), 225, 130), r, 5),
    "squared": lambda ink, r: finish(write(place(ink, r), squares(280, r)), r),
    "noise": lambda ink, r: finish(write(place(ink, r), 220, 60), r, 30),
    "squared, uneven": lambda ink, r: finish(write(place(ink, r), squares(280, r)) * fall(280, r, 0.55), r, 4),
    "phone": phone,
    "shadow": lambda ink, r: finish(write(place(ink, r), 240) * fall(280, r, 0.4), r, 3),
    "hand's shadow": lambda ink, r: finish(
        write(place(ink, r), 240) * np.where(fall(280, r, 0) > r.uniform(0.3, 0.7), 1, r.uniform(0.5, 0.7)), r, 3
    ).filter(ImageFilter.GaussianBlur(4)),
    "table": lambda ink, r: finish(write(place(ink, r, 0.5, 0.08), table(280, r)), r, 3),
    "wide table": lambda ink, r: finish(write(place(ink, r, 0.35, 0.03), wide_table(280, r)), r, 3),
    "chalk": lambda ink, r: finish(write(place(ink, r), 45 + 50 * clouds(280, r), 215) * fall(280, r, 0.6), r, 8),
    "ruled": lambda ink, r: finish(write(place(ink, r), ruled(280, r)) * fall(280, r, 0.8), r, 3),
    "stained": lambda ink, r: finish(write(place(ink, r), 245 - 70 * clouds(280, r) ** 2), r, 3),
    "creased": lambda ink, r: finish(write(place(ink, r), 235 - 35 * clouds(280, r, 24)), r, 4),
    "glare": lambda ink, r: finish(write(place(ink, r), 150, 30) + 90 * glare(280, r), r, 3),
    "blurred": lambda ink, r: finish(write(place(ink, r), 235), r, 3).filter(ImageFilter.GaussianBlur(7)),
    "framed": framed,
}

EMPTY = Image.new("L", (280, 280))
# what is not one digit: nothing, or two
OTHERS: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "nothing": lambda r: finish(write(EMPTY, 240), r, 3),
    "nothing but noise": lambda r: finish(write(EMPTY, 200), r, 30),
    "nothing in a shadow": lambda r: finish(write(EMPTY, 240) * fall(280, r, 0.4), r, 3),
    "nothing on squared paper": lambda r: finish(write(EMPTY, squares(280, r)) * fall(280, r, 0.6), r, 3),
    "nothing on a table": lambda r: finish(write(EMPTY, table(280, r)), r, 3),
    "nothing on a wide table": lambda r: finish(write(EMPTY, wide_table(280, r)), r, 3),
    "nothing, creased": lambda r: finish(write(EMPTY, 235 - 35 * clouds(280, r, 24)), r, 4),
    "two digits": lambda r: finish(write(two(r), 245), r, 3),
    "two digits in a shadow": lambda r: finish(write(two(r), 240) * fall(280, r, 0.5), r, 3),
}


def two(random: np.random.Generator) -> Image.Image:
    font, page = FONTS[int(random.integers(len(FONTS)))], Image.new("L", (280, 280))
    for left, digit in ((30, random.integers(10)), (145, random.integers(10))):
        page.paste(place(printed(int(digit), font, 280), random, 0.9, 0.02, 110), (left, 85))
    return page


def pictures(images: np.ndarray, labels: np.ndarray, each: int, seed: int) -> Iterator[tuple[str, Image.Image, int]]:
    """`each` pictures of each condition: its name, the picture, the digit; two thirds of strokes, a third printed."""
    for number, (name, draw) in enumerate(CONDITIONS.items()):
        random = np.random.default_rng([seed, number])
        for count in range(each):
            if count % 3 == 2:
                digit = int(random.integers(10))
                ink = printed(digit, FONTS[int(random.integers(len(FONTS)))], 280)
            else:
                which = int(random.integers(len(labels)))
                digit, ink = int(labels[which]), stroke(images[which], 280)
            yield name, draw(ink, random), digit
