"""Loads a finished run, its config, data and weights, and lets it predict."""

from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from pytorch_lightning import Trainer
from torch import nn

from lab.config.schema import data_folder, place_data
from lab.errors import UserError, first_line
from lab.models.build import all_finite
from lab.runs.folder import read_config, read_exported, read_result
from lab.runs.predictions import Predictions
from lab.training.checkpoint import read_checkpoint
from lab.training.prepare import Run, prepare
from lab.training.trainer import QUIET, ProgressBar, read_metrics

SCORES = ("loss", "accuracy", "images", "balanced_accuracy", "macro_f1")


def load(folder: Path, weights: str = "last", root: Path | None = None) -> Run:
    """The finished run of `folder` with the weights of its "last" or "best" epoch.

    Its data lies in `root`, else where it lay, else in $LAB_DATA.
    """
    config, result = read_config(folder), read_result(folder)
    path = folder / f"{weights}.ckpt"
    if not path.exists():
        hint = "this run kept its last epoch's weights only" if weights == "best" else "it is gone"
        raise UserError(f"{path}: there is no such file: {hint}")
    run = _prepare_again(config, folder, result["data"]["name"], root)
    if result["data"].get("sha256", run.dataset.sha256) != run.dataset.sha256:  # images were added, say
        place = data_folder(config.data.root)
        raise UserError(f"{folder}: the images in {place}, or their split, are not those of this run")
    load_weights(run, path)
    run.classifier.eval()
    return run


def load_exported(path: Path, root: Path | None) -> Run:
    """The run of a model.ts, which answers in place of the run's network."""
    metadata = read_exported(path)
    metadata["config"].trainer.precision, metadata["config"].speed = "32-true", None
    run = _prepare_again(metadata["config"], path, metadata["data"], root)
    try:
        run.classifier.net = Exported(torch.jit.load(path, map_location="cpu"))
    except RuntimeError as error:
        raise UserError(f"{path}: torch cannot load it ({first_line(error)})") from None
    return run


class Exported(nn.Module):
    """Gives the class probabilities of an exported `module` as logits: their logarithms."""

    frozen = 0

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.module(images).clamp(min=torch.finfo(torch.float32).tiny).log()

    head = forward


def load_weights(run: Run, path: Path) -> None:
    """Load the weights of a checkpoint. UserError where it is of another network, or a weight is not finite."""
    try:
        run.classifier.load_state_dict(read_checkpoint(path)["state_dict"])
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a checkpoint of this run and this version ({first_line(error)})") from None
    if not all_finite(run.classifier.net):
        raise UserError(f"{path}: its weights are not all finite numbers")


def _prepare_again(config: DictConfig, folder: Path, data: str, root: Path | None) -> Run:
    """The run without its weights. UserError where its data is not the set called `data`."""
    place_data(config, root)
    run = prepare(config, untrusted=True, has_weights=True)
    if run.dataset.name != data:
        raise UserError(f"{folder}: it is of {data}, but {data_folder(config.data.root)} gives {run.dataset.name}")
    return run


def predict(
    run: Run, part: str, trainer: Trainer | None = None, checkpoint: Path | None = None
) -> tuple[dict[str, float], Predictions]:
    """The SCORES on `part`, and the predictions.

    `trainer` takes the weights of `checkpoint`. Without them a new Trainer takes the run's weights and its precision.
    """
    trainer = trainer or _make_tester(run.config.trainer.precision, run.config.trainer.accelerator)
    try:
        trainer.test(run.classifier, datamodule=run.data(part), ckpt_path=checkpoint, weights_only=True, verbose=False)
    except SystemExit:  # Lightning makes it of Ctrl-C, and says nothing
        raise KeyboardInterrupt from None
    logged = read_metrics(trainer)
    logits, indices = (tensor.numpy(force=True) for tensor in run.classifier.outputs)
    if not np.isfinite(logits).all():
        raise UserError(f"model={run.config.model.name}: its answers are not finite: try a smaller learning rate")
    labels, sha256 = run.dataset.labels[indices], np.array(run.dataset.fingerprint(indices))
    predictions = Predictions(logits, labels, indices, np.array(run.dataset.classes), sha256)
    return {name: logged[f"test_{name}"] for name in SCORES}, predictions


def _make_tester(precision: str, accelerator: str) -> Trainer:
    """A Trainer that only tests, on the device at hand, or on the CPU where the run asked for that."""
    device = {"accelerator": "cpu" if accelerator == "cpu" else "auto", "devices": 1, "precision": precision}
    nothing = {"logger": False, "enable_checkpointing": False}  # to write
    try:
        return Trainer(**QUIET, **device, **nothing, callbacks=[ProgressBar()])
    except ValueError as error:
        raise UserError(f"trainer.precision={precision}: {error}") from None
