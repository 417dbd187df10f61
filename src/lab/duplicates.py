"""Images that are there twice, exactly or nearly, or that show nothing."""

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from lab.data import Parts
from lab.datasets import Dataset

BLOCK = 1024  # images compared with all others at a time: 300 MB for 70,000


def group_same(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """A number [n] for each image [n, h, w, c], the same for the same pixels."""
    known: dict[bytes, int] = {}
    prints = (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images)
    return np.array([known.setdefault(print_, len(known)) for print_ in prints], np.int64)


def find_leaked(dataset: Dataset, parts: Parts) -> npt.NDArray[np.bool_]:
    """Which images of the training part, [n], are also in the validation or the test part."""
    groups = group_same(dataset.images)
    held_out = np.concatenate([groups[indices] for part, indices in parts.items() if part != "train"])
    return np.isin(groups[parts["train"]], held_out)


def find_constant(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Those of one value in all pixels of each channel."""
    flat = images.reshape(len(images), -1, images.shape[-1])
    return np.flatnonzero((flat == flat[:, :1]).all((1, 2)))


def find_alike(
    images: npt.NDArray[np.uint8], least: float, tell: Callable[[int], object]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Pairs of images whose pixels have Pearson's correlation of at least `least`: first, second, correlation.

    In blocks, whose sizes it will `tell`. Constant images have none.
    """
    pixels = torch.from_numpy(images.reshape(len(images), -1)).float()
    pixels -= pixels.mean(1, keepdim=True)
    pixels /= pixels.norm(dim=1, keepdim=True).clamp_(min=1e-6)
    for start in range(0, len(pixels), BLOCK):
        block = pixels[start : start + BLOCK]
        alike = (block @ pixels[start:].T).triu_(1)
        first, second = (alike >= least).nonzero(as_tuple=True)
        tell(len(block))
        yield (first + start).numpy(), (second + start).numpy(), alike[first, second].numpy()
