"""What in a data set misleads whoever trains on it, in a sentence each. Without torch."""

from collections.abc import Sequence

import numpy as np

from lab.datasets.dataset import Dataset
from lab.datasets.pictures import blocks
from lab.display.language import say, translate

UNEVEN = 1.5  # times as many images as another class has
LARGE = 1.2  # times as many images as each of as many equal classes would have
FEW = 30  # images of a part
LOOKED_AT = 1_000  # images, for the brightest pixel
MOST_NAMES = 5


def find_pitfalls(dataset: Dataset, scale: float) -> list[str]:
    """Sentences; `scale` is what pixels are divided by."""
    counts, classes = dataset.counts(), dataset.classes
    told = []
    for part, count in counts.items():
        there = (count > 0) | ((counts["train"] == 0) & (part != "train"))  # told once
        if count.sum() and not there.all():
            told.append(
                say(
                    "no images in the {part} part of {names}",
                    part=translate(part),
                    names=_names(np.flatnonzero(~there), classes),
                )
            )
        if 0 < count.sum() < FEW:
            told.append(
                say(
                    "the {part} part has {images} images: each is {points:.1f} points of accuracy",
                    part=translate(part),
                    images=int(count.sum()),
                    points=float(100 / count.sum()),
                )
            )
        if part != "train" and (said := largest_class(count, classes)):
            told.append(say("{said} on the {part} part", said=said, part=translate(part)))
    brightest = max(int(images.max()) for images in blocks(dataset.images, dataset.parts["train"][:LOOKED_AT]))
    if 0 < brightest < scale / 4:
        told.append(
            say(
                "pixels end at {brightest} and are divided by {scale:g}: try model.scale={brightest}",
                brightest=brightest,
                scale=scale,
            )
        )
    if (channels := dataset.shape[0]) not in (1, 3):
        told.append(
            say(
                "images have {channels} channels, and pictures 1 or 3: predict.py cannot take any for them",
                channels=channels,
            )
        )
    return told


def largest_class(counts: Sequence[int], classes: Sequence[str]) -> str:
    """What always answering the largest class scores, "" where chance scores nearly as much; `counts` [classes]."""
    share, largest = max(counts) / max(sum(counts), 1), classes[int(np.argmax(counts))]
    told = {"largest": largest, "share": float(share)}
    return say("always answering '{largest}' gives {share:.1%}", **told) if share * len(classes) > LARGE else ""


def is_uneven(counts: Sequence[int]) -> bool:
    """Whether classes, of those that have images, differ by more than UNEVEN to 1."""
    there = [count for count in counts if count]
    return max(there, default=0) > UNEVEN * min(there, default=0)


def _names(numbers: Sequence[int], classes: Sequence[str]) -> str:
    more = say(" and {more} more classes", more=len(numbers) - MOST_NAMES) if len(numbers) > MOST_NAMES else ""
    return ", ".join(f"'{classes[number]}'" for number in numbers[:MOST_NAMES]) + more
