"""Random changes of a batch of images, drawn anew for each image.

Our own: torchvision's transforms draw once a batch, and take ten times as long image by image.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

ASPECT = 4 / 3  # of what is cut out, at most; as torchvision's RandomResizedCrop


def augment(
    images: Tensor,
    rotation: float,
    shift: float,
    flip: bool,
    crop: float | None = None,
    brightness: float | None = None,
    contrast: float | None = None,
) -> Tensor:
    """Turn by up to `rotation` degrees, move by up to `shift` of the side, `flip`: mirror half of them left to right.

    Cut out a part of at least `crop` of the area, change `brightness` and `contrast` by up to these fractions. uint8 or
    float pixels [n, c, h, w] from 0 to 255 in, float of the same range out. Interpolation is bilinear; the border is
    repeated, as by Keras' ImageDataGenerator.
    """
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 rounds places to whole pixels
        changed = _move(images, rotation, shift, flip, crop) if rotation or shift or flip or crop else images.float()
    if not (brightness or contrast):
        return changed
    lighter, harder = (torch.rand(2, len(images), 1, 1, 1, device=images.device) * 2 - 1).unbind()
    changed = changed * (1 + lighter * (brightness or 0))
    mean = changed.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, changed, 1 + harder * (contrast or 0)).clamp(0, 255)


def mix(images: Tensor, labels: Tensor, classes: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al., 2018): a weighted mean of each image and another of the batch, and of their classes.

    Pixels [n, c, h, w] and labels [n] in, pixels and the shares of the classes [n, classes] out. The first one's weight
    is drawn from Beta(alpha, alpha).
    """
    first = torch.distributions.Beta(alpha, alpha).sample((len(images),)).to(images.device)
    other = torch.randperm(len(images)).to(images.device)
    shares = F.one_hot(labels, classes).float()
    pixels = images.float()
    return (
        torch.lerp(pixels[other], pixels, first[:, None, None, None]),
        torch.lerp(shares[other], shares, first[:, None]),
    )


def _move(images: Tensor, rotation: float, shift: float, flip: bool, crop: float | None) -> Tensor:
    """All changes that move pixels, in one interpolation."""
    n, _, height, width = images.shape
    angle, right, down, mirror = (torch.rand(4, n, device=images.device) * 2 - 1).unbind()
    angle = angle * math.radians(rotation)
    mirror = torch.where(mirror < 0, -1.0, 1.0) if flip else torch.ones_like(mirror)
    cos, sin, aspect = angle.cos(), angle.sin(), height / width
    rows = [mirror * cos, -sin * aspect, right * 2 * shift, mirror * sin / aspect, cos, down * 2 * shift]
    matrices = torch.stack(rows, 1).view(n, 2, 3)
    if crop:
        matrices = matrices @ _cut(n, crop, images.device)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def _cut(n: int, least: float, device: torch.device) -> Tensor:
    """Matrices [n, 3, 3] that enlarge a part of an image to the whole; the part's area, shape and place are random."""
    share, shape, right, down = torch.rand(4, n, device=device).unbind()
    area = least + (1 - least) * share
    ratio = (ASPECT ** (shape * 2 - 1)).clamp(area, 1 / area)  # neither side is longer than the image's
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    nothing = torch.zeros_like(width)
    rows = [width, nothing, (right * 2 - 1) * (1 - width), nothing, height, (down * 2 - 1) * (1 - height)]
    return torch.stack([*rows, nothing, nothing, torch.ones_like(width)], 1).view(n, 3, 3)
