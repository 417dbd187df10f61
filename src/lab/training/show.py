"""Figures of what a data set looks like, and of what the layers of a network see."""

import math
from pathlib import Path
from secrets import token_hex

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.image import imread
from omegaconf import DictConfig
from torch import nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from lab.datasets.dataset import first_of_each_class, print_counts
from lab.datasets.dataset import load as load_data
from lab.display.figures import counts, filters, gallery, maps
from lab.errors import UserError
from lab.runs.folder import read_result
from lab.training.load import load
from lab.training.prepare import Run

EDGES = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])  # Sobel's, from dark to bright
MOST_FILTERS = 64
MOST_MAPS = 16  # of a layer


def show_data(config: DictConfig, folder: Path) -> None:
    """Draw images of each class, its size, a convolution and a pooling of the data set `config`, a Data, names."""
    dataset = load_data(config)
    name, images, classes = config.name, dataset.images, dataset.classes
    print_counts(dataset, name)
    print(f"Pixels: {images.dtype}, from {images.min()} to {images.max()}")
    chosen = first_of_each_class(dataset)
    captions = [f"{classes[dataset.labels[number]]}\nno. {number}" for number in chosen.flat]
    title = f"{name}: the first training images of each class"
    gallery(images[chosen.ravel()], captions, title, folder / "images.png", columns=min(chosen.shape[1], 10))
    steps = convolve_and_pool(images[0])
    counts(dataset.counts(), classes, f"{name}: images of each class", folder / "classes.png")
    title = f"{name}: what a layer does to image no. 0 ({classes[dataset.labels[0]]})"
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
    if first := first_weights(run):
        name, weights = first
        title = f"{title}: weights of its first layer, {name}"
        filters(weights[:MOST_FILTERS], len(weights), title, folder / "filters.png")
        figures.append("filters")
    else:
        print("No layer reads the pixels themselves: there are no filters to show.")
    _finish(folder, figures)


def convolve_and_pool(image: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray]:
    """An image [h, w, c], its edges, and the edges pooled 2x2, by a name that states the size."""
    grey = torch.from_numpy(image).float().mean(2)[None, None]
    around = F.pad(grey, (1, 1, 1, 1), mode="replicate")  # zeros would be an edge
    edges = F.conv2d(around, EDGES[None, None])[0].relu()
    smallest = min(image.shape[:2]) < 2  # a row or a column, which is pooled along
    steps = {
        "image": image,
        "3x3 edge filter, ReLU": edges[0].numpy(),
        "2x2 max pooling": F.max_pool2d(edges, 2, ceil_mode=smallest)[0].numpy(),
        "2x2 mean pooling": F.avg_pool2d(edges, 2, ceil_mode=smallest)[0].numpy(),
    }
    return {f"{name}\n{step.shape[0]}x{step.shape[1]}": step for name, step in steps.items()}


def first_weights(run: Run) -> tuple[str, npt.NDArray] | None:
    """Name and weights [n, c, h, w] of the first layer that reads pixels; None where none does, after a HOG, say."""
    for name, layer in run.classifier.net.named_modules():
        if isinstance(layer, nn.Linear) and layer.in_features != math.prod(run.dataset.shape):
            return None
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weights = layer.weight.detach()
            weights = weights if weights.ndim == 4 else weights.unflatten(1, run.dataset.shape)
            return f"{type(layer).__name__} (no. {name})", weights.numpy()
    return None


@torch.no_grad()
def feature_maps(run: Run, image: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray]:
    """What each layer makes of an image [h, w, c], its first maps [n, h, w]; up to the first layer that makes none."""
    maps = {}
    outputs = torch.from_numpy(image).permute(2, 0, 1)[None]
    for number, layer in enumerate(run.classifier.net):
        outputs = layer(outputs)
        if outputs.ndim != 4:
            break
        shape, total = "x".join(map(str, outputs.shape[1:])), outputs.shape[1]
        shown = f", {MOST_MAPS} of {total} maps shown" if total > MOST_MAPS else ""
        maps[f"{number} {type(layer).__name__}: {shape}{shown}"] = outputs[0, :MOST_MAPS].float().numpy().copy()
    return maps


def _finish(folder: Path, figures: list[str]) -> None:
    """Add the PNG files called `figures` to the folder's TensorBoard events, and print their names."""
    with SummaryWriter(folder, filename_suffix=f".{token_hex(8)}") as writer:
        for figure in figures:
            writer.add_image(figure, imread(folder / f"{figure}.png"), dataformats="HWC")
    print(f"Figures: {', '.join(f'{figure}.png' for figure in figures)} in {folder}")
