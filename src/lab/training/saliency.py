"""Saliency: which pixels count for the class that a network names."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.models.build import Network

LEAST_SIDE = 4  # of feature maps: smaller ones do not tell one place from another
PICTURE = 3  # channels: what has more is no picture but feature maps


def find_saliency(
    net: Network, images: npt.NDArray[np.uint8], classes: npt.NDArray[np.int64]
) -> tuple[str, npt.NDArray[np.float32]]:
    """How much each pixel of images [n, h, w, c] counts for the logit of their class [n]: [n, h, w] from 0 to 1.

    By "Grad-CAM" (Selvaraju et al., 2017) of the last maps that are no smaller than LEAST_SIDE; where a network makes
    none, by the "gradient" of the pixels (Simonyan et al., 2014). The layers are a plain sequence: no hooks.
    """
    net.eval()
    pixels = torch.from_numpy(images).movedim(-1, 1)
    start, outputs, layers = net[0](pixels), net[0](pixels), list(net)[1:]
    place = 0
    with torch.no_grad():
        for number, layer in enumerate(layers, 1):
            outputs = layer(outputs)
            if outputs.ndim == 4 and outputs.shape[1] > PICTURE and min(outputs.shape[2:]) >= LEAST_SIDE:
                start, place = outputs.clone(), number  # the next layer may overwrite them
    gradient, start = _gradient(start, layers[place:], torch.from_numpy(classes))
    if place:
        found = (gradient.mean((2, 3), keepdim=True) * start).sum(1, keepdim=True).relu()
    else:
        found = gradient.abs().amax(1, keepdim=True)
    found = F.interpolate(found, images.shape[1:3], mode="bilinear", align_corners=False)[:, 0]
    highest = found.amax((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return "Grad-CAM" if place else "gradient", (found / highest).numpy()


def _gradient(start: Tensor, layers: list[nn.Module], classes: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the logits of `classes` by `start`, which `layers` turn into logits; and `start`."""
    start = start.detach().float().requires_grad_()
    outputs = start.clone()
    for layer in layers:
        outputs = layer(outputs)
    outputs.gather(1, classes[:, None]).sum().backward()
    return start.grad, start.detach()
