"""Random changes of a batch of images, drawn anew for each image."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(images: Tensor, rotation: float, shift: float, flip: bool) -> Tensor:
    """Turn by up to `rotation` degrees, move by up to `shift` of the side, mirror half of them left to right.

    uint8 or float pixels [n, c, h, w] in, float of the same range out; bilinear, the border repeats, as Keras'
    ImageDataGenerator fills.
    """
    n, _, height, width = images.shape
    angle, right, down, mirror = (torch.rand(4, n, device=images.device) * 2 - 1).unbind()
    angle = angle * math.radians(rotation)
    mirror = torch.where(mirror < 0, -1.0, 1.0) if flip else torch.ones_like(mirror)
    cos, sin, aspect = angle.cos(), angle.sin(), height / width
    rows = [mirror * cos, -sin * aspect, right * 2 * shift, mirror * sin / aspect, cos, down * 2 * shift]
    grid = F.affine_grid(torch.stack(rows, 1).view(n, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
