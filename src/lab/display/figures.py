"""Figures from arrays, to hand in: 150 dots an inch, in colours that the colour-blind and a grey print tell apart."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt

matplotlib.rcdefaults()  # whatever a matplotlibrc in the current directory says
matplotlib.use("agg")  # no display
matplotlib.rcParams["text.parse_math"] = False  # a class may be named $
matplotlib.rcParams["figure.constrained_layout.use"] = True
matplotlib.rcParams["axes.formatter.useoffset"] = False  # 98.1 and 98.2, not 0.1 and 0.2 beside "+98"
matplotlib.rcParams["axes.unicode_minus"] = False  # 1e-06, as it is typed
matplotlib.rcParams["axes.axisbelow"] = True  # no grid over bars
matplotlib.rcParams["svg.fonttype"] = "none"  # letters stay letters, of whatever script
matplotlib.rcParams["svg.hashsalt"] = "lab"  # the same figure, the same bytes
matplotlib.rcParams["font.sans-serif"].insert(1, "Arial")  # for an SVG where there is no DejaVu
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, Formatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lab.display.language import localise, number, say, spoken, translate
from lab.files import atomic_write

BLUE, ORANGE, GREY = "#0072b2", "#e69f00", "#999999"  # of Okabe and Ito
MOST_TICKS = 20
MOST_CLASSES = 100  # whose names fit beside a matrix
LONG = 20  # letters of a class's name, from which on it is clipped
BELOW = {"loc": "outside lower center", "ncols": 4, "fontsize": 9, "frameon": False}  # a legend that hides nothing
PAGE = 8.3, 11.7  # inches
OWN_SCALE = "each map from its least value, black, to its greatest, white"


def curves(histories: Sequence[Sequence[dict[str, float]]], title: str, path: Path) -> None:
    """Loss and accuracy by epoch, of training and validation, as labs A to E draw them; a line for each history."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    epochs = [row["epoch"] for history in histories for row in history]
    size = 4 if max(epochs) - min(epochs) < 40 else 0
    of_all = say(", each of {folds} folds", folds=len(histories)) if len(histories) > 1 else ""
    for axis, metric, percent in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
        for part, name, style, colour in (("train", "training", "o-", BLUE), ("val", "validation", "s--", ORANGE)):
            label = translate(name) + of_all
            for history in histories:
                rows = [row for row in history if f"{part}_{metric}" in row]
                values = [row[f"{part}_{metric}"] * percent for row in rows]
                if rows:
                    axis.plot([row["epoch"] for row in rows], values, style, color=colour, ms=size, lw=1.2, label=label)
                    label = None  # one entry in the legend for all
        axis.set(xlabel=say("epoch"), ylabel=say("cross-entropy loss") if metric == "loss" else say("accuracy (%)"))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        if max(epochs) - min(epochs) < 10:  # a single one stands in the middle
            axis.set_xticks(range(int(min(epochs)), int(max(epochs)) + 1))
            axis.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, title, path)


def box_plot(scores: Mapping[str, Sequence[float]], xlabel: str, title: str, path: Path) -> None:
    """A box for each list of scores, the first on top, with quartiles, median and mean; each score is a point."""
    figure, axis = plt.subplots(figsize=(8, 1.8 + 0.6 * len(scores)))
    median, diamond = {"color": ORANGE, "lw": 2}, {"marker": "D", "mfc": "white", "mec": "black"}
    whole = {"widths": 0.4, "whis": (0, 100), "showmeans": True, "orientation": "horizontal"}
    names = [textwrap.fill(name, 2 * LONG) for name in scores]
    parts = axis.boxplot(list(scores.values()), tick_labels=names, **whole, medianprops=median, meanprops=diamond)
    for place, values in enumerate(scores.values(), 1):
        (points,) = axis.plot(values, np.full(len(values), place + 0.32), "o", color=BLUE, ms=5)
    axis.set(xlabel=xlabel, ylim=(len(scores) + 0.6, 0.6))
    axis.grid(axis="x", alpha=0.3)
    handles = {say("a fold each"): points, say("mean"): parts["means"][0], say("median"): parts["medians"][0]}
    handles[say("box: the middle half")] = plt.Rectangle((0, 0), 1, 1, fill=False)
    figure.legend(handles.values(), handles.keys(), **BELOW)
    _save(figure, title, path)


def intervals(estimates: Mapping[str, tuple[float, float, float]], xlabel: str, title: str, path: Path) -> None:
    """A row for each estimate, (value, low, high): a point with its interval."""
    figure, axis = plt.subplots(figsize=(8, 1.3 + 0.4 * len(estimates)))
    values, low, high = np.array(list(estimates.values())).T
    rows = np.arange(len(values))
    axis.errorbar(values, rows, xerr=[values - low, high - values], fmt="o", color=BLUE, capsize=4)
    _write_scores(axis, values)
    axis.set_yticks(rows, [textwrap.fill(name, 2 * LONG) for name in estimates])
    axis.set(ylim=(len(values) - 0.5, -0.5), xlabel=xlabel)
    axis.grid(axis="x", alpha=0.3)
    _save(figure, title, path)


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str, path: Path) -> None:
    """A confusion matrix: in each cell images and their share of the row, which colours it; mistakes show."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(5.0, min(0.55 * len(classes) + 2, 14))
    figure, axis = plt.subplots(figsize=(side + 1, side), layout="compressed")
    image = axis.imshow(shares * 100, cmap="Blues", norm=PowerNorm(0.35, 0, 100))
    names, cell = [_clip(name) for name in classes], (side - 2) / len(classes)  # inches
    if len(classes) <= MOST_TICKS:
        size = min(max(13 * cell, 7), 12)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.3 else "black"
            if count:
                told = f"{number(int(count))}\n{number(shares[row, column], '.1%')}"
                centred = {"ha": "center", "va": "center", "linespacing": 1.3}
                text = axis.text(column, row, told, color=colour, fontsize=size, **centred)
                text.set_in_layout(False)  # it lies within the axes: measuring it takes half the time of drawing
    if len(classes) <= MOST_CLASSES:
        _name_columns(axis, names, cell, min(10, 50 * cell))
        axis.set_yticks(range(len(classes)), names, fontsize=min(10, 50 * cell))
    axis.set(xlabel=say("predicted class"), ylabel=say("true class"))
    told = say("share of the row, the images of a true class (%);\nsmall shares are spread out, so that mistakes show")
    figure.colorbar(image, ax=axis, label=told, shrink=0.8, ticks=[0, 1, 5, 20, 50, 100])
    cells = ": images, and their share of the row" if len(classes) <= MOST_TICKS else ""
    _save(figure, f"{title}\nconfusion matrix{cells}", path)


def gallery(images: Sequence[npt.NDArray], captions: Sequence[str], title: str, path: Path, columns: int = 5) -> None:
    """Images, as show_image takes them, with a caption each."""
    columns = max(min(columns, len(images)), 1)
    rows, side = max(math.ceil(len(images) / columns), 1), min(1.9, 10 / columns)
    captions = ["\n".join(_wrap(caption, int(side * 13))) for caption in captions]
    height, width = images[0].shape[:2] if len(images) else (1, 1)
    below = max([0, *(caption.count("\n") + 1 for caption in captions)])
    size = max(columns * side, 3.8), rows * (side * min(height / width, 2) + 0.17 * below + 0.1) + 0.35
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    figure.get_layout_engine().set(h_pad=0.07)  # room between a title and captions
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        show_image(axis, image)
        axis.set_title(caption, fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    _save(figure, title, path)


def calibration(figures: dict[str, Any], title: str, path: Path) -> None:
    """A reliability plot: accuracy by the probability of the class chosen, and how many images have that.

    `figures` are those of evaluation.metrics.calibration.
    """
    bins, width = figures["bins"], 100 * figures["bin_width"]
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.5, 6.5), height_ratios=(3, 1), sharex=True)
    middle = [bin["from"] * 100 + width / 2 for bin in bins]
    accuracy, confidence = ([bin[key] * 100 for bin in bins] for key in ("accuracy", "confidence"))
    above.bar(middle, accuracy, width, color=BLUE, edgecolor="white", label=say("accuracy of the images in a bar"))
    above.plot([0, 100], [0, 100], "--", color="black", lw=1, label=say("perfectly calibrated"))
    ring = {"mfc": "white", "mec": ORANGE, "mew": 2, "ms": 6}
    above.plot(confidence, accuracy, "o", label=say("the same, at their mean confidence"), clip_on=False, **ring)
    above.set(ylabel=say("accuracy (%): how often it is right"), ylim=(0, 103))
    above.legend(loc="upper left", fontsize=9)
    below.bar(middle, [bin["images"] for bin in bins], width, color=GREY, edgecolor="white")
    below.set(yscale="log", xlim=(0, 100), ylabel=say("images (log)"))
    below.set_xlabel(say("confidence (%): probability that it gives the class chosen"))
    below.set_ylim(bottom=0.5)  # a bar of one image shows
    _number_ticks(below.yaxis, "{x:,.0f}", each=(1,))
    error = f"expected calibration error {figures['expected_calibration_error']:.2%}"
    _save(figure, f"{title}\ncalibration: is it right as often as it is sure?\n{error}", path)


def counts(by_part: Mapping[str, Sequence[int]], classes: Sequence[str], title: str, path: Path) -> None:
    """How many images each class has, a bar for each part."""
    width = min(max(7, 0.7 * len(classes) + 2), 30)
    figure, axis = plt.subplots(figsize=(width, 4))
    for bar, ((part, heights), colour) in enumerate(zip(by_part.items(), (BLUE, ORANGE, GREY), strict=False)):
        places = np.arange(len(classes)) + (bar - (len(by_part) - 1) / 2) * 0.27
        hatched = {"color": colour, "hatch": ("", "//", "..")[bar], "edgecolor": "white"}
        axis.bar(places, heights, 0.27, label=translate(part), **hatched)
    names = [_clip(name) for name in classes]
    if len(classes) <= MOST_TICKS:
        _name_columns(axis, names, (width - 1) / len(classes))
    axis.set(xlabel=say("class"), ylabel=say("images"))
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.grid(axis="y", alpha=0.3)
    figure.legend(**BELOW)
    _save(figure, title, path)


def maps(panels: Mapping[str, npt.NDArray], title: str, path: Path) -> None:
    """One page of panels, each under its name: an image [h, w, c] in its colours, or feature maps [n, h, w] in grey."""
    images = {name: panel[None] if panel.dtype == np.uint8 else panel for name, panel in panels.items()}
    for columns in (8, 16):
        rows = [math.ceil(len(panel) / columns) * panel.shape[1] / panel.shape[2] for panel in images.values()]
        heights = [row * (PAGE[0] - 0.3) / columns + 0.3 for row in rows]
        if sum(heights) + 0.6 <= PAGE[1]:
            break
    size = PAGE[0], min(sum(heights) + 0.6, PAGE[1])
    figure, axes = plt.subplots(len(images), 1, figsize=size, height_ratios=heights, squeeze=False)
    for axis, (name, panel) in zip(axes.flat, images.items(), strict=True):
        if panel.dtype == np.uint8:
            show_image(axis, _mosaic(panel, columns, white=255))
        else:
            least, greatest = panel.min((1, 2), keepdims=True), panel.max((1, 2), keepdims=True)
            show_image(axis, _mosaic((panel - least) / np.maximum(greatest - least, 1e-12), columns))
        axis.set_title(name, fontsize=8, loc="left", pad=2)
        axis.set_anchor("W")
        axis.axis("off")
    _save(figure, f"{title}\n{OWN_SCALE}", path)


def filters(weights: npt.NDArray, total: int, title: str, path: Path) -> None:
    """Weights [n, c, h, w] of the first of `total` filters, on one scale: three channels in colour, else their mean."""
    limit = float(np.abs(weights).max()) or 1.0
    is_colour = weights.shape[1] == 3
    images = (weights.transpose(0, 2, 3, 1) / limit + 1) / 2 if is_colour else weights.mean(1)
    limit = limit if is_colour else float(np.abs(images).max()) or 1.0
    number, (height, width) = len(images), images.shape[1:3]
    fitting = range(max(math.isqrt(number), 1), math.isqrt(2 * number) + 2)
    columns = min(fitting, key=lambda count: (-number % count, abs(count - math.sqrt(1.5 * number))))
    rows, side = math.ceil(number / columns), min(1.4, 7.5 / columns)
    size = max(side * columns + 2, 5), max(side * rows * height / width, 1.5) + 0.6
    figure, axis = plt.subplots(figsize=size, layout="compressed")  # for axes of a fixed shape
    scale = {"cmap": "gray", "vmin": -limit, "vmax": limit}
    mosaic = _mosaic(images, columns, 1 if is_colour else np.nan)
    shown = axis.imshow(mosaic, interpolation="nearest", **scale)
    named = [f"from no. {start}" for start in range(0, number, columns)]
    axis.set_yticks((np.arange(rows) + 0.5) * len(mosaic) / rows - 0.5, named, fontsize=8)
    axis.xaxis.set_major_locator(NullLocator())
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    of_colour = "red, green and blue each: weight from dark to bright" if is_colour else "weight"
    figure.colorbar(shown, ax=axis, label=of_colour, shrink=0.9, fraction=0.05, format="{x:.2g}")
    _save(figure, title if total == number else f"{title}\n{number} of {total} shown", path)


def response(
    scores: Mapping[float, Sequence[float]], xlabel: str, log: bool, ylabel: str, title: str, path: Path
) -> None:
    """What a swept value does: a point for each score, a run each; a line joins their means, with their spread."""
    figure, axis = plt.subplots(figsize=(6.5, 4.2))
    values = sorted(scores)
    means = [float(np.mean(scores[value])) for value in values]
    places, points = zip(*((value, score) for value in values for score in scores[value]), strict=True)
    if len(points) > len(values):
        deviations = [float(np.std(scores[value], ddof=1)) if len(scores[value]) > 1 else 0.0 for value in values]
        ring = {"color": GREY, "mec": "black", "mew": 0.5, "ms": 5, "zorder": 3}
        axis.plot(places, points, "o", **ring, label=say("a run each"))
        label = say("their mean ± standard deviation")
        axis.errorbar(values, means, deviations, fmt="-", color=BLUE, lw=1.8, capsize=4, label=label)
        axis.legend()
    else:
        axis.plot(values, means, "o-", color=BLUE, ms=5, lw=1.2)
    if log:
        axis.set_xscale("log")
        _number_ticks(axis.xaxis)
    if len(values) <= MOST_TICKS / 2:
        axis.set_xticks(values, _thin(np.log(values) if log else values, [number(x, "g") for x in values]))
        axis.minorticks_off()
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=_limits(points))
    axis.grid(alpha=0.3)
    _save(figure, title, path)


def spread(scores: Mapping[str, Sequence[float]], xlabel: str, ylabel: str, title: str, path: Path) -> None:
    """A point for each score of each seed, with mean and standard deviation; no line, for seeds have no order."""
    figure, axis = plt.subplots(figsize=(6.5, 4.2))
    places = [place for place, of_seed in enumerate(scores.values()) for _ in of_seed]
    values = [score for of_seed in scores.values() for score in of_seed]
    axis.plot(places, values, "o", color=BLUE, ms=6)
    if len(values) > 1:
        mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
        axis.axhline(mean, color=BLUE, lw=1.2, label=say("mean {mean:.2f}", mean=mean))
        label = say("± standard deviation {deviation:.2f}", deviation=deviation)
        axis.axhspan(mean - deviation, mean + deviation, color=GREY, alpha=0.25, lw=0, label=label)
        axis.legend()
    every = math.ceil(len(scores) / MOST_TICKS)
    axis.set_xticks(range(0, len(scores), every), list(scores)[::every])
    axis.set(xlabel=xlabel, ylabel=ylabel, xlim=(-0.5, len(scores) - 0.5), ylim=_limits(values))
    axis.grid(alpha=0.3, axis="y")
    _save(figure, title, path)


def heat_map(
    values: Sequence[Sequence[float]],
    rows: tuple[str, Sequence[str]],
    columns: tuple[str, Sequence[str]],
    name: str,
    title: str,
    path: Path,
    best: tuple[int, int] | None = None,
) -> None:
    """Scores [rows, columns] of two swept keys, the `best` framed; `rows` and `columns` are a label and the values."""
    table, (ylabel, rows), (xlabel, columns) = np.array(values, float), rows, columns
    figure, axis = plt.subplots(figsize=(max(4.5, 0.9 * len(columns) + 2.5), max(3.5, 0.6 * len(rows) + 1.8)))
    shown = axis.imshow(table, cmap="cividis", aspect="auto")
    figure.colorbar(shown, label=name)
    middle = (np.nanmin(table) + np.nanmax(table)) / 2
    for (row, column), score in np.ndenumerate(table):
        text, colour = "-" if np.isnan(score) else number(score, ".2f"), "white" if score <= middle else "black"
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    if best:
        row, column = best
        frame = {"fill": False, "edgecolor": "black", "lw": 3, "clip_on": False}
        axis.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, **frame))
    axis.set_yticks(range(len(rows)), [_clip(row) for row in rows])
    _name_columns(axis, [_clip(column) for column in columns], 0.8)
    axis.set(ylabel=ylabel, xlabel=xlabel)
    _save(figure, f"{title}\nframed: the best" if best else title, path)


def ranking(scores: Mapping[str, Sequence[float]], xlabel: str, title: str, path: Path) -> None:
    """A line for each name, the first on top: a point for each score, a bar for their mean, and the mean in figures."""
    figure, axis = plt.subplots(figsize=(7, max(2.2, 0.32 * len(scores) + 1.2)))
    _draw_points(scores, axis)
    _write_scores(axis, [float(np.mean(values)) for values in scores.values()])
    axis.set(xlabel=xlabel, ylim=(len(scores) - 0.5, -0.5))
    axis.grid(alpha=0.3)
    _save(figure, title, path)


def best_so_far(trials: Mapping[str, Sequence[Any]], ylabel: str, title: str, path: Path) -> None:
    """The best score so far of a search, by trials and by their seconds added up; each trial is a point.

    `trials` has lists: their numbers "trials", "seconds", "scores" in %, and "whole", False for one stopped early.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    scores, whole = np.array(trials["scores"]), np.array(trials["whole"])
    best = np.maximum.accumulate(np.where(whole, scores, -np.inf))
    known = np.isfinite(best)
    spent = {"trial": np.array(trials["trials"]), "seconds of training, all trials": np.cumsum(trials["seconds"])}
    for axis, (xlabel, places) in zip(axes, spent.items(), strict=True):
        axis.step(places[known], best[known], where="post", color=BLUE, lw=1.8, label="best so far")
        _mark_trials(axis, places, scores, whole)
        axis.set(xlabel=xlabel, ylim=_limits(_of_interest(scores)))
        axis.grid(alpha=0.3)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes[0].set_ylabel(ylabel)
    _name_below(figure, axes[:1])
    _save(figure, title, path)


def slices(
    knobs: Sequence[tuple[str, Sequence[Any], bool]],
    trials: Mapping[str, Sequence[Any]],
    ylabel: str,
    title: str,
    path: Path,
) -> None:
    """The scores by the value of each knob, a panel each; a knob is its label, its values by trial, is_logarithmic."""
    columns = min(len(knobs), 3)
    rows = math.ceil(len(knobs) / columns)
    size = max(3.6 * columns, 5.5), 3.4 * rows + 0.4
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    scores, whole = np.array(trials["scores"]), np.array(trials["whole"])
    for axis, (name, values, is_logarithmic) in zip(axes.flat, knobs, strict=False):
        kinds = sorted(set(values))
        if isinstance(values[0], str) or len(kinds) <= MOST_TICKS / 4:  # choices, side by side
            _mark_trials(axis, np.array([kinds.index(value) for value in values]), scores, whole)
            axis.set_xlim(-0.5, len(kinds) - 0.5)
            names = [_clip(value) if isinstance(value, str) else f"{value:g}" for value in kinds]
            _name_columns(axis, names, 3 / len(kinds))
        else:
            _mark_trials(axis, np.array(values), scores, whole)
            if is_logarithmic:
                axis.set_xscale("log")
                _number_ticks(axis.xaxis, each=(1,) if max(values) > 30 * min(values) else (1, 3))
        axis.set(xlabel=name, ylim=_limits(_of_interest(scores)))
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(knobs) :]:
        axis.axis("off")
    for axis in axes[:, 0]:
        axis.set_ylabel(ylabel)
    _name_below(figure, axes.flat[:1])
    _save(figure, title, path)


def importances(shares: Mapping[str, float], title: str, path: Path) -> None:
    """A bar for each knob, the largest on top: how much of the scores' variation it explains, in %."""
    figure, axis = plt.subplots(figsize=(6.5, 0.45 * len(shares) + 1.5))
    axis.barh(range(len(shares)), list(shares.values()), color=BLUE, height=0.6)
    for place, share in enumerate(shares.values()):
        axis.annotate(f"{share:.0f}", (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axis.set_yticks(range(len(shares)), list(shares))
    axis.set(xlabel="share in what the scores vary by (%)", xlim=(0, 100), ylim=(len(shares) - 0.5, -0.5))
    axis.grid(alpha=0.3, axis="x")
    _save(figure, f"{title}\nwhat matters", path)


def learning_rates(rates: Sequence[float], losses: Sequence[float], chosen: float, title: str, path: Path) -> None:
    """Training loss while the learning rate grew, and the rate that is suggested."""
    figure, axis = plt.subplots(figsize=(6.5, 4.2))
    axis.plot(rates, losses, color=BLUE, lw=1.5)
    axis.axvline(chosen, color=ORANGE, ls="--", label=f"suggested, where it falls fastest: {chosen:.2g}")
    axis.set(xscale="log", xlabel="learning rate", ylabel="cross-entropy loss, smoothed")
    top = min(max(losses), 2 * losses[0])  # it ends where the loss explodes
    axis.set_ylim(min(losses) - 0.05 * (top - min(losses)), top + 0.05 * (top - min(losses)))
    _number_ticks(axis.xaxis)
    axis.grid(alpha=0.3)
    figure.legend(**BELOW)
    _save(figure, title, path)


def published(rows: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Published errors as rings, measured errors as points, a seed each; the rows in two columns, logarithmic."""
    halves = [half for half in (rows[: (len(rows) + 1) // 2], rows[(len(rows) + 1) // 2 :]) if half]
    size = 5 + 5 * (len(halves) > 1), 0.24 * len(halves[0]) + 1.5
    figure, axes = plt.subplots(1, len(halves), figsize=size, sharex=True, squeeze=False)
    ring = {"mfc": "none", "mec": ORANGE, "ms": 9, "mew": 1.6}
    for axis, half in zip(axes.flat, halves, strict=True):
        for place, row in enumerate(half):
            errors = [max(100 - score, 0.01) for score in row["scores"]]
            axis.plot(errors, [place] * len(errors), "o", color=BLUE, ms=4, label=say("measured, a seed each"))
            if row["published"] is not None:
                axis.plot(100 - row["published"], place, "o", label=say("published"), **ring)
        axis.set_yticks(range(len(half)), [row["name"] for row in half], fontsize=8)
        axis.set(xscale="log", xlabel=say("error (%), logarithmic"), ylim=(len(half) - 0.4, -0.6))
        _number_ticks(axis.xaxis)
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(alpha=0.3)
    _name_below(figure, axes.flat)
    _save(figure, f"{title}: published and measured error", path)


def rungs(rows: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Accuracy, a point a seed, number of parameters, and training time of each network."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 0.4 * len(rows) + 1.6), sharey=True)
    _draw_points({row["name"]: row["scores"] for row in rows}, axes[0])
    axes[0].set(xlabel=say("test accuracy (%)"), ylim=(len(rows) - 0.5, -0.5))
    axes[1].barh(range(len(rows)), [row["parameters"] / 1000 for row in rows], color=BLUE, height=0.6)
    axes[1].set_xlabel(say("parameters (thousands)"))
    axes[2].barh(range(len(rows)), [row["seconds"] for row in rows], color=BLUE, height=0.6)
    axes[2].set_xlabel(say("training time (s)"))
    for axis in axes[1:]:
        axis.xaxis.set_major_formatter("{x:,g}")
    for axis in axes:
        axis.grid(alpha=0.3, axis="x")
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    _save(figure, f"{title}: accuracy, size and training time", path)


def show_image(axis: Axes, image: npt.NDArray) -> None:
    """Draw uint8 [h, w, 1 or 3] as it is, floats [h, w] from their least, black, to their greatest, white."""
    is_bytes = image.dtype == np.uint8
    limits = {"vmin": 0, "vmax": 255} if is_bytes else {}
    pixels = image[..., 0] if is_bytes and image.shape[-1] != 3 else image
    axis.imshow(pixels, cmap="gray", interpolation="nearest", **limits)


def _mosaic(images: npt.NDArray, columns: int, white: float = np.nan) -> npt.NDArray:
    """Images [n, h, w, ...] as one, `columns` in a row, with narrow gaps of `white`; small ones are enlarged."""
    larger = math.ceil(16 / images.shape[1])
    images = images.repeat(larger, 1).repeat(larger, 2)
    (number, height, width), gap = images.shape[:3], images.shape[1] // 12
    rows, columns = math.ceil(number / columns), min(columns, number)
    shape = rows * (height + gap) - gap, columns * (width + gap) - gap, *images.shape[3:]
    whole = np.full(shape, white, images.dtype)
    for place, image in enumerate(images):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        whole[top : top + height, left : left + width] = image
    return whole


def _draw_points(scores: Mapping[str, Sequence[float]], axis: Axes) -> None:
    """A line for each name, the first on top: a point for each score, a bar for the mean of several."""
    several = any(len(values) > 1 for values in scores.values())
    for place, values in enumerate(scores.values()):
        (points,) = axis.plot(values, [place] * len(values), "o", color=BLUE, ms=5)
        if several:
            (bar,) = axis.plot(np.mean(values), place, "|", color=ORANGE, ms=14, mew=3)
    if several:
        axis.figure.legend([points, bar], [say("a run each"), say("their mean")], **BELOW)
    axis.set_yticks(range(len(scores)), [textwrap.fill(name, 2 * LONG) for name in scores])


def _mark_trials(axis: Axes, places: npt.NDArray, scores: npt.NDArray, whole: npt.NDArray) -> None:
    """A point for each trial, a cross for one that was stopped; those below the axis stand at its foot."""
    low = _limits(_of_interest(scores))[0]
    seen = scores >= low
    axis.plot(places[whole & seen], scores[whole & seen], "o", color=BLUE, mec="white", ms=6, label="a trial each")
    if (stopped := ~whole & seen).any():
        axis.plot(places[stopped], scores[stopped], "x", color=GREY, ms=6, mew=1.8, label="stopped early")
    if not seen.all():
        foot = {"transform": axis.get_xaxis_transform(), "clip_on": False}
        axis.plot(places[~seen], np.zeros((~seen).sum()), "v", color=ORANGE, ms=7, label="far below", **foot)


def _name_below(figure: Figure, axes: Iterable[Axes]) -> None:
    """A legend below the figure, with each label of `axes` once."""
    handles = {}
    for axis in axes:
        handles |= dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(handles.values(), handles.keys(), **BELOW)


def _of_interest(scores: npt.NDArray) -> npt.NDArray:
    """`scores` without those so low that they would press the others together: by Tukey's fences."""
    low, middle = np.percentile(scores, [25, 50])
    high = scores.max()
    return scores[scores >= middle - 3 * max(high - middle, middle - low, 0.25)]


def _write_scores(axis: Axes, scores: Sequence[float]) -> None:
    """Write each score at the right of its row."""
    for row, score in enumerate(scores):
        axis.annotate(number(score, ".2f"), (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)


def _name_columns(axis: Axes, names: Sequence[str], room: float, size: float = 10) -> None:
    """Write names below the axis, at 0, 1, ...; tilted where one is wider than `room`, in inches."""
    tilted = max(map(len, names)) * 0.01 * size > room
    turn = {"rotation": 45, "rotation_mode": "anchor", "ha": "right"} if tilted else {}
    axis.set_xticks(range(len(names)), names, fontsize=size, **turn)


def _number_ticks(axis: Axis, form: str = "{x:g}", each: Sequence[int] = (1, 2, 5)) -> None:
    """Number a logarithmic axis, so sparsely that nothing overlaps: matplotlib's own are formulas, not parsed here."""
    low, high = axis.get_view_interval()
    decades = LogLocator(subs=each) if high < 3000 * low else LogLocator(numticks=8)
    axis.set_major_locator(decades if high > 6 * low else MaxNLocator(4))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(form)


def _thin(places: Sequence[float], names: Sequence[str]) -> list[str]:
    """`names` of those at ascending `places` that do not overlap; "" for the others."""
    kept, room = [], 0.1 * (places[-1] - places[0])
    last = -math.inf
    for place, name in zip(places, names, strict=True):
        kept.append(name if place - last >= room else "")
        last = place if kept[-1] else last
    return kept


def _limits(scores: Sequence[float]) -> tuple[float, float]:
    """Limits for scores in %: half a point apart at least, so that a trifle looks like one; not far over 100."""
    low, high = min(scores), max(scores)
    room = max(0.1 * (high - low), 0.25 - (high - low) / 2)
    return low - room, min(high + room, max(100.0, high) + room / 4)


def _clip(name: str) -> str:
    """A long name's beginning and its end: names of classes often begin alike."""
    return name if len(name) <= LONG else f"{name[: LONG // 2]}…{name[1 - LONG // 2 :]}"


def _wrap(text: str, letters: int) -> Iterable[str]:
    """The lines of `text`, those of more `letters` broken."""
    for line in text.splitlines():
        yield from textwrap.wrap(line, letters) or [""]


def _save(figure: Figure, title: str, path: Path) -> None:
    """Write the figure to `path`, a .png, or an .svg without the title: a page's headings say it."""
    kind = path.suffix[1:]
    if kind == "png":
        figure.suptitle("\n".join(_wrap(title, int(figure.get_figwidth() * 12))), fontsize=11)
    for axes in figure.axes if spoken() != "en" else ():
        for axis in (axes.xaxis, axes.yaxis):
            if not isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter):  # those are of names
                axis.set_major_formatter(_Localised(axis.get_major_formatter()))
    with atomic_write(path) as beside:
        figure.savefig(beside, dpi=150, format=kind, **({"metadata": {"Date": None}} if kind == "svg" else {}))
    plt.close(figure)


class _Localised(Formatter):
    """Ticks as another `formatter` writes them, with numbers in the language of the moment."""

    def __init__(self, formatter: Formatter) -> None:
        self.formatter = formatter

    def __call__(self, x: float, pos: int | None = None) -> str:
        return localise(self.formatter(x, pos))

    def set_axis(self, axis: Axis) -> None:
        super().set_axis(axis)
        self.formatter.set_axis(axis)

    def set_locs(self, locs: Sequence[float]) -> None:
        self.formatter.set_locs(locs)
