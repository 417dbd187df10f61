"""What a finished run leaves: result.json, curves.png, TensorBoard's hyper-parameters."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer

from lab.callbacks import Epochs, read_figures
from lab.classifier import Classifier
from lab.data import ImageData, Parts
from lab.datasets import Dataset
from lab.files import whole
from lab.network import count_parameters
from lab.plots import curves

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "scikit-learn", "hydra-core")


def final_figures(
    trainer: Trainer, classifier: Classifier, data: ImageData, history: list[dict[str, float]], folder: Path
) -> dict[str, Any]:
    """Loss and accuracy of the last epoch, and of the best where there is validation: the test part's one use."""

    def figures(row: Mapping[str, float], part: str) -> dict[str, float]:
        return {name: row[f"{part}_{name}"] for name in ("loss", "accuracy", "images")}

    epochs = {"last": history[-1]}
    if (folder / "best.ckpt").exists():
        epochs = {
            "best": max((row for row in history if "val_loss" in row), key=lambda row: row["val_accuracy"])
        } | epochs
    tested: dict[int, dict[str, float]] = {}  # by epoch: the best may be the last
    for which, row in epochs.items():
        if row["epoch"] not in tested:
            checkpoint = folder / f"{which}.ckpt"
            trainer.test(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False)
            tested[row["epoch"]] = figures(read_figures(trainer), "test")
    return {
        "epochs": history[-1]["epoch"],
        "train": figures(history[-1], "train"),
        "validation": {
            k: {"epoch": row["epoch"]} | figures(row, "val") for k, row in epochs.items() if "val_loss" in row
        },
        "test": {which: {"epoch": row["epoch"]} | tested[row["epoch"]] for which, row in epochs.items()},
    }


def describe(
    config: DictConfig, dataset: Dataset, parts: Parts, classes: list[str], classifier: Classifier
) -> dict[str, Any]:
    """What the figures of a run are figures of."""
    recipe, data = config.model, config.data
    return {
        "model": recipe.name,
        "data": {
            "name": data.name + ("_sample" if dataset.is_sample else ""),
            "images": {part: len(indices) for part, indices in parts.items()},
            "shape": list(classifier.example_input_array.shape[1:]),
            "classes": classes,
            "split": {
                key: data[key]
                for key in ("validation", "test", "split_seed", "stratify")
                + (("folds", "fold", "fold_seed", "stratify_folds") if data.folds else ())
            },
        },
        "seed": config.seed,
        "batch_size": recipe.batch_size,
        "optimizer": OmegaConf.to_container(recipe.optimizer, resolve=True),
        "parameters": {
            "total": count_parameters(classifier.net),
            "trainable": count_parameters(classifier.net, trainable_only=True),
        },
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def save(result: dict[str, Any], history: list[dict[str, float]], classifier: Classifier, folder: Path) -> None:
    """result.json, curves.png, and TensorBoard's graph and hyper-parameters with the final figures."""
    with whole(folder / "result.json") as path:
        path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    test = result["test"]["last"]
    title = f"{result['model']} on {result['data']['name']}"
    curves(
        history, f"{title}: test accuracy {test['accuracy']:.2%} after {test['epoch']} epochs", folder / "curves.png"
    )
    optimizer = dict(result["optimizer"])
    classifier.logger.log_hyperparams(
        {
            "model": result["model"],
            "data": result["data"]["name"],
            "optimizer": optimizer.pop("_target_").rpartition(".")[2],
            **{key: result[key] for key in ("epochs", "batch_size", "seed")},
            **optimizer,
        },
        {
            f"final/{part}_{name}": result[part]["last"][name]
            for part in ("validation", "test")
            for name in ("loss", "accuracy")
            if "last" in result[part]
        },
    )
    classifier.logger.experiment.add_graph(classifier, classifier.example_input_array.to(classifier.device))
    classifier.logger.save()


def speed(epochs: Epochs, seconds: float, trainer: Trainer) -> dict[str, Any]:
    """`seconds` of the whole training, validation and checkpoints included; images/s of the training batches alone."""
    return {
        "seconds": round(seconds, 3),
        "images_per_second": round(epochs.images / epochs.seconds, 1),
        "device": str(trainer.strategy.root_device),
        "processes": trainer.world_size,
    }
