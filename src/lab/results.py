"""What a finished run says of itself: in result.json, and as TensorBoard's hyper-parameters."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from omegaconf import OmegaConf

from lab.config import digest
from lab.network import count_parameters
from lab.run import Run, choose_precision, data_name

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "scikit-learn", "hydra-core")


def describe(run: Run) -> dict[str, Any]:
    """What the figures of a run are figures of."""
    recipe, data, classifier = run.config.model, run.config.data, run.classifier
    return {
        "digest": digest(run.config),
        "model": recipe.name,
        "data": {
            "name": data_name(run),
            "images": {part: len(indices) for part, indices in run.parts.items()},
            "shape": list(classifier.example_input_array.shape[1:]),
            "classes": run.classes,
            "split": {
                key: data[key]
                for key in ("validation", "test", "split_seed", "stratify")
                + (("folds", "fold", "fold_seed", "stratify_folds") if data.folds else ())
            },
        },
        "seed": run.config.seed,
        "batch_size": recipe.batch_size,
        "optimizer": OmegaConf.to_container(recipe.optimizer, resolve=True),
        "parameters": {
            "total": count_parameters(classifier.net),
            "trainable": count_parameters(classifier.net, trainable_only=True),
        },
        "threads": torch.get_num_threads(),
        "precision": choose_precision(run.config)[0],
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def summarise(rows: Mapping[str, dict[str, float]]) -> dict[str, Any]:
    """Training and validation figures of the epochs in `rows`, "last" and, where there is validation, "best"."""

    def figures(row: Mapping[str, float], part: str) -> dict[str, float]:
        return {name: row[f"{part}_{name}"] for name in ("loss", "accuracy", "images")}

    return {
        "epochs": rows["last"]["epoch"],
        "train": figures(rows["last"], "train"),
        "validation": {
            which: {"epoch": row["epoch"]} | figures(row, "val") for which, row in rows.items() if "val_loss" in row
        },
    }


def log_hyperparameters(run: Run, result: dict[str, Any]) -> None:
    """To TensorBoard, with the last epoch's final figures and the network's graph."""
    recipe, classifier = OmegaConf.to_container(run.config.model, resolve=True), run.classifier
    groups = {name: recipe.pop(name) or {} for name in ("net", "optimizer", "augment", "schedule")}
    chosen = {name: groups[name].pop("_target_").rpartition(".")[2] for name in groups if "_target_" in groups[name]}
    del chosen["net"], recipe["name"], recipe["epochs"]
    groups["augment"] = {name: value for name, value in groups["augment"].items() if value}
    classifier.logger.log_hyperparams(
        {"model": result["model"], "data": result["data"]["name"]}
        | recipe
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
    classifier.logger.experiment.add_graph(classifier, classifier.example_input_array.to(classifier.device))
    classifier.logger.save()
