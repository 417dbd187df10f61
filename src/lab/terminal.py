"""The tables that a command prints."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from tqdm import tqdm

if TYPE_CHECKING:  # torch takes seconds, and compare.py does without
    from lab.comparison import Contestant
    from lab.network import Layer

MOST_ROWS = 20


def print_data(title: str, by_part: Mapping[str, Sequence[int]], classes: Sequence[str]) -> None:
    """Images a class in each part."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("class")
    for part in by_part:
        table.add_column(part, justify="right")
    for number, name in enumerate(classes[:MOST_ROWS]):
        table.add_row(escape(name), *(f"{counts[number]:,}" for counts in by_part.values()))
    if len(classes) > MOST_ROWS:
        table.add_row(f"... {len(classes) - MOST_ROWS} more")
    table.add_section()
    table.add_row("images", *(f"{sum(counts):,}" for counts in by_part.values()))
    Console().print(table)


def print_layers(title: str, layers: Sequence["Layer"], total: int, trainable: int) -> None:
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


def print_evaluation(evaluation: dict[str, Any]) -> None:
    """Precision, recall and F1 of each class; loss, accuracy, calibration and, of two classes, AUC and threshold."""
    title = f"{evaluation['model']} on {evaluation['data']}, {evaluation['part']}, {evaluation['weights']} epoch"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("class")
    for column in ("precision", "recall", "F1", "images"):
        table.add_column(column, justify="right")
    for name, figures in list(evaluation["classes"].items())[:MOST_ROWS]:
        shares = ("" if figures[key] is None else f"{figures[key]:.2%}" for key in ("precision", "recall", "f1"))
        table.add_row(escape(name), *shares, f"{figures['images']:,}")
    if len(evaluation["classes"]) > MOST_ROWS:
        table.add_row(f"... {len(evaluation['classes']) - MOST_ROWS} more")
    Console().print(table)
    low, high = evaluation["accuracy_interval"]
    print(
        f"Accuracy {evaluation['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}, loss {evaluation['loss']:.4f}"
    )
    if "auc" in evaluation:
        print(f"AUC {evaluation['auc']:.4f}")
    if chosen := evaluation.get("threshold"):
        name = list(evaluation["classes"])[1]
        print(
            f"{name} from a probability of {chosen['threshold']:.3f} on, chosen on the validation part: "
            f"accuracy {chosen['accuracy']:.2%}, balanced {chosen['balanced_accuracy']:.2%}, "
            f"sensitivity {chosen['sensitivity']:.2%}, specificity {chosen['specificity']:.2%}"
        )
    error = evaluation["calibration"]["expected_calibration_error"]
    print(f"Expected calibration error {error:.2%}: how far its probabilities lie from how often it is right")
    print_confused(evaluation)


def print_contestants(contestants: Sequence["Contestant"]) -> None:
    """What each cost and what it scored."""
    part = contestants[0].part
    table = Table(title=contestants[0].data, title_justify="left", title_style="bold")
    table.add_column("run", overflow="fold")
    for column in ("parameters", "training time", f"{part} loss", f"{part} accuracy", "95 % interval"):
        table.add_column(column, justify="right")
    for one in contestants:
        interval = f"{one.interval[0]:.2%} to {one.interval[1]:.2%}"
        cells = f"{one.parameters:,}", f"{one.seconds:,.0f} s", f"{one.loss:.4f}", f"{one.accuracy:.2%}", interval
        table.add_row(escape(one.name), *cells)
    Console().print(table)


def print_parity(parity: dict[str, Any]) -> None:
    """How far the runtimes agree with the network."""
    title = f"Against the trained network, {parity['images']:,} test images, tolerance {parity['tolerance']:.1e}"
    table = Table(title=title, title_justify="left")
    for column in ("runtime", "other predictions", "largest difference in a probability"):
        table.add_column(column, justify="left" if column == "runtime" else "right")
    for name, figures in parity["runtimes"].items():
        table.add_row(name, str(figures["other_predictions"]), f"{figures['largest_difference']:.1e}")
    Console().print(table)


def print_confused(evaluation: dict[str, Any], most: int = 5) -> None:
    """The pairs of classes that are most often confused."""
    pairs = [f"{pair['class']} read as {pair['read_as']}: {_times(pair['times'])}" for pair in evaluation["confused"]]
    print(f"Most confused: {', '.join(pairs[:most])}" if pairs else "No image was read as another class.")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Numbers to the right, as they are."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column, cells in zip(columns, zip(*rows, strict=True), strict=True):
        numbers = re.match(r"[-+]?\d", cells[0]) is not None
        table.add_column(column, justify="right" if numbers else "left", no_wrap=numbers, overflow="fold")
    for cells in rows:
        table.add_row(*map(escape, cells))
    Console().print(table)


def make_bar(total: int | None, unit: str, shows: bool = True) -> tqdm:
    """Rate and time left, on a terminal only."""
    return tqdm(
        total=total,
        unit=unit,
        disable=None if shows else True,  # None: only where it is not a terminal
        leave=False,
        dynamic_ncols=True,
        mininterval=0.2,
        smoothing=0.1,
    )


def warn(message: str) -> None:
    """In a frame, on stderr."""
    Console(stderr=True).print(Panel(message, title="WARNING", style="bold yellow"))
