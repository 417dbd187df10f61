"""What a run says of itself: at its start, at its end, in result.json, as TensorBoard's hyper-parameters."""

import contextlib
import copy
import io
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from lab.config.schema import data_folder, fingerprint
from lab.datasets.corrections import Corrected
from lab.datasets.dataset import print_counts
from lab.datasets.pitfalls import find_pitfalls, is_uneven
from lab.display.terminal import print_notes, print_table, warn
from lab.errors import first_line
from lab.models.build import count_parameters
from lab.models.jetson import DEVICES, find_refused, trace
from lab.training.load import SCORES
from lab.training.prepare import Run

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "scikit-learn", "hydra-core")


def print_start(run: Run) -> None:
    """Print tables of the data and the network, and what the user should know of them."""
    config, dataset = run.config, run.dataset
    if dataset.is_sample:
        warn(
            "This is NOT the MNIST data set: neither its files nor a network were found, so this run uses a sample of "
            "5,000 of its images. Its scores are not MNIST's. For the real set put the four files of "
            f"{config.data.source.mirrors[0]} into {data_folder(config.data.root) / config.data.source.folder}, or "
            "name their place with data.root=FOLDER or LAB_DATA; data.sample=false makes this an error."
        )
    if leaked := int(dataset.leaked().sum()):
        warn(
            f"{leaked} images of the training part are in the validation or test part too: data.drop_duplicates=true "
            f"leaves them out of training; python src/check_data.py data={config.data.name} shows them."
        )
    print_counts(dataset, config.data.name + (" SAMPLE" if dataset.is_sample else ""))
    print_notes([*([str(dataset.corrected)] if dataset.corrected else []), *find_pitfalls(dataset, config.model.scale)])
    _print_layers(run)
    if config.model.train:
        _print_devices(run)
    if config.trainer.max_epochs:
        print(f"trainer.max_epochs={config.trainer.max_epochs} wins over model.epochs={config.model.epochs}")


def _print_layers(run: Run) -> None:
    """Print Keras' summary(): layer, output shape, parameters, totals as Keras counts them."""
    rows = [
        [layer.name, "x".join(map(str, layer.shape)), f"{layer.parameters:,}" if layer.parameters else ""]
        for layer in run.layers
    ]
    total, trainable = (count_parameters(run.classifier.net, only) for only in (False, True))
    counts = (("total", total), ("trainable", trainable), ("not trainable", total - trainable))
    totals = [[name, "", f"{count:,}"] for name, count in counts]
    print_table(run.config.model.name, ["layer", "output shape", "parameters"], rows, totals)


def _print_devices(run: Run) -> None:
    """Print on which devices the network's export will run: of timm's networks nobody knows before."""
    net = copy.deepcopy(run.classifier.net).cpu().eval()
    try:
        refused = find_refused(trace(net, run.classifier.example_input_array))
    except Exception as error:  # whatever a network does that torch cannot trace
        refused = f"it cannot be traced ({first_line(error)})"
    print(f"Its export will run on {f'none of the Jetsons: {refused}' if refused else ', '.join(DEVICES)}")


def describe(run: Run) -> dict[str, Any]:
    """What result.json has beside the scores: the recipe, the data, the machine, the versions."""
    recipe, data, dataset = run.config.model, run.config.data, run.dataset
    folds = ("folds", "fold", "fold_seed", "stratify_folds") if data.folds else ()
    return {
        "digest": fingerprint(run.config),
        "model": recipe.name,
        "data": {
            "name": dataset.name,
            "images": {part: len(indices) for part, indices in dataset.parts.items()},
            "class_images": {part: counts.tolist() for part, counts in dataset.counts().items()},
            "pitfalls": find_pitfalls(dataset, recipe.scale),
            "shape": list(dataset.shape),
            "classes": dataset.classes,
            "split": {key: data[key] for key in ("validation", "test", "split_seed", "stratify", *folds)},
            "sha256": dataset.sha256,
            **({"corrections": asdict(dataset.corrected)} if dataset.corrected else {}),
            **({"skipped": dataset.skipped} if dataset.skipped else {}),  # files that were broken
        },
        "monitor": run.config.monitor or "accuracy",
        "seed": run.config.seed,
        "batch_size": recipe.batch_size,
        "optimizer": OmegaConf.to_container(recipe.optimizer, resolve=True),
        "parameters": {
            "total": count_parameters(run.classifier.net),
            "trainable": count_parameters(run.classifier.net, trainable_only=True),
        },
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def summarise(rows: Mapping[str, dict[str, float]]) -> dict[str, Any]:
    """Training and validation scores of the epochs in `rows`, "last" and, with a validation part, "best"."""

    def scores(row: Mapping[str, float], part: str) -> dict[str, float]:
        return {name: row[f"{part}_{name}"] for name in SCORES if f"{part}_{name}" in row}

    return {
        "epochs": rows["last"]["epoch"],
        "train": scores(rows["last"], "train"),
        "validation": {
            which: {"epoch": row["epoch"]} | scores(row, "val") for which, row in rows.items() if "val_loss" in row
        },
    }


def fell_below(config: DictConfig, rows: Sequence[Mapping[str, float]]) -> bool:
    """Whether the best validation score in `rows` is below what stop_below lists for their last epoch."""
    bars, scored = config.stop_below or (), f"val_{config.monitor or 'accuracy'}"
    scores = [row[scored] for row in rows if scored in row]
    return bool(scores) and len(rows) <= len(bars) and max(scores) < bars[len(rows) - 1]


def print_end(run: Run, rows: Sequence[Mapping[str, float]], epochs: int) -> None:
    """Print why training ended before the last of its `epochs`, or why early_stopping did not end it.

    -1 `epochs` have no end.
    """
    of = f" of {epochs}" if epochs > 0 else ""
    if fell_below(run.config, rows):
        bar = run.config.stop_below[len(rows) - 1]
        print(f"stop_below: stopped after epoch {len(rows)}{of}: no validation score of {bar:.2%} so far")
        return
    done, patience = rows[-1]["epoch"], run.config.early_stopping
    losses = {row["epoch"]: row["val_loss"] for row in rows if "val_loss" in row}
    if patience and losses:
        lowest = min(losses, key=losses.get)
        waited = max(losses) - lowest
        since = f"the lowest validation loss, {losses[lowest]:.4f}, was epoch {lowest}'s"
        if waited >= patience:
            if re.search("OneCycle|Cosine", str(run.config.model.schedule)):
                since += f"; the schedule's rate was to fall until epoch {epochs}"
            print(f"early_stopping={patience}: stopped after epoch {done}{of}: {since}")
            return
        print(f"early_stopping={patience}: never {patience} epochs in a row without a lower validation loss; {since}")
    if done < epochs or not of:
        limits = ("max_time", "max_steps")
        told = [f"trainer.{key}={run.config.trainer[key]}" for key in limits if run.config.trainer.get(key)]
        print(f"stopped after epoch {done}{of}" + (f": {', '.join(told)}" if told else ""))


def print_result(result: dict[str, Any]) -> None:
    """Print loss and accuracy of each part, best and last epoch, and pitfalls; with uneven classes also their means."""
    rows, data = [], result["data"]
    more = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}
    more = more if any(map(is_uneven, data["class_images"].values())) else {}
    for part in ("validation", "test", "held_out"):
        for which, scores in result.get(part, {}).items():
            epoch = f"{which} epoch, {scores['epoch']}"
            values = f"{scores['images']:,.0f}", f"{scores['loss']:.4f}", f"{scores['accuracy']:.2%}"
            means = (f"{scores[name]:.2%}" if name in scores else "-" for name in more)
            rows.append([part.replace("_", " "), epoch, *values, *means])
    title = f"{result['model']} on {data['name']}"
    print_table(title, ["part", "weights of", "images", "loss", "accuracy", *more.values()], rows)
    corrected = [str(Corrected(**data["corrections"]))] if "corrections" in data else []
    print_notes([*corrected, *data["pitfalls"]])
    print(f"{result['seconds']:.1f} s, {result['images_per_second']:,.0f} images/s in training on {result['device']}")


def log_hyperparameters(run: Run, result: dict[str, Any]) -> None:
    """Write the recipe to TensorBoard, with the last epoch's scores and the network's graph."""
    recipe, classifier = OmegaConf.to_container(run.config.model, resolve=True), run.classifier
    groups = {name: recipe.pop(name) or {} for name in ("net", "optimizer", "augment", "schedule")}
    chosen = {name: groups[name].pop("_target_").rpartition(".")[2] for name in groups if "_target_" in groups[name]}
    del chosen["net"], recipe["name"], recipe["epochs"]
    groups["augment"] = {name: value for name, value in groups["augment"].items() if value}
    classifier.logger.log_hyperparams(
        {"model": result["model"], "data": result["data"]["name"]}
        | {name: value for name, value in recipe.items() if value is not None}
        | {"epochs": result["epochs"], "seed": result["seed"]}
        | chosen
        | {name: value for group in groups.values() for name, value in group.items()},
        {
            f"final/{part}_{name}": result[part]["last"][name]
            for part in ("validation", "test")
            for name in ("loss", "accuracy")
            if "last" in result[part]
        },
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # torch prints what it raises
            classifier.logger.experiment.add_graph(classifier, classifier.example_input_array.to(classifier.device))
    except OSError:
        raise
    except Exception as error:  # whatever a network of the user's own does that torch cannot trace
        print_notes([f"TensorBoard has no graph of this network: it cannot be traced ({first_line(error)})"])
    classifier.logger.save()
