"""Images that are nearly the same, or that show nothing."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

BLOCK = 1024  # images compared with all others at a time: 300 MB for 70,000


def find_constant(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Numbers of the images that have one value in all pixels of each channel."""
    flat = images.reshape(len(images), -1, images.shape[-1])
    return np.flatnonzero((flat == flat[:, :1]).all((1, 2)))


def find_alike(
    images: npt.NDArray[np.uint8], least: float, advance: Callable[[int], object]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Pairs of images whose pixels have Pearson's correlation of at least `least`: first, second, correlation.

    In blocks, each of whose sizes `advance` is given. Constant images have none.
    """
    pixels = torch.from_numpy(images.reshape(len(images), -1)).float()
    pixels -= pixels.mean(1, keepdim=True)
    pixels /= pixels.norm(dim=1, keepdim=True).clamp_(min=1e-6)
    for start in range(0, len(pixels), BLOCK):
        block = pixels[start : start + BLOCK]
        alike = (block @ pixels[start:].T).triu_(1)
        first, second = (alike >= least).nonzero(as_tuple=True)
        advance(len(block))
        yield (first + start).numpy(), (second + start).numpy(), alike[first, second].numpy()
