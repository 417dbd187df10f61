"""Arrays in, a figure to hand in out: 150 dots an inch, told apart by the colour-blind and in grey."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt

matplotlib.rcdefaults()  # whatever a matplotlibrc in the current directory says
matplotlib.use("agg")  # no display
matplotlib.rcParams["text.parse_math"] = False  # a class may be named $
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from lab.files import atomic_write

BLUE, ORANGE, GREY = "#0072b2", "#e69f00", "#999999"  # of Okabe and Ito
MOST_TICKS = 20


def curves(histories: Sequence[Sequence[dict[str, float]]], title: str, path: Path) -> None:
    """Loss and accuracy, training and validation, an epoch each, as labs A to E draw them; a line for each history."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, metric, percent in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
        for part, name, style in (("train", "training", "o-"), ("val", "validation", "s--")):
            for history in histories:
                rows = [row for row in history if f"{part}_{metric}" in row]
                values = [row[f"{part}_{metric}"] * percent for row in rows]
                if rows:
                    colour = BLUE if part == "train" else ORANGE
                    axis.plot([row["epoch"] for row in rows], values, style, color=colour, ms=4, lw=1.2, label=name)
                    name = None  # one entry in the legend for all
        axis.set_xlabel("epoch")
        axis.set_ylabel("cross-entropy loss" if metric == "loss" else "accuracy (%)")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, title, path)


def box_plot(scores: Mapping[str, Sequence[float]], ylabel: str, title: str, path: Path) -> None:
    """A box for each list of scores: quartiles and median, every score a point, the mean a diamond."""
    figure, axis = plt.subplots(figsize=(max(4.5, 1.5 * len(scores) + 2), 4.5), layout="constrained")
    axis.boxplot(
        list(scores.values()),
        tick_labels=list(scores),
        widths=0.4,
        whis=(0, 100),
        showmeans=True,
        medianprops={"color": ORANGE, "lw": 2},
        meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": "black"},
    )
    for place, values in enumerate(scores.values(), 1):
        axis.plot(np.full(len(values), place + 0.27), values, "o", color=BLUE, ms=5)
    axis.set_ylabel(ylabel)
    axis.grid(axis="y", alpha=0.3)
    _save(figure, title, path)


def intervals(estimates: Mapping[str, tuple[float, float, float]], xlabel: str, title: str, path: Path) -> None:
    """A point with its interval in each row: value, low, high."""
    figure, axis = plt.subplots(figsize=(8, 1.6 + 0.45 * len(estimates)), layout="constrained")
    values, low, high = np.array(list(estimates.values())).T
    rows = np.arange(len(values))
    axis.errorbar(values, rows, xerr=[values - low, high - values], fmt="o", color=BLUE, capsize=4)
    for row, value in zip(rows, values, strict=True):
        axis.annotate(f"{value:.2f}", (value, row), (0, 6), textcoords="offset points", ha="center", fontsize=9)
    axis.set_yticks(rows, estimates)
    axis.set_ylim(len(values) - 0.5, -0.6)
    axis.set_xlabel(xlabel)
    axis.grid(axis="x", alpha=0.3)
    _save(figure, title, path)


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str, path: Path) -> None:
    """Images a cell; coloured by the share of the row, small shares spread out so that mistakes show."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(5.0, min(0.55 * len(classes) + 2, 14))
    figure, axis = plt.subplots(figsize=(side + 1, side), layout="constrained")
    image = axis.imshow(shares * 100, cmap="Blues", norm=PowerNorm(0.35, 0, 100))
    if len(classes) <= MOST_TICKS:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.3 else "black"
            if count:
                cell = axis.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=8)
                cell.set_in_layout(False)  # it lies within the axes: measuring it takes half the time of drawing
        ticks, tilt = range(len(classes)), 45 if max(map(len, classes)) > 3 else 0
        axis.set_xticks(ticks, classes, rotation=tilt, ha="right" if tilt else "center")
        axis.set_yticks(ticks, classes)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    figure.colorbar(image, ax=axis, label="share of the true class (%)", shrink=0.8, ticks=[0, 1, 5, 20, 50, 100])
    _save(figure, title, path)


def gallery(images: Sequence[npt.NDArray], captions: Sequence[str], title: str, path: Path, columns: int = 5) -> None:
    """Images, as show_image takes them, with a caption each."""
    rows = max(-(-len(images) // columns), 1)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.9 * columns, 2.25 * rows + 0.5), layout="constrained", squeeze=False
    )
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        show_image(axis, image)
        axis.set_title(caption, fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    _save(figure, title, path)


def calibration(figures: dict[str, Any], title: str, path: Path) -> None:
    """Reliability plot: accuracy against the probability of the class chosen, and how many images have it."""
    bins, width = figures["bins"], 100 * figures["bin_width"]
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(5.5, 6.5), layout="constrained", height_ratios=(3, 1), sharex=True
    )
    middle = [bin["from"] * 100 + width / 2 for bin in bins]
    above.bar(middle, [bin["accuracy"] * 100 for bin in bins], width, color=BLUE, edgecolor="white", label="accuracy")
    above.plot([0, 100], [0, 100], "--", color="black", lw=1, label="perfectly calibrated")
    above.plot(
        [bin["confidence"] * 100 for bin in bins],
        [bin["accuracy"] * 100 for bin in bins],
        "o",
        color=ORANGE,
        label="at the mean",
    )
    above.set_ylabel("accuracy (%)")
    above.legend()
    below.bar(middle, [bin["images"] for bin in bins], width, color=GREY, edgecolor="white")
    below.set_yscale("log")
    below.yaxis.set_major_formatter("{x:,.0f}")
    below.set_ylabel("images")
    below.set_xlabel("probability of the class chosen (%)")
    _save(figure, title, path)


def counts(by_part: Mapping[str, Sequence[int]], classes: Sequence[str], title: str, path: Path) -> None:
    """Images a class, a bar for each part."""
    figure, axis = plt.subplots(figsize=(min(max(7, 0.7 * len(classes) + 2), 30), 4), layout="constrained")
    for number, ((part, heights), colour) in enumerate(zip(by_part.items(), (BLUE, ORANGE, GREY), strict=False)):
        places = np.arange(len(classes)) + (number - (len(by_part) - 1) / 2) * 0.27
        axis.bar(places, heights, 0.27, color=colour, hatch=("", "//", "..")[number], edgecolor="white", label=part)
    if len(classes) <= MOST_TICKS:
        axis.set_xticks(range(len(classes)), classes, rotation=45 if max(map(len, classes)) > 5 else 0)
    axis.set_xlabel("class")
    axis.set_ylabel("images")
    figure.legend(loc="outside right upper")
    _save(figure, title, path)


def maps(panels: Mapping[str, npt.NDArray], title: str, path: Path) -> None:
    """Row by row, each under its name: an image [h, w, c] in its colours, or feature maps [n, h, w] in grey."""
    rows = []
    for name, panel in panels.items():
        grey = panel.dtype != np.uint8
        rows += (
            [(name if not start else "", panel[start : start + 8]) for start in range(0, len(panel), 8)]
            if grey
            else [(name, panel[None])]
        )
    figure, axes = plt.subplots(len(rows), 8, figsize=(10, 1.3 * len(rows) + 0.6), layout="constrained", squeeze=False)
    for line, (name, images) in zip(axes, rows, strict=True):
        line[0].set_title(name, fontsize=9, loc="left")
        for axis, image in zip(line, images, strict=False):
            show_image(axis, image)
        for axis in line:
            axis.axis("off")
    _save(figure, title, path)


def response(
    lines: Mapping[str, Sequence[tuple[float, float]]], xlabel: str, log: bool, ylabel: str, title: str, path: Path
) -> None:
    """What a value swept does: points (value, score), a line for each seed, their mean thick."""
    figure, axis = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    several = len(lines) > 1
    for (seed, points), style in zip(lines.items(), itertools.cycle(("o-", "s-", "^-", "v-", "D-")), strict=False):
        label = f"seed {seed}" if several else None
        axis.plot(*zip(*points, strict=True), style, color=GREY if several else BLUE, ms=5, lw=1.2, label=label)
    values = sorted({x for points in lines.values() for x, _ in points})
    if several:
        scores = {x: [y for points in lines.values() for value, y in points if value == x] for x in values}
        axis.plot(values, [np.mean(scores[x]) for x in values], "-", color=BLUE, lw=2.5, label="mean")
        axis.legend()
    if log:
        axis.set_xscale("log")
    if len(values) <= MOST_TICKS / 2:
        axis.set_xticks(values, [f"{x:g}" for x in values])
        axis.minorticks_off()
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(alpha=0.3)
    _save(figure, title, path)


def heat_map(
    values: Sequence[Sequence[float]],
    ticks: Sequence[Sequence[str]],
    labels: Sequence[str],
    name: str,
    title: str,
    path: Path,
) -> None:
    """Scores [rows, columns] of two swept values, the best framed; `ticks` and `labels` of rows, then of columns."""
    table = np.array(values, float)
    size = (max(4.5, 0.9 * table.shape[1] + 2.5), max(3.5, 0.6 * table.shape[0] + 1.8))
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    shown = axis.imshow(table, cmap="cividis", aspect="auto")
    figure.colorbar(shown, label=name)
    darkest, brightest = np.nanmin(table), np.nanmax(table)
    for (row, column), score in np.ndenumerate(table):
        bright = score > (darkest + brightest) / 2
        text = "-" if np.isnan(score) else f"{score:.2f}"
        axis.text(column, row, text, ha="center", va="center", color="black" if bright else "white", fontsize=9)
    row, column = np.unravel_index(np.nanargmax(table), table.shape)
    axis.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", lw=3))
    axis.set_yticks(range(len(ticks[0])), ticks[0])
    axis.set_xticks(range(len(ticks[1])), ticks[1], rotation=45 if max(map(len, ticks[1])) > 6 else 0)
    axis.set_ylabel(labels[0])
    axis.set_xlabel(labels[1])
    _save(figure, title, path)


def ranking(scores: Mapping[str, Sequence[float]], xlabel: str, title: str, path: Path) -> None:
    """A line for each name, the first on top: its scores as points, their mean a bar."""
    figure, axis = plt.subplots(figsize=(7, max(2.5, 0.32 * len(scores) + 1.2)), layout="constrained")
    for place, values in enumerate(scores.values()):
        axis.plot(values, [place] * len(values), "o", color=BLUE, ms=5)
        axis.plot(np.mean(values), place, "|", color=ORANGE, ms=14, mew=3)
    axis.set_yticks(range(len(scores)), list(scores))
    axis.invert_yaxis()
    axis.set_xlabel(xlabel)
    axis.grid(alpha=0.3)
    _save(figure, title, path)


def learning_rates(rates: Sequence[float], losses: Sequence[float], chosen: float, title: str, path: Path) -> None:
    """Training loss while the learning rate grew, and the one suggested."""
    figure, axis = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    axis.plot(rates, losses, color=BLUE, lw=1.5)
    axis.axvline(chosen, color=ORANGE, ls="--", label=f"suggested: {chosen:.2g}")
    axis.set_xscale("log")
    axis.set_ylim(top=min(max(losses), 2 * losses[0]))
    axis.set_xlabel("learning rate")
    axis.set_ylabel("cross-entropy loss, smoothed")
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, title, path)


def published(rows: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Published error rates as rings, measured ones as points, a seed each; rows in two columns, logarithmic."""
    halves = [rows[: (len(rows) + 1) // 2], rows[(len(rows) + 1) // 2 :]]
    height = max(3.0, 0.24 * len(halves[0]) + 1.2)
    figure, axes = plt.subplots(1, 2, figsize=(10, height), layout="constrained", squeeze=False)
    for axis, half in zip(axes[0], halves, strict=True):
        for place, row in enumerate(half):
            errors = [max(100 - score, 0.01) for score in row["scores"]]
            axis.plot(errors, [place] * len(errors), "o", color=BLUE, ms=4, label="measured, a seed each")
            if row["published"] is not None:
                ring = {"mfc": "none", "mec": ORANGE, "ms": 9, "mew": 1.6}
                axis.plot(100 - row["published"], place, "o", label="published", **ring)
        axis.set_yticks(range(len(half)), [row["name"] for row in half], fontsize=8)
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 4, 6)))  # all nine would overlap
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("{x:g}")
        axis.tick_params(axis="x", which="both", labelsize=7)
        axis.invert_yaxis()
        axis.set_xlabel("error (%)")
        axis.grid(alpha=0.3)
        handles = dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
        if handles:
            axis.legend(handles.values(), handles.keys(), fontsize=8)
    _save(figure, title, path)


def rungs(rows: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Accuracy, a point a seed, parameters and seconds of each network."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 0.4 * len(rows) + 1.6), sharey=True, layout="constrained")
    for place, row in enumerate(rows):
        axes[0].plot(row["scores"], [place] * len(row["scores"]), "o", color=BLUE, ms=5)
        axes[0].plot(np.mean(row["scores"]), place, "|", color=ORANGE, ms=16, mew=3)
    for axis, key, label in ((axes[1], "parameters", "parameters (thousands)"), (axes[2], "seconds", "seconds")):
        scale = 1000 if key == "parameters" else 1
        axis.barh(range(len(rows)), [row[key] / scale for row in rows], color=BLUE, height=0.6)
        axis.set_xlabel(label)
    axes[0].set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes[0].invert_yaxis()
    axes[0].set_xlabel("test accuracy (%), a seed each, and their mean")
    for axis in axes:
        axis.grid(alpha=0.3, axis="x")
    _save(figure, title, path)


def show_image(axis: Axes, image: npt.NDArray) -> None:
    """uint8 [h, w, 1 or 3] as it is, floats [h, w] from their least, black, to their greatest, white."""
    is_bytes = image.dtype == np.uint8
    limits = {"vmin": 0, "vmax": 255} if is_bytes else {}
    axis.imshow(image[..., 0] if is_bytes and image.shape[-1] != 3 else image, cmap="gray", **limits)


def _save(figure: Figure, title: str, path: Path) -> None:
    figure.suptitle(title, fontsize=11)
    with atomic_write(path) as beside:
        figure.savefig(beside, dpi=150, format="png")
    plt.close(figure)
