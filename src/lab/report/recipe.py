"""What was asked of a run, of what data, and where it ran."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lab.config.again import command_again
from lab.config.schema import Train
from lab.display.figures import counts
from lab.display.labels import label
from lab.display.language import number, say, translate
from lab.display.page import Table, draw
from lab.errors import UserError
from lab.runs.folder import read_history

PARTS = {"train": "training", "validation": "validation", "test": "test"}
LONG = 60  # letters, of a value


def read_epochs(folder: Path) -> list[dict[str, float]]:
    """Those of a run, one at least, each with its number and its training scores."""
    rows = read_history(folder)
    if not rows or not all(row.keys() >= {"epoch", "train_loss", "train_accuracy"} for row in rows):
        raise UserError(f"{folder}/metrics.csv: damaged: train it anew")
    return rows


def describe_recipe(config: DictConfig, result: Mapping[str, Any], schema: type[Train] = Train) -> dict[str, Any]:
    """The command, the recipe's values, data by class, the machine and the versions."""
    return {
        "command": command_again(config, schema),
        "recipe": _recipe(config),
        "machine": _machine(result),
        "versions": ", ".join(f"{name} {number}" for name, number in result.get("versions", {}).items()),
        "is_sample": result["data"]["name"].endswith("_sample"),
    }


def describe_classes(by_part: Mapping[str, list[int]], classes: list[str]) -> dict[str, Any]:
    """Images of each class, [classes], in each part: a table and a figure."""
    named = {translate(PARTS.get(part, part)): of_part for part, of_part in by_part.items() if sum(of_part)}
    rows = [[name, *(number(of_part[place]) for of_part in named.values())] for place, name in enumerate(classes)]
    total = [say("images"), *(number(sum(of_part)) for of_part in named.values())]
    shown = {PARTS.get(part, part): of_part for part, of_part in by_part.items() if sum(of_part)}
    return {
        "classes": Table([say("class"), *named], rows, total),
        "picture": draw(counts, shown, classes),
        "images": sum(map(sum, by_part.values())),
    }


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
    net = {key: value for key, value in model["net"].items() if key not in ("_target_", "file") and value}
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
