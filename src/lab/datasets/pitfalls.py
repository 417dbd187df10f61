"""Pitfalls: what in a data set misleads whoever trains on it, in a sentence each. Without torch."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from lab.datasets.dataset import Dataset
from lab.datasets.pictures import blocks
from lab.display.language import say, translate

UNEVEN = 1.5  # times as many images as another class has
LARGE = 1.2  # times as many images as each of as many equal classes would have
FEW = 30  # images of a part
LOOKED_AT = 1_000  # images, for the brightest pixel
MOST_NAMES = 5


def find_pitfalls(dataset: Dataset, scale: float) -> list[str]:
    """A sentence for each pitfall; `scale` is what pixels are divided by."""
    counts, told = dataset.counts(), []
    for part, count in counts.items():
        told += _find_in_part(part, count, counts["train"], dataset.classes)
    brightest = max(int(images.max()) for images in blocks(dataset.images, dataset.parts["train"][:LOOKED_AT]))
    if 0 < brightest < scale / 4:
        pixels = {"brightest": brightest, "scale": scale}
        told.append(
            say("pixels end at {brightest} and are divided by {scale:g}: try model.scale={brightest}", **pixels)
        )
    if (channels := dataset.shape[0]) not in (1, 3):
        said = say(
            "images have {channels} channels, and pictures 1 or 3: predict.py cannot take any for them",
            channels=channels,
        )
        told.append(said)
    return told


def _find_in_part(part: str, count: npt.NDArray, trained: npt.NDArray, classes: Sequence[str]) -> Iterator[str]:
    """Sentences on a part with `count` images of each class, of which `trained` are trained on."""
    images, values = int(count.sum()), {"part": translate(part)}
    missing = (count == 0) & ((trained > 0) | (part == "train"))  # what nothing is trained on is told once
    if images and missing.any():
        names = name_some(np.flatnonzero(missing), classes)
        yield say("no images in the {part} part of {names}", **values, names=names)
    if 0 < images < FEW:
        values |= {"images": images, "points": 100 / images}
        yield say("the {part} part has {images} images: each is {points:.1f} points of accuracy", **values)
    if part != "train" and (said := largest_class(count, classes)):
        yield say("{said} on the {part} part", **values, said=said)


def largest_class(counts: Sequence[int], classes: Sequence[str]) -> str:
    """A sentence on what always answering the largest class scores, "" where chance scores nearly as much.

    `counts` [classes] are the images of each class.
    """
    share, largest = max(counts) / max(sum(counts), 1), classes[int(np.argmax(counts))]
    told = {"largest": largest, "share": float(share)}
    return say("always answering '{largest}' gives {share:.1%}", **told) if share * len(classes) > LARGE else ""


def is_uneven(counts: Sequence[int]) -> bool:
    """Whether classes, of those that have images, differ by more than UNEVEN to 1."""
    there = [count for count in counts if count]
    return max(there, default=0) > UNEVEN * min(there, default=0)


def name_some(numbers: Sequence[int], classes: Sequence[str]) -> str:
    """The first of the classes that have these `numbers`, and how many more there are."""
    more = say(" and {more} more classes", more=len(numbers) - MOST_NAMES) if len(numbers) > MOST_NAMES else ""
    return ", ".join(f"'{classes[number]}'" for number in numbers[:MOST_NAMES]) + more
