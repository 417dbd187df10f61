"""What was asked of a run, of what data, and where it ran."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from omegaconf import DictConfig, OmegaConf

from lab.config.again import command_again
from lab.datasets.dataset import Dataset, first_of_each_class
from lab.display.figures import counts
from lab.display.labels import label
from lab.display.language import number, say, translate
from lab.display.page import Sheet, Table, draw
from lab.experiments.jobs import is_of_sample
from lab.report.answers import Shown

PARTS = {"train": "training", "validation": "validation", "test": "test"}
LONG = 60  # letters, of a value


def describe_recipe(config: DictConfig, result: Mapping[str, Any]) -> dict[str, Any]:
    """The command, the recipe's values, the machine, the versions, and whether a sample stood in for the data."""
    return {
        "command": command_again(config),
        "recipe": _recipe(config),
        "machine": _machine(result),
        "versions": ", ".join(f"{name} {number}" for name, number in result.get("versions", {}).items()),
        "is_sample": is_of_sample(result),
    }


def describe_data(dataset: Dataset, by_part: Mapping[str, npt.NDArray[np.int64]], sheet: Sheet) -> dict[str, Any]:
    """Images of each class, [classes], in each part: table and figure; a few to look at go into `sheet`."""
    shown = {PARTS.get(part, part): of_part.tolist() for part, of_part in by_part.items() if of_part.any()}
    rows = [
        [name, *(number(of_part[place]) for of_part in shown.values())] for place, name in enumerate(dataset.classes)
    ]
    total = [say("images"), *(number(sum(of_part)) for of_part in shown.values())]
    return {
        "classes": Table([say("class"), *map(translate, shown)], rows, total),
        "picture": draw(counts, shown, dataset.classes),
        "images": sum(map(sum, shown.values())),
        "shape": "x".join(map(str, dataset.shape)),
        "examples": [
            [_example(image, dataset, sheet) for image in row] for row in first_of_each_class(dataset).tolist()
        ],
    }


def _example(image: int, dataset: Dataset, sheet: Sheet) -> Shown:
    name = dataset.classes[dataset.labels[image]]
    return Shown(sheet.add(dataset.images[image]), [name], say("a training image of class {name}", name=name))


def _recipe(config: DictConfig) -> Table:
    """Of the network's recipe whatever is on."""
    model, rows = OmegaConf.to_container(config.model, resolve=True), []
    for group in ("optimizer", "schedule"):
        if model[group]:
            chosen = str(model[group].pop("_target_")).rpartition(".")[2]
            rows.append([translate(group), ", ".join([chosen, *_options(model[group])])])
    rows.append([label("max_epochs"), number(config.trainer.max_epochs or config.model.epochs)])
    rows.append([label("model.batch_size"), number(config.model.batch_size)])
    rows.append([say("pixels are divided by"), number(config.model.scale, ",g")])
    if augment := _options({key: value for key, value in model["augment"].items() if value}):
        rows.append([say("training images are changed"), ", ".join(augment)])
    for key in ("class_weights", "label_smoothing", "average", "train"):
        if model[key] is not None:
            rows.append([label(f"model.{key}"), _tell(model[key])])
    net = {key: value for key, value in model["net"].items() if key not in ("_target_", "file", "weights") and value}
    rows += [[label(f"model.net.{key}"), _tell(value)] for key, value in net.items()]
    rows += [[label(key), _tell(config[key])] for key in ("early_stopping", "speed", "monitor") if config[key]]
    return Table([say("setting"), say("value")], rows)


def _options(group: Mapping[str, Any]) -> list[str]:
    return [f"{label(key)} {_tell(value)}" for key, value in group.items()]


def _tell(value: Any) -> str:
    if isinstance(value, bool):
        return say("yes") if value else say("no")
    told = number(value, "g") if isinstance(value, int | float) else str(value)
    return told if len(told) <= LONG else f"{told[:LONG]}…"


def _machine(result: Mapping[str, Any]) -> Table:
    kept = ("machine", "device", "threads", "processes", "precision", "seed")
    rows = [[translate(key), str(result[key])] for key in kept if result.get(key) is not None]
    rows.append([say("training time"), say("{seconds:,.1f} s", seconds=float(result["seconds"]))])
    if rate := result.get("images_per_second"):
        rows.append([say("images a second in training"), number(float(rate), ",.0f")])
    return Table([say("what"), say("value")], rows)
