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
matplotlib.rcParams["figure.constrained_layout.use"] = True
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from lab.files import atomic_write

BLUE, ORANGE, GREY = "#0072b2", "#e69f00", "#999999"  # of Okabe and Ito
MOST_TICKS = 20


def curves(histories: Sequence[Sequence[dict[str, float]]], title: str, path: Path) -> None:
    """Loss and accuracy, training and validation, an epoch each, as labs A to E draw them; a line for each history."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, metric, percent in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
        for part, name, style, colour in (("train", "training", "o-", BLUE), ("val", "validation", "s--", ORANGE)):
            for history in histories:
                rows = [row for row in history if f"{part}_{metric}" in row]
                values = [row[f"{part}_{metric}"] * percent for row in rows]
                if rows:
                    axis.plot([row["epoch"] for row in rows], values, style, color=colour, ms=4, lw=1.2, label=name)
                    name = None  # one entry in the legend for all
        axis.set(xlabel="epoch", ylabel="cross-entropy loss" if metric == "loss" else "accuracy (%)")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, title, path)


def box_plot(scores: Mapping[str, Sequence[float]], ylabel: str, title: str, path: Path) -> None:
    """A box for each list of scores: quartiles and median, every score a point, the mean a diamond."""
    figure, axis = plt.subplots(figsize=(max(4.5, 1.5 * len(scores) + 2), 4.5))
    median, diamond = {"color": ORANGE, "lw": 2}, {"marker": "D", "mfc": "white", "mec": "black"}
    whole = {"widths": 0.4, "whis": (0, 100), "showmeans": True}
    axis.boxplot(list(scores.values()), tick_labels=list(scores), **whole, medianprops=median, meanprops=diamond)
    for place, values in enumerate(scores.values(), 1):
        axis.plot(np.full(len(values), place + 0.27), values, "o", color=BLUE, ms=5)
    axis.set_ylabel(ylabel)
    axis.grid(axis="y", alpha=0.3)
    _save(figure, title, path)


def intervals(estimates: Mapping[str, tuple[float, float, float]], xlabel: str, title: str, path: Path) -> None:
    """A point with its interval in each row: value, low, high."""
    figure, axis = plt.subplots(figsize=(8, 1.6 + 0.45 * len(estimates)))
    values, low, high = np.array(list(estimates.values())).T
    rows = np.arange(len(values))
    axis.errorbar(values, rows, xerr=[values - low, high - values], fmt="o", color=BLUE, capsize=4)
    for row, value in zip(rows, values, strict=True):
        axis.annotate(f"{value:.2f}", (value, row), (0, 6), textcoords="offset points", ha="center", fontsize=9)
    axis.set_yticks(rows, estimates)
    axis.set(ylim=(len(values) - 0.5, -0.6), xlabel=xlabel)
    axis.grid(axis="x", alpha=0.3)
    _save(figure, title, path)


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str, path: Path) -> None:
    """Images a cell; coloured by the share of the row, small shares spread out so that mistakes show."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(5.0, min(0.55 * len(classes) + 2, 14))
    figure, axis = plt.subplots(figsize=(side + 1, side))
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
    axis.set(xlabel="predicted class", ylabel="true class")
    figure.colorbar(image, ax=axis, label="share of the true class (%)", shrink=0.8, ticks=[0, 1, 5, 20, 50, 100])
    _save(figure, title, path)


def gallery(images: Sequence[npt.NDArray], captions: Sequence[str], title: str, path: Path, columns: int = 5) -> None:
    """Images, as show_image takes them, with a caption each."""
    rows = max(-(-len(images) // columns), 1)
    figure, axes = plt.subplots(rows, columns, figsize=(1.9 * columns, 2.25 * rows + 0.5), squeeze=False)
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        show_image(axis, image)
        axis.set_title(caption, fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    _save(figure, title, path)


def calibration(figures: dict[str, Any], title: str, path: Path) -> None:
    """Reliability plot: accuracy against the probability of the class chosen, and how many images have it."""
    bins, width = figures["bins"], 100 * figures["bin_width"]
    figure, (above, below) = plt.subplots(2, 1, figsize=(5.5, 6.5), height_ratios=(3, 1), sharex=True)
    middle = [bin["from"] * 100 + width / 2 for bin in bins]
    accuracy, confidence = ([bin[key] * 100 for bin in bins] for key in ("accuracy", "confidence"))
    above.bar(middle, accuracy, width, color=BLUE, edgecolor="white", label="accuracy")
    above.plot([0, 100], [0, 100], "--", color="black", lw=1, label="perfectly calibrated")
    above.plot(confidence, accuracy, "o", color=ORANGE, label="at the mean probability")
    above.set_ylabel("accuracy (%)")
    above.legend()
    below.bar(middle, [bin["images"] for bin in bins], width, color=GREY, edgecolor="white")
    below.set(yscale="log", ylabel="images", xlabel="probability of the class chosen (%)")
    below.set_ylim(bottom=0.5)  # a bar of one image shows
    _number_ticks(below.yaxis, "{x:,.0f}")
    _save(figure, title, path)


def counts(by_part: Mapping[str, Sequence[int]], classes: Sequence[str], title: str, path: Path) -> None:
    """Images a class, a bar for each part."""
    figure, axis = plt.subplots(figsize=(min(max(7, 0.7 * len(classes) + 2), 30), 4))
    for number, ((part, heights), colour) in enumerate(zip(by_part.items(), (BLUE, ORANGE, GREY), strict=False)):
        places = np.arange(len(classes)) + (number - (len(by_part) - 1) / 2) * 0.27
        axis.bar(places, heights, 0.27, color=colour, hatch=("", "//", "..")[number], edgecolor="white", label=part)
    if len(classes) <= MOST_TICKS:
        axis.set_xticks(range(len(classes)), classes, rotation=45 if max(map(len, classes)) > 5 else 0)
    axis.set(xlabel="class", ylabel="images")
    figure.legend(loc="outside right upper")
    _save(figure, title, path)


def maps(panels: Mapping[str, npt.NDArray], title: str, path: Path) -> None:
    """Row by row, each under its name: an image [h, w, c] in its colours, or feature maps [n, h, w] in grey."""
    rows = []
    for name, panel in panels.items():
        images = panel[None] if panel.dtype == np.uint8 else panel
        rows += [("" if start else name, images[start : start + 8]) for start in range(0, len(images), 8)]
    figure, axes = plt.subplots(len(rows), 8, figsize=(10, 1.3 * len(rows) + 0.6), squeeze=False)
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
    figure, axis = plt.subplots(figsize=(6.5, 4.2))
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
        _number_ticks(axis.xaxis)
    if len(values) <= MOST_TICKS / 2:
        axis.set_xticks(values, [f"{x:g}" for x in values])
        axis.minorticks_off()
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(alpha=0.3)
    _save(figure, title, path)


def heat_map(
    values: Sequence[Sequence[float]], ticks: Mapping[str, Sequence[str]], name: str, title: str, path: Path
) -> None:
    """Scores [rows, columns] of two swept values, the best framed; `ticks` of the rows' key, then of the columns'."""
    table, ((ylabel, rows), (xlabel, columns)) = np.array(values, float), ticks.items()
    figure, axis = plt.subplots(figsize=(max(4.5, 0.9 * len(columns) + 2.5), max(3.5, 0.6 * len(rows) + 1.8)))
    shown = axis.imshow(table, cmap="cividis", aspect="auto")
    figure.colorbar(shown, label=name)
    middle = (np.nanmin(table) + np.nanmax(table)) / 2
    for (row, column), score in np.ndenumerate(table):
        text, colour = "-" if np.isnan(score) else f"{score:.2f}", "black" if score > middle else "white"
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    row, column = np.unravel_index(np.nanargmax(table), table.shape)
    axis.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", lw=3))
    axis.set_yticks(range(len(rows)), rows)
    axis.set_xticks(range(len(columns)), columns, rotation=45 if max(map(len, columns)) > 6 else 0)
    axis.set(ylabel=ylabel, xlabel=xlabel)
    _save(figure, title, path)


def ranking(scores: Mapping[str, Sequence[float]], xlabel: str, title: str, path: Path) -> None:
    """A line for each name, the first on top: its scores as points, their mean a bar."""
    figure, axis = plt.subplots(figsize=(7, max(2.5, 0.32 * len(scores) + 1.2)))
    _draw_points(scores, axis)
    axis.set_xlabel(xlabel)
    axis.grid(alpha=0.3)
    _save(figure, title, path)


def learning_rates(rates: Sequence[float], losses: Sequence[float], chosen: float, title: str, path: Path) -> None:
    """Training loss while the learning rate grew, and the one suggested."""
    figure, axis = plt.subplots(figsize=(6.5, 4.2))
    axis.plot(rates, losses, color=BLUE, lw=1.5)
    axis.axvline(chosen, color=ORANGE, ls="--", label=f"suggested: {chosen:.2g}")
    axis.set(xscale="log", xlabel="learning rate", ylabel="cross-entropy loss, smoothed")
    axis.set_ylim(top=min(max(losses), 2 * losses[0]))
    _number_ticks(axis.xaxis)
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, title, path)


def published(rows: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Published error rates as rings, measured ones as points, a seed each; rows in two columns, logarithmic."""
    middle = (len(rows) + 1) // 2
    figure, axes = plt.subplots(1, 2, figsize=(10, max(3.0, 0.24 * middle + 1.2)))
    ring = {"mfc": "none", "mec": ORANGE, "ms": 9, "mew": 1.6}
    for axis, half in zip(axes, (rows[:middle], rows[middle:]), strict=True):
        for place, row in enumerate(half):
            errors = [max(100 - score, 0.01) for score in row["scores"]]
            axis.plot(errors, [place] * len(errors), "o", color=BLUE, ms=4, label="measured, a seed each")
            if row["published"] is not None:
                axis.plot(100 - row["published"], place, "o", label="published", **ring)
        axis.set_yticks(range(len(half)), [row["name"] for row in half], fontsize=8)
        axis.set(xscale="log", xlabel="error (%)")
        axis.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # all nine would overlap
        _number_ticks(axis.xaxis, minor="{x:g}")
        axis.tick_params(axis="x", which="both", labelsize=7)
        axis.invert_yaxis()
        axis.grid(alpha=0.3)
        if half:
            handles = dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
            axis.legend(handles.values(), handles.keys(), fontsize=8)
    _save(figure, title, path)


def rungs(rows: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Accuracy, a point a seed, parameters and seconds of each network."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 0.4 * len(rows) + 1.6), sharey=True)
    _draw_points({row["name"]: row["scores"] for row in rows}, axes[0])
    axes[0].set_xlabel("test accuracy (%), a seed each, and their mean")
    axes[1].barh(range(len(rows)), [row["parameters"] / 1000 for row in rows], color=BLUE, height=0.6)
    axes[1].set_xlabel("parameters (thousands)")
    axes[2].barh(range(len(rows)), [row["seconds"] for row in rows], color=BLUE, height=0.6)
    axes[2].set_xlabel("seconds")
    for axis in axes:
        axis.grid(alpha=0.3, axis="x")
    _save(figure, title, path)


def show_image(axis: Axes, image: npt.NDArray) -> None:
    """uint8 [h, w, 1 or 3] as it is, floats [h, w] from their least, black, to their greatest, white."""
    is_bytes = image.dtype == np.uint8
    limits = {"vmin": 0, "vmax": 255} if is_bytes else {}
    axis.imshow(image[..., 0] if is_bytes and image.shape[-1] != 3 else image, cmap="gray", **limits)


def _draw_points(scores: Mapping[str, Sequence[float]], axis: Axes) -> None:
    """A line for each name, the first on top: its scores as points, their mean a bar."""
    for place, values in enumerate(scores.values()):
        axis.plot(values, [place] * len(values), "o", color=BLUE, ms=5)
        axis.plot(np.mean(values), place, "|", color=ORANGE, ms=14, mew=3)
    axis.set_yticks(range(len(scores)), list(scores))
    axis.invert_yaxis()


def _number_ticks(axis: Axis, major: str = "{x:g}", minor: str = "") -> None:
    """Of a logarithmic axis: matplotlib's own are formulas, which are not parsed here."""
    axis.set_major_formatter(major)
    axis.set_minor_formatter(minor)


def _save(figure: Figure, title: str, path: Path) -> None:
    figure.suptitle(title, fontsize=11)
    with atomic_write(path) as beside:
        figure.savefig(beside, dpi=150, format="png")
    plt.close(figure)
