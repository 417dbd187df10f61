"""What a figure says: labels, ticks, legends, scales; nothing overlaps and nothing is cut."""

import itertools

import numpy as np
import pytest
from conftest import texts
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from lab.display import figures
from lab.display.labels import label

SCORE = "validation accuracy (%)"


def shown_ticks(axis):
    """The names of the ticks within the axis."""
    low, high = sorted(axis.get_view_interval())
    within = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [name for tick in within for name in (tick.label1, tick.label2) if name.get_visible() and name.get_text()]


def check_layout(figure):
    """No tick's name overlaps the next; no text leaves the picture."""
    FigureCanvasAgg(figure).draw()  # at its own size, to measure by
    axes = [axis for axes in figure.axes if axes.axison for axis in (axes.xaxis, axes.yaxis)]
    for axis in axes:
        boxes = [tick.get_window_extent() for tick in shown_ticks(axis) if not tick.get_rotation()]
        for one, other in itertools.pairwise(boxes):
            assert not one.overlaps(other), f"{axis.get_label_text()}: ticks overlap"
    everywhere = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    hidden = {name for axis in everywhere for tick in axis.get_major_ticks() for name in (tick.label1, tick.label2)}
    hidden -= {tick for axis in axes for tick in shown_ticks(axis)}
    for text in set(figure.findobj(Text)) - hidden:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert min(box.x0, box.y0) >= -1, text
            assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text


@pytest.mark.parametrize(
    "rates", [np.geomspace(0.0011, 0.0092, 14), np.geomspace(1e-6, 1, 30), [1e-4, 2e-4, 3e-4, 0.1]]
)
def test_a_logarithmic_axis_has_plain_numbers_that_do_not_overlap(drawn, tmp_path, rates):
    figures.response({rate: [97.0] for rate in rates}, "learning rate", True, SCORE, "title", tmp_path / "a.png")
    losses = np.linspace(2, 1, len(rates)).tolist()
    figures.learning_rates(list(rates), losses, float(rates[1]), "title", tmp_path / "b.png")
    for figure in drawn.values():
        ticks = shown_ticks(figure.axes[0].xaxis)
        assert len(ticks) >= 2 and [float(tick.get_text()) for tick in ticks]
        assert "$" not in texts(figure)
        check_layout(figure)


def test_one_epoch_and_one_value_stand_in_the_middle(drawn, tmp_path):
    row = {"epoch": 1.0, "train_loss": 0.5, "train_accuracy": 0.8, "val_loss": 0.3, "val_accuracy": 0.9}
    figures.curves([[row]], "title", tmp_path / "curves.png")
    for axes in drawn["curves.png"].axes:
        assert axes.get_xlim() == (0.5, 1.5) and [tick.get_text() for tick in shown_ticks(axes.xaxis)] == ["1"]
    figures.response({0.01: [99.9]}, "learning rate", False, SCORE, "title", tmp_path / "one.png")
    low, high = drawn["one.png"].axes[0].get_ylim()
    assert 99 < low < 99.9 < high < 100.1


def test_seeds_are_points_with_their_spread_and_no_trend(drawn, tmp_path):
    figures.spread({"1": [97.0], "2": [98.0], "10": [99.0]}, "seed", SCORE, "title", tmp_path / "seeds.png")
    points, mean = drawn["seeds.png"].axes[0].get_lines()
    assert points.get_linestyle() == "None" and set(mean.get_ydata()) == {98.0}
    assert "mean 98.00" in texts(drawn["seeds.png"]) and "± standard deviation 1.00" in texts(drawn["seeds.png"])
    figures.response({0.1: [97, 98], 0.2: [96, 97]}, "x", False, SCORE, "title", tmp_path / "swept.png")
    assert "a run each" in texts(drawn["swept.png"]) and "their mean ± standard deviation" in texts(drawn["swept.png"])


def test_a_ranking_explains_its_bars_and_has_none_of_single_scores(drawn, tmp_path):
    figures.ranking({"one": [97.0], "two": [96.0]}, SCORE, "title", tmp_path / "single.png")
    single = drawn["single.png"]
    assert {line.get_color() for line in single.axes[0].get_lines()} == {figures.BLUE} and not single.legends
    figures.ranking({"one": [97.0, 98.0], "two": [96.0]}, SCORE, "title", tmp_path / "seeds.png")
    assert "a run each their mean" in texts(drawn["seeds.png"]) and "97.50" in texts(drawn["seeds.png"])


def test_a_confusion_matrix_has_counts_and_shares_and_tells_its_scale(drawn, tmp_path):
    classes = ["$normal$", "a class with a name that begins alike, one", "a class with a name that begins alike, two"]
    figures.confusion([[30, 10, 0], [0, 40, 0], [0, 0, 0]], classes, "a long title " * 12, tmp_path / "c.png")
    told = texts(drawn["c.png"])
    for wanted in ("30 75.0%", "10 25.0%", "40 100.0%", "$normal$", "confusion matrix", "share of the row"):
        assert wanted in told
    first, second = (tick.get_text() for tick in shown_ticks(drawn["c.png"].axes[0].yaxis)[1:])
    assert first != second and max(len(first), len(second)) <= 20
    check_layout(drawn["c.png"])


def test_filters_have_a_scale_and_maps_fit_a_page(drawn, tmp_path):
    for channels, side in ((1, 28), (3, 3)):
        weights = np.linspace(-0.5, 0.5, 40 * channels * side**2).reshape(40, channels, side, side)
        figures.filters(weights, 64, "title", tmp_path / "filters.png")
        _, scale = drawn["filters.png"].axes
        assert scale.get_ylim() == (-0.5, 0.5) and "weight" in texts(drawn["filters.png"])
        assert "40 of 64 shown" in texts(drawn["filters.png"])
        check_layout(drawn["filters.png"])
    layers = {f"{number} Conv2d: 32x28x28": np.zeros((16, 28, 28), np.float32) for number in range(12)}
    figures.maps({"image": np.zeros((28, 28, 1), np.uint8)} | layers, "title", tmp_path / "maps.png")
    assert tuple(drawn["maps.png"].get_size_inches()) <= figures.PAGE
    check_layout(drawn["maps.png"])


def test_long_names_are_neither_cut_nor_laid_over_others(drawn, tmp_path):
    names = [f"pretrained label_smoothing=0.1 optimizer=AdamW lr=0.000{number}, seed 1" for number in range(3)]
    figures.intervals(dict.fromkeys(names, (97, 96, 98)), SCORE, "title " * 40, tmp_path / "intervals.png")
    figures.box_plot({name: [97.0, 98.0, 96.0] for name in names}, SCORE, "title", tmp_path / "box.png")
    figures.ranking({name: [97.0, 98.0] for name in names}, SCORE, "title", tmp_path / "ranking.png")
    rows = [{"name": name[:25], "scores": [97.0], "published": 98.0, "parameters": 9, "seconds": 9} for name in names]
    figures.published(rows, "title", tmp_path / "published.png")
    figures.rungs(rows, "title", tmp_path / "rungs.png")
    images = [np.zeros((8, 8, 3), np.uint8)] * 3
    figures.gallery(images, names, "title " * 40, tmp_path / "gallery.png")
    for figure in drawn.values():
        check_layout(figure)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("model.optimizer.lr", "learning rate"),
        ("model.batch_size", "batch size"),
        ("model.net.rate", "dropout rate"),
        ("++model.optimizer.weight_decay", "weight decay"),
        ("model.optimizer._target_", "optimizer"),
        ("model", "network"),
        ("seed", "seed"),
    ],
)
def test_a_key_is_called_by_its_name(key, name):
    assert label(key) == name
