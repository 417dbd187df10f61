"""The tables that a command prints."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from lab.data import Parts
from lab.datasets import Dataset
from lab.network import Layer

MOST_ROWS = 20


def print_data(title: str, dataset: Dataset, parts: Parts, classes: Sequence[str]) -> None:
    """Images a class in each part."""
    table = Table(title=title, title_justify="left", title_style="bold")
    counts = {part: np.bincount(dataset.labels[indices], minlength=len(classes)) for part, indices in parts.items()}
    table.add_column("class")
    for part in parts:
        table.add_column(part, justify="right")
    for number, name in enumerate(classes[:MOST_ROWS]):
        table.add_row(escape(name), *(f"{counts[part][number]:,}" for part in parts))
    if len(classes) > MOST_ROWS:
        table.add_row(f"... {len(classes) - MOST_ROWS} more")
    table.add_section()
    table.add_row("images", *(f"{len(indices):,}" for indices in parts.values()))
    Console().print(table)


def print_layers(title: str, layers: Sequence[Layer], total: int, trainable: int) -> None:
    """Keras' summary(): layer, output shape, parameters, totals as Keras counts them."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("layer")
    table.add_column("output shape")
    table.add_column("parameters", justify="right")
    for layer in layers:
        table.add_row(layer.name, "x".join(map(str, layer.shape)), f"{layer.parameters:,}" if layer.parameters else "")
    table.add_section()
    table.add_row("total", "", f"{total:,}")
    table.add_row("trainable", "", f"{trainable:,}")
    table.add_row("not trainable", "", f"{total - trainable:,}")
    Console().print(table)


def print_result(result: dict[str, Any]) -> None:
    """Loss and accuracy of each part, best and last epoch."""
    table = Table(title=f"{result['model']} on {result['data']['name']}", title_justify="left", title_style="bold")
    for column in ("part", "weights of", "images", "loss", "accuracy"):
        table.add_column(column, justify="left" if column in ("part", "weights of") else "right")
    for part in ("validation", "test"):
        for which, figures in result[part].items():
            epoch = f"{which} epoch, {figures['epoch']}"
            values = f"{figures['images']:,.0f}", f"{figures['loss']:.4f}", f"{figures['accuracy']:.2%}"
            table.add_row(part, epoch, *values)
    Console().print(table)
    print(f"{result['seconds']:.1f} s, {result['images_per_second']:,.0f} images/s in training on {result['device']}")


def print_confused(evaluation: dict[str, Any], most: int = 5) -> None:
    """The pairs of classes that are most often confused."""
    pairs = [f"{pair['class']} read as {pair['read_as']}: {_times(pair['times'])}" for pair in evaluation["confused"]]
    print(f"Most confused: {', '.join(pairs[:most])}" if pairs else "No image was read as another class.")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def warn(message: str) -> None:
    Console(stderr=True).print(Panel(message, title="WARNING", style="bold yellow"))
