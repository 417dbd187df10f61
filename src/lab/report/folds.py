"""The page of a cross-validation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lab.config.schema import CrossValidate
from lab.datasets.dataset import Dataset
from lab.datasets.pitfalls import largest_class
from lab.display.figures import box_plot, curves
from lab.display.language import number, say
from lab.display.page import Sheet, Table, draw
from lab.evaluation.images import load_answered
from lab.report.answers import Saliency, describe_answers
from lab.report.recipe import describe_data, describe_recipe
from lab.runs.folder import read_config, read_history, read_result
from lab.runs.predictions import Predictions, join, load_predictions


def describe(folder: Path, root: Path | None) -> tuple[dict[str, Any], Sheet]:
    """What folds.html says of the folds in `folder`: all images that were held out, together."""
    result, config = read_result(folder, "folds"), read_config(folder, CrossValidate, builds=False)
    places = [folder / f"fold_{row['fold']}" for row in result["folds"]]
    parts, histories = [load_predictions(place) for place in places], [read_history(place) for place in places]
    dataset = load_answered(config, root, zip(places, parts, strict=True))
    predictions, sheet = join(parts), Sheet(dataset.images.shape[1:])
    answers = describe_answers(predictions, dataset, sheet, _saliency(places, parts, dataset, root))
    scores = [100 * row["accuracy"] for row in result["folds"]]
    counts = np.bincount(predictions.labels, minlength=len(dataset.classes))
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
    baseline = largest_class(counts.tolist(), dataset.classes)
    return {
        "title": say("{model} on {data}: {mean:.2%} ± {std:.2%} over {folds} folds", folds=len(rows), **about),
        "pitfalls": [baseline] if baseline else [],
        **describe_recipe(config, result),
        "data": describe_data(dataset, {"held out": counts}, sheet),
        "boxes": draw(box_plot, {result["model"]: scores}, say("accuracy on the held-out fold (%)")),
        "folds": Table([say("fold"), say("images"), say("loss"), say("accuracy"), say("seconds")], rows),
        "curves": draw(curves, histories),
        "answers": answers,
        "result": result,
    }, sheet


def _saliency(places: Sequence[Path], parts: Sequence[Predictions], dataset: Dataset, root: Path | None) -> Saliency:
    """Of each image by the network of the fold that held it out."""

    def find(images: npt.NDArray[np.int64], named: npt.NDArray[np.int64]) -> tuple[str, npt.NDArray[np.float32]]:
        from lab.training.load import load  # torch takes seconds: what is no result is refused without it
        from lab.training.saliency import find_saliency

        method, maps = "", np.empty((len(images), *dataset.images.shape[1:3]), np.float32)
        for place, part in zip(places, parts, strict=True):
            if (held := np.isin(images, part.indices)).any():
                net = load(place, root=root).classifier.net
                method, maps[held] = find_saliency(net, dataset.images[images[held]], named[held])
        return method, maps

    return find
