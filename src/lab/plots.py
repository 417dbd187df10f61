"""Arrays in, a figure out."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # no display
from matplotlib import pyplot as plt

from lab.files import whole

BLUE, ORANGE = "#0072b2", "#e69f00"  # Okabe and Ito: told apart by the colour-blind, and in grey


def curves(history: Sequence[dict[str, float]], title: str, path: Path) -> None:
    """Loss and accuracy, training and validation, an epoch each, as labs A to E draw them."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, metric, percent in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
        for part, name, style in (("train", "training", "o-"), ("val", "validation", "s--")):
            points = [(row["epoch"], row[f"{part}_{metric}"] * percent) for row in history if f"{part}_{metric}" in row]
            if points:
                axis.plot(
                    *zip(*points, strict=True), style, color=BLUE if part == "train" else ORANGE, ms=4, label=name
                )
        axis.set_xlabel("epoch")
        axis.set_ylabel("cross-entropy loss" if metric == "loss" else "accuracy (%)")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    with whole(path) as beside:
        figure.savefig(beside, dpi=150, format="png")
    plt.close(figure)
