"""What a convolution and a pooling make of an image, and what the layers of a network see."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.image import imread
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from lab.run import Run

EDGES = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])  # Sobel's, dark to bright


def convolve_and_pool(image: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray]:
    """An image [h, w, c], its edges, and these pooled 2x2, under names that state the sizes."""
    grey = torch.from_numpy(image).float().mean(2)[None]
    edges = F.conv2d(grey[None], EDGES[None, None], padding=1)[0].relu()
    smallest = min(image.shape[:2]) < 2  # a row or a column, which is pooled along
    steps = {
        "image": image,
        "3x3 edge filter, ReLU": edges[0].numpy(),
        "2x2 max pooling": F.max_pool2d(edges, 2, ceil_mode=smallest)[0].numpy(),
        "2x2 mean pooling": F.avg_pool2d(edges, 2, ceil_mode=smallest)[0].numpy(),
    }
    return {f"{name}\n{step.shape[0]}x{step.shape[1]}": step for name, step in steps.items()}


def filters(run: Run) -> tuple[str, list[npt.NDArray]] | None:
    """Name and weights of the first layer that reads pixels: [h, w] floats, or of three channels uint8 [h, w, 3].

    None where no layer does: after a HOG, say.
    """
    channels, height, width = run.classifier.example_input_array.shape[1:]
    for name, layer in run.classifier.net.named_modules():
        if isinstance(layer, nn.Conv2d):
            return f"{name} {type(layer).__name__}", [_picture(weight) for weight in layer.weight.detach()]
        if isinstance(layer, nn.Linear):
            if layer.in_features != channels * height * width:
                return None
            weights = layer.weight.detach().unflatten(1, (channels, height, width))
            return f"{name} {type(layer).__name__}", [_picture(weight) for weight in weights]
    return None


@torch.no_grad()
def feature_maps(run: Run, image: npt.NDArray[np.uint8], most: int = 16) -> dict[str, npt.NDArray]:
    """What each layer makes of an image [h, w, c] as long as it is a picture: [n, h, w], the first `most` channels."""
    maps = {}
    outputs = torch.from_numpy(image).permute(2, 0, 1)[None]
    for number, layer in enumerate(run.classifier.net):
        outputs = layer(outputs)
        if outputs.ndim != 4:
            break
        shape = "x".join(map(str, outputs.shape[1:]))
        maps[f"{number} {type(layer).__name__}: {shape}"] = outputs[0, :most].numpy()
    return maps


def to_tensorboard(folder: Path, figures: list[str]) -> None:
    """The PNG files `figures` of `folder`, by name, among its events."""
    with SummaryWriter(folder) as writer:
        for figure in figures:
            writer.add_image(figure, imread(folder / f"{figure}.png"), dataformats="HWC")


def _picture(weight: Tensor) -> npt.NDArray:
    """Of [c, h, w]: colours where there are three channels, else their mean."""
    if len(weight) != 3:
        return weight.mean(0).numpy()
    spread = (weight - weight.min()) / (weight.max() - weight.min()).clamp(min=1e-12)
    return (spread * 255).byte().permute(1, 2, 0).numpy()
