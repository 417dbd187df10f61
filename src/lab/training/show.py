"""What the data looks like, and what the layers of a network see."""

import math
from pathlib import Path
from secrets import token_hex

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.image import imread
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from lab.datasets.dataset import load as load_data
from lab.display.figures import counts, gallery, maps
from lab.display.terminal import print_classes
from lab.errors import UserError
from lab.runs.folder import read_result
from lab.training.load import load
from lab.training.prepare import Run

EDGES = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])  # Sobel's, dark to bright


def show_data(config: DictConfig, folder: Path) -> None:
    """Draw the first images, the classes, a convolution and a pooling of the data set `config`, a Data, names."""
    dataset = load_data(config)
    name, images, classes = config.name, dataset.images, dataset.classes
    shape = "x".join(map(str, dataset.shape))
    print_classes(f"{name}: {len(images):,} images of {shape}", dataset.counts(), classes)
    print(f"Pixels: {images.dtype}, from {images.min()} to {images.max()}")
    captions = [f"{classes[label]} (no. {number})" for number, label in enumerate(dataset.labels[:9])]
    steps = convolve_and_pool(images[0])
    gallery(images[:9], captions, f"{name}: the first nine images", folder / "images.png", columns=3)
    counts(dataset.counts(), classes, f"{name}: images a class", folder / "classes.png")
    title = f"{name}: what a layer does to image no. 0"
    gallery(list(steps.values()), list(steps), title, folder / "steps.png", columns=4)
    _finish(folder, ["images", "classes", "steps"])


def show_run(folder: Path, image: int, root: Path | None) -> None:
    """Draw the filters of a run's first layer, and what each layer makes of one image, into the run's folder."""
    run = load(folder, root=root)
    dataset = run.dataset
    if not 0 <= image < len(dataset.labels):
        raise UserError(f"--image {image}: must be from 0 to {len(dataset.labels) - 1}")
    result, figures = read_result(folder), ["feature_maps"]
    score = result.get("test", result.get("held_out"))["last"]["accuracy"]
    title = f"{result['model']} on {dataset.name} (accuracy {score:.2%})"
    pixels, label = dataset.images[image], dataset.classes[dataset.labels[image]]
    panels = {f"image no. {image}, class {label}": pixels} | feature_maps(run, pixels)
    maps(panels, f"{title}: what its layers make of an image", folder / "feature_maps.png")
    if first := filters(run):
        name, weights = first
        captions = [str(number) for number in range(min(len(weights), 64))]
        gallery(weights[:64], captions, f"{title}: weights of {name}", folder / "filters.png", columns=8)
        figures.append("filters")
    else:
        print("No layer reads the pixels themselves: there are no filters to show.")
    _finish(folder, figures)


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
    for name, layer in run.classifier.net.named_modules():
        if isinstance(layer, nn.Linear) and layer.in_features != math.prod(run.dataset.shape):
            return None
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weights = layer.weight.detach()
            weights = weights if weights.ndim == 4 else weights.unflatten(1, run.dataset.shape)
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


def _finish(folder: Path, figures: list[str]) -> None:
    """Put the PNG files `figures` of `folder`, by name, among its events too, and name them."""
    with SummaryWriter(folder, filename_suffix=f".{token_hex(8)}") as writer:
        for figure in figures:
            writer.add_image(figure, imread(folder / f"{figure}.png"), dataformats="HWC")
    print(f"Figures: {', '.join(f'{figure}.png' for figure in figures)} in {folder}")


def _picture(weight: Tensor) -> npt.NDArray:
    """Of [c, h, w]: colours where there are three channels, else their mean."""
    if len(weight) != 3:
        return weight.mean(0).numpy()
    spread = (weight - weight.min()) / (weight.max() - weight.min()).clamp(min=1e-12)
    return (spread * 255).byte().permute(1, 2, 0).numpy()
