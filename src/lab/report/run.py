"""The page of one run, or of one fold."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lab.datasets.pitfalls import find_pitfalls
from lab.display.figures import curves
from lab.display.language import number, say, translate
from lab.display.page import Sheet, Table, draw
from lab.evaluation.images import check_images
from lab.evaluation.significance import accuracy_interval
from lab.report.answers import describe_answers
from lab.report.recipe import describe_data, describe_recipe
from lab.runs.folder import read_history, read_result
from lab.runs.predictions import load_predictions

PARTS = {"validation": "validation", "test": "test", "held_out": "images held out"}


def describe(folder: Path, root: Path | None) -> tuple[dict[str, Any], Sheet]:
    """What run.html says of the run of `folder`; its data lies in `root`, else where it lay."""
    from lab.training.load import load  # torch takes seconds: what is no run is refused without it
    from lab.training.saliency import find_saliency

    result, predictions, history = read_result(folder), load_predictions(folder), read_history(folder)
    run = load(folder, root=root)
    dataset = run.dataset
    check_images(predictions, dataset, folder, run.config)
    sheet = Sheet(dataset.images.shape[1:])

    def saliency(images: npt.NDArray[np.int64], named: npt.NDArray[np.int64]) -> tuple[str, npt.NDArray[np.float32]]:
        return find_saliency(run.classifier.net, dataset.images[images], named)

    answers = describe_answers(predictions, dataset, sheet, saliency)
    part = "held_out" if "held_out" in result else "test"
    network = [
        [layer.name, "x".join(map(str, layer.shape)), number(layer.parameters) if layer.parameters else ""]
        for layer in run.layers
    ]
    about = {"model": result["model"], "data": result["data"]["name"], "accuracy": answers.evaluation["accuracy"]}
    return {
        "title": say("{model} on {data}: accuracy {accuracy:.2%}", **about),
        "part": translate(PARTS[part]),
        "pitfalls": find_pitfalls(dataset, run.config.model.scale),
        **describe_recipe(run.config, result),
        "data": describe_data(dataset, dataset.counts(), sheet),
        "network": Table(
            [say("layer"), say("output shape"), say("parameters")],
            network,
            [say("total"), "", number(result["parameters"]["total"])],
        ),
        "trainable": result["parameters"].get("trainable", result["parameters"]["total"]),
        "curves": draw(curves, [history]),
        "history": history,
        "scores": _scores(result),
        "answers": answers,
        "result": result,
    }, sheet


def _scores(result: dict[str, Any]) -> Table:
    """Of each part, with the weights of the best and of the last epoch."""
    rows = []
    for part, name in PARTS.items():
        for which, scores in result.get(part, {}).items():
            images = int(scores.get("images", 0))
            low, high = accuracy_interval(round(scores["accuracy"] * images), images) if images else (None, None)
            epoch = say("best epoch, {epoch}", epoch=int(scores["epoch"])) if which == "best" else ""
            rows.append(
                [
                    translate(name),
                    epoch or say("last epoch, {epoch}", epoch=int(scores["epoch"])),
                    number(images),
                    number(scores["loss"], ".4f"),
                    number(scores["accuracy"], ".2%"),
                    say("{low:.2%} to {high:.2%}", low=low, high=high) if images else "-",
                ]
            )
    columns = [say("part"), say("weights of"), say("images"), say("loss"), say("accuracy"), say("95 % interval")]
    return Table(columns, rows)
