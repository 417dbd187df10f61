"""A run: the one place where recipe, data, network and trainer meet, and where its folder is written."""

import functools
import inspect
import logging
import pkgutil
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import Optimizer

from lab import UserError
from lab.augment import augment
from lab.callbacks import Epochs, Histograms, ProgressBar
from lab.classifier import Classifier
from lab.config import data_folder
from lab.data import ImageData, Parts, split, take_fold
from lab.datasets import Dataset
from lab.network import Layer, build, count_parameters
from lab.results import describe, final_figures, save, speed
from lab.terminal import print_data, print_layers, print_result, warn

MOST_UNNAMED_CLASSES = 10_000


class Events(TensorBoardLogger):
    """TensorBoard's files beside the others of the run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False)

    def save(self) -> None:
        """No hparams.yaml: config.yaml has it all."""
        self.experiment.flush()


def fit(config: DictConfig) -> None:
    """Train the recipe on the data, test its best and its last epoch, leave everything in Hydra's run folder."""
    _silence_libraries()
    torch.set_flush_denormal(True)  # as TensorFlow does: the tiny gradients of raw pixels take twice the time without
    seed_everything(config.seed, verbose=False)
    folder = Path(HydraConfig.get().runtime.output_dir)
    dataset, parts, classes = load_data(config.data)
    height, width, channels = dataset.images.shape[1:]
    classifier, layers = build_classifier(config.model, (channels, height, width), len(classes))
    trainer = make_trainer(config, folder, validates=len(parts["validation"]) > 0)
    if rank_zero_only.rank == 0:
        claim(folder, config)
        print_start(config, dataset, parts, classes, classifier, layers)
    if rank_zero_only.rank:  # dropout and augmentation of its own; the weights come from the first process
        torch.manual_seed(config.seed + rank_zero_only.rank)
    data = ImageData(dataset, parts, config.model.batch_size, config.seed)
    started = time.perf_counter()
    try:
        trainer.fit(classifier, datamodule=data)
        seconds = time.perf_counter() - started
        epochs = next(callback for callback in trainer.callbacks if isinstance(callback, Epochs))
        figures = final_figures(trainer, classifier, data, epochs.rows, folder)
    except MisconfigurationException as error:
        raise UserError(f"trainer: {error}") from None
    if trainer.is_global_zero:
        result = describe(config, dataset, parts, classes, classifier) | figures | speed(epochs, seconds, trainer)
        save(result, epochs.rows, classifier, folder)
        print_result(result, folder)


def load_data(config: DictConfig) -> tuple[Dataset, Parts, list[str]]:
    """The data set that `config`, a Data, names, the indices of its parts, the names of its classes."""
    dataset: Dataset = _call("data.source", config.source, root=data_folder(config.root))
    classes = list(config.classes or map(str, range(min(dataset.labels.max() + 1, MOST_UNNAMED_CLASSES))))
    if dataset.labels.min() < 0 or dataset.labels.max() >= len(classes):
        raise UserError(
            f"data={config.name}: labels run from {dataset.labels.min()} to {dataset.labels.max()}, "
            f"but the {len(classes)} classes are numbered from 0 to {len(classes) - 1}"
        )
    parts = split(dataset, config.validation, config.test, config.split_seed, config.stratify)
    if config.folds:
        parts = take_fold(parts, dataset.labels, config.folds, config.fold, config.fold_seed, config.stratify_folds)
    if len(parts["train"]) == 0 or len(parts["test"]) == 0:
        raise UserError(f"data={config.name}: no images are left to {'test' if len(parts['train']) else 'train'} on")
    return dataset, parts, classes


def build_classifier(recipe: DictConfig, shape: tuple[int, int, int], classes: int) -> tuple[Classifier, list[Layer]]:
    """The network of `recipe` for images [n, *shape], ready to train, and its layers."""
    architecture = _call("model.net", recipe.net, classes=classes)
    net, layers = build(architecture, shape, recipe.scale, recipe.name)
    changes = dict(recipe.augment)
    changing = functools.partial(augment, **changes) if any(changes.values()) else None
    classifier = Classifier(net, functools.partial(_make_optimizer, recipe.optimizer), changing)
    classifier.example_input_array = torch.zeros(1, *shape, dtype=torch.uint8)  # for the graph
    if recipe.batch_size == 1 and any(isinstance(module, nn.BatchNorm1d) for module in net.modules()):
        raise UserError(f"model.batch_size=1: model={recipe.name} has batch normalisation, which needs two images")
    classifier.configure_optimizers()  # refuses its options now, not after the run folder is made
    return classifier, layers


def make_trainer(config: DictConfig, folder: Path, validates: bool) -> Trainer:
    """Lightning's Trainer, with our callbacks and what `config.trainer` says."""
    options = OmegaConf.to_container(config.trainer, resolve=True)
    options["max_epochs"] = options["max_epochs"] or config.model.epochs
    unknown = set(options) - set(inspect.signature(Trainer.__init__).parameters)
    if unfit := {"val_check_interval", "fast_dev_run", "overfit_batches", "barebones"} & set(options):
        raise UserError(f"trainer.{min(unfit)}: is not for these runs, which validate and keep figures once an epoch")
    if unknown:
        raise UserError(f"trainer.{min(unknown)}: Lightning's Trainer has no such option")
    checkpoints = [ModelCheckpoint(folder, "last", enable_version_counter=False, save_on_train_epoch_end=True)]
    if validates and options["limit_val_batches"] != 0:
        checkpoints.append(
            ModelCheckpoint(folder, "best", monitor="val_accuracy", mode="max", enable_version_counter=False)
        )
    try:
        return Trainer(
            **options,
            logger=Events(folder),
            callbacks=[
                Epochs(folder / "metrics.csv"),
                ProgressBar(),
                *checkpoints,
                *[Histograms()] * config.histograms,
            ],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"trainer: {error}") from None


def claim(folder: Path, config: DictConfig) -> None:
    """Write config.yaml, which makes the folder this run's: a folder that has one is another run's."""
    path = folder / "config.yaml"
    try:
        with path.open("x") as file:
            file.write(OmegaConf.to_yaml(config, resolve=True))
    except FileExistsError:
        raise UserError(f"{folder} holds another run: choose another hydra.run.dir") from None
    except OSError:  # a full disk: half a config would claim the folder for good
        path.unlink(missing_ok=True)
        raise


def print_start(
    config: DictConfig, dataset: Dataset, parts: Parts, classes: list[str], classifier: Classifier, layers: list[Layer]
) -> None:
    """The data and the network, and whatever the user should know of them."""
    shape = "x".join(map(str, classifier.example_input_array.shape[1:]))
    name = config.data.name
    if dataset.is_sample:
        name += " SAMPLE"
        warn(
            "This is NOT the MNIST data set: neither its files nor a network were found, so this run uses a sample of "
            "5,000 of its images. Its scores are not MNIST's. For the real set put the four files of "
            f"{config.data.source.mirrors[0]} into {data_folder(config.data.root) / config.data.source.folder}, or "
            "name their place with data.root=FOLDER or LAB_DATA; data.sample=false makes this an error."
        )
    print_data(f"{name}: {len(dataset.labels):,} images of {shape}", dataset, parts, classes)
    total, trainable = (count_parameters(classifier.net, only) for only in (False, True))
    print_layers(config.model.name, layers, total, trainable)
    if config.trainer.max_epochs:
        print(f"trainer.max_epochs={config.trainer.max_epochs} wins over model.epochs={config.model.epochs}")


def _call(key: str, config: DictConfig, *args: Any, **kwargs: Any) -> Any:
    """What `_target_` names, called with the other keys of `config`, which lies at `key`."""
    options = OmegaConf.to_container(config, resolve=True)
    target = options.pop("_target_")
    try:
        function = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}._target_={target}: there is no such thing ({error})") from None
    known = inspect.signature(function).parameters
    for option in options:
        if option not in known:
            raise UserError(f"{key}.{option}: {target} has no such option, it knows {', '.join(known)}")
    try:
        return function(*args, **options, **kwargs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{key}: {error}") from None


def _make_optimizer(config: DictConfig, groups: list[dict[str, Any]]) -> Optimizer:
    """Fused where torch has it and nothing speaks against it: the same sums in fewer passes over memory."""
    known = inspect.signature(getattr(torch.optim, config._target_.rpartition(".")[2], object)).parameters
    fused = "fused" in known and not {"fused", "foreach", "differentiable"} & set(config)
    return _call("model.optimizer", config, groups, **({"fused": True} if fused else {}))


def _silence_libraries() -> None:
    """What Lightning and torch say at every start, and what no user can act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    for message in (
        ".*torch.jit",  # TensorBoard's graph is traced
        "Converting a tensor to a Python boolean",
        "Found .* module.* in eval mode",  # the frozen backbone
        ".*LeafSpec",
        ".*sync_dist=True",  # Score has added up the processes
        "Checkpoint directory .* exists",
        ".*across ranks is zero",  # no validation part
        ".*number of training batches",  # and of steps between logs: we log epochs
    ):
        warnings.filterwarnings("ignore", message)
