"""Pictures that are no digit, as people and cameras send them: does a digit network say that it does not know?

Two sets: measures and thresholds may be chosen on one, `part` 0, and are judged on the other, `part` 1. They share no
letter, no font, no image of CIFAR4 or MNIST, no drawing.
"""

from collections.abc import Callable, Iterator

import numpy as np
from digit_photos import EMPTY, FONTS, clouds, fall, finish, place, printed, squares, stroke, turn, wide_table, write
from PIL import Image, ImageDraw

LETTERS = "AEFHKMNPRTVWXYadefhkmnrtvwx"  # none that a person may take for a digit


class Source:
    """What one part draws from: its half of the letters, the fonts and the images; and its random numbers."""

    def __init__(self, digits: np.ndarray, photos: np.ndarray, part: int, seed: int) -> None:
        """`digits` are images of MNIST [n, 28, 28], `photos` are those of CIFAR4 [n, 32, 32, 3]."""
        self.letters, self.fonts = LETTERS[part::2], FONTS[part::2]
        self.digits, self.photos = digits[part::2], photos[part::2]
        self.random = np.random.default_rng([seed, part])

    def any_of(self, things):
        return things[int(self.random.integers(len(things)))]

    def letter(self) -> Image.Image:
        ink = printed(self.any_of(self.letters), self.any_of(self.fonts), 280)
        return finish(write(place(turn(ink, self.random, 10), self.random), 245), self.random, 3)

    def noise(self) -> Image.Image:
        """Of the network's own size or larger, coarse or fine, of many levels or of two."""
        side = int(self.any_of((28, 28, 56, 280)))
        sort = int(self.random.integers(3))
        if sort == 0:
            grey = self.random.integers(0, 256, (side, side))
        elif sort == 1:
            grey = self.random.normal(128, 40, (side, side))
        else:
            grey = 255 * (self.random.random((side, side)) < self.random.uniform(0.1, 0.5))
        return finish(np.asarray(grey, float), self.random)

    def photo(self) -> Image.Image:
        return Image.fromarray(self.any_of(self.photos))

    def two(self) -> Image.Image:
        """Written or printed."""
        page, is_written = Image.new("L", (280, 280)), self.random.random() < 0.5
        font = self.any_of(self.fonts)
        for left in (30, 145):
            ink = (
                stroke(self.any_of(self.digits), 280)
                if is_written
                else printed(int(self.random.integers(10)), font, 280)
            )
            page.paste(place(ink, self.random, 0.9, 0.02, 110), (left, 85))
        return finish(write(page, 245), self.random, 3)

    def scribble(self) -> Image.Image:
        """A pen that wanders without lifting: a smooth line through many random points."""
        page, points = Image.new("L", (280, 280)), self.random.uniform(50, 230, (int(self.random.integers(8, 20)), 2))
        steps = np.linspace(0, len(points) - 1, 30 * len(points))
        path = np.stack([np.interp(steps, np.arange(len(points)), points[:, axis]) for axis in (0, 1)], 1)
        smooth = np.stack([np.convolve(path[:, axis], np.ones(25) / 25, "valid") for axis in (0, 1)], 1)
        width = int(self.random.integers(8, 18))
        ImageDraw.Draw(page).line([tuple(point) for point in smooth], fill=255, width=width, joint="curve")
        return finish(write(page, 245), self.random, 3)

    def shadow(self) -> Image.Image:
        """On blank paper: light that falls, a hand's shadow, a crease, a table beside it."""
        sort, random = int(self.random.integers(5)), self.random
        paper = {
            0: lambda: 240 * fall(280, random, random.uniform(0.2, 0.6)),
            1: lambda: 240 * np.where(fall(280, random, 0) > random.uniform(0.3, 0.7), 1, random.uniform(0.3, 0.7)),
            2: lambda: (235 - 35 * clouds(280, random, 24)) * fall(280, random, 0.5),
            3: lambda: wide_table(280, random) * fall(280, random, 0.5),
            4: lambda: squares(280, random) * fall(280, random, 0.5),
        }[sort]()
        return finish(write(EMPTY, paper), random, 3)


KINDS: dict[str, Callable[[Source], Image.Image]] = {
    "letters": Source.letter,
    "noise": Source.noise,
    "photographs": Source.photo,
    "two digits": Source.two,
    "scribbles": Source.scribble,
    "shadowed blank paper": Source.shadow,
}


def strangers(
    digits: np.ndarray, photos: np.ndarray, each: int, part: int, seed: int = 1
) -> Iterator[tuple[str, Image.Image]]:
    """`each` pictures of each kind: its name, the picture."""
    for number, (name, draw) in enumerate(KINDS.items()):
        source = Source(digits, photos, part, 100 * seed + number)
        for _ in range(each):
            yield name, draw(source)
