"""Images that are the same, or nearly, or that show nothing."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch

from lab.datasets.pictures import blocks

BLOCK = 1024  # images compared with all others at a time: 300 MB for 70,000
MOST_PAIRS = 1000  # nearly the same, that are kept


def find_constant(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The numbers of images that have one value in all pixels of each channel."""
    constant = [(some == some[:, :1, :1]).all((1, 2, 3)) for some in blocks(images)]
    return np.flatnonzero(np.concatenate(constant))


def find_same(groups: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """All pairs within each group, `groups` [n] as of dataset.group_same; in a large group each with the first."""
    order = np.argsort(groups, kind="stable")
    found: list[tuple[int, int]] = []
    for group in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        members = group.tolist()
        found += combinations(members, 2) if len(members) <= 10 else ((members[0], other) for other in members[1:])
    return sorted(found)


def find_alike(
    images: npt.NDArray[np.uint8],
    groups: npt.NDArray[np.int64],
    part_of: npt.NDArray[np.int64],
    least: float,
    advance: Callable[[int], object],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Pairs of images of different groups whose pixels have a Pearson correlation of `least` or more.

    Give how many there are, [parts, parts], by the parts of both, numbers in `part_of` [n], the smaller first; and the
    nearest, [n, 3]: first image, second, correlation. Constant images have no correlation. `advance` is called with how
    many images have been compared with all others.
    """
    pixels = torch.from_numpy(images.reshape(len(images), -1)).float()
    pixels -= pixels.mean(1, keepdim=True)
    pixels /= pixels.norm(dim=1, keepdim=True).clamp_(min=1e-6)
    counts, nearest = np.zeros((part_of.max() + 1,) * 2, np.int64), np.zeros((0, 3))
    for start in range(0, len(pixels), BLOCK):
        block = pixels[start : start + BLOCK]
        alike = (block @ pixels[start:].T).triu_(1)
        first, second = (numbers.numpy() for numbers in (alike >= least).nonzero(as_tuple=True))
        pairs = np.column_stack([first + start, second + start, alike.numpy()[first, second]])
        pairs = pairs[groups[first + start] != groups[second + start]]
        np.add.at(counts, tuple(np.sort(part_of[pairs[:, :2].astype(int)]).T), 1)
        nearest = np.concatenate([nearest, pairs])
        nearest = nearest[np.argsort(-nearest[:, 2], kind="stable")[:MOST_PAIRS]]
        advance(len(block))
    return counts, nearest
