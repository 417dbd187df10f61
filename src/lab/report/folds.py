"""The page of a cross-validation."""

from pathlib import Path
from typing import Any

import numpy as np

from lab.config.schema import CrossValidate, data_folder, place_data
from lab.datasets.dataset import load
from lab.datasets.pitfalls import largest_class
from lab.display.figures import box_plot, curves
from lab.display.language import number, say
from lab.display.page import Sheet, Table, draw
from lab.evaluation.images import check_images
from lab.report.answers import describe_answers
from lab.report.recipe import describe_classes, describe_recipe, read_epochs
from lab.runs.folder import read_config, read_result
from lab.runs.predictions import join, load_predictions


def describe(folder: Path, root: Path | None) -> tuple[dict[str, Any], Sheet]:
    """What folds.html says of the folds in `folder`: all images that were held out, together."""
    result, config = read_result(folder, "folds"), read_config(folder, CrossValidate, builds=False)
    places = [folder / f"fold_{row['fold']}" for row in result["folds"]]
    parts, histories = [load_predictions(place) for place in places], [read_epochs(place) for place in places]
    place_data(config, root)
    dataset = load(config.data, untrusted=True)
    for place, part in zip(places, parts, strict=True):
        check_images(part, dataset, place, data_folder(config.data.root))
    predictions, sheet = join(parts), Sheet(dataset.images.shape[1:])
    answers = describe_answers(predictions, dataset, sheet)
    scores = [100 * row["accuracy"] for row in result["folds"]]
    counts = np.bincount(predictions.labels, minlength=len(dataset.classes)).tolist()
    rows = [
        [
            str(row["fold"]),
            number(row["images"]),
            number(row["loss"], ".4f"),
            number(row["accuracy"], ".2%"),
            number(row["seconds"], ".0f"),
        ]
        for row in result["folds"]
    ]
    about = {"model": result["model"], "data": result["data"]["name"], **result["accuracy"]}
    baseline = largest_class(counts, dataset.classes)
    return {
        "title": say("{model} on {data}: {mean:.2%} ± {std:.2%} over {folds} folds", folds=len(rows), **about),
        "pitfalls": [baseline] if baseline else [],
        **describe_recipe(config, result, CrossValidate),
        "data": describe_classes({"held out": counts}, dataset.classes),
        "shape": "x".join(map(str, dataset.shape)),
        "boxes": draw(box_plot, {result["model"]: scores}, say("accuracy on the held-out fold (%)")),
        "folds": Table([say("fold"), say("images"), say("loss"), say("accuracy"), say("seconds")], rows),
        "curves": draw(curves, histories),
        "answers": answers,
        "result": result,
    }, sheet
