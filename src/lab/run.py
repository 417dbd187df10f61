"""A run: the one place where recipe, data and network meet, new or with the weights of a run folder."""

import contextlib
import ctypes
import functools
import inspect
import logging
import os
import pkgutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer, seed_everything
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lab import UserError
from lab.augment import augment
from lab.callbacks import ProgressBar, read_figures
from lab.classifier import Classifier
from lab.config import CONF, data_folder
from lab.data import ImageData, Parts, make_folds, split
from lab.datasets import Dataset
from lab.duplicates import find_leaked
from lab.files import refuse_bomb
from lab.folder import read_config, read_exported, read_result
from lab.network import Layer, build
from lab.predictions import Predictions, fingerprint
from lab.speed import fast_precision

MOST_UNNAMED_CLASSES = 1_000


@dataclass
class Run:
    """A network for a data set, both as `config`, a Train, says."""

    config: DictConfig
    dataset: Dataset
    parts: Parts
    classes: list[str]
    classifier: Classifier
    layers: list[Layer]


def prepare(config: DictConfig, is_strange: bool = False) -> Run:
    """What `config` describes, with weights drawn by its seed; a strange one may be somebody else's: see load_data."""
    _silence_libraries()
    _keep_memory()
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"  # Lightning's 1 loads the driver's library at each step of Adam
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32: speed=fast says otherwise
    torch.set_flush_denormal(True)  # as TensorFlow does: the tiny gradients of raw pixels take twice the time without
    seed_everything(config.seed, verbose=False)
    dataset, classes = load_data(config.data, is_strange)
    parts = split_data(dataset, config.data)
    height, width, channels = dataset.images.shape[1:]
    classifier, layers = build_classifier(config.model, (channels, height, width), len(classes))
    return Run(config, dataset, parts, classes, classifier, layers)


def load(folder: Path, weights: str = "last", root: Path | None = None) -> Run:
    """The finished run of `folder` with the weights of its "last" or "best" epoch; its data lies in `root`.

    Without `root` it lies where it lay, else in $LAB_DATA.
    """
    config, result = read_config(folder), read_result(folder)
    path = folder / f"{weights}.ckpt"
    if not path.exists():
        hint = "this run kept its last epoch's weights only" if weights == "best" else "it is gone"
        raise UserError(f"{path}: there is no such file: {hint}")
    run = _prepare_again(config, folder, result["data"]["name"], root)
    load_weights(run, path)
    run.classifier.eval()
    return run


def load_weights(run: Run, path: Path) -> None:
    """Those of a checkpoint of this very network."""
    try:
        run.classifier.load_state_dict(check_checkpoint(path)["state_dict"])
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        line = str(error).partition("\n")[0]
        raise UserError(f"{path}: not a checkpoint of this run and this version ({line})") from None


def check_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint has; nothing in it is run."""
    try:
        refuse_bomb(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises whatever its parser does
        line = str(error).partition("\n")[0]
        raise UserError(f"{path}: not a checkpoint of this run and this version ({line})") from None


def load_exported(path: Path, root: Path | None = None) -> Run:
    """The same of a model.ts, which answers in the place of its network."""
    metadata = read_exported(path)
    metadata["config"].trainer.precision, metadata["config"].speed = "32-true", None
    run = _prepare_again(metadata["config"], path, metadata["data"], root)
    try:
        run.classifier.net = Exported(torch.jit.load(path, map_location="cpu"))
    except RuntimeError as error:
        raise UserError(f"{path}: torch cannot load it ({str(error).partition(chr(10))[0]})") from None
    return run


class Exported(nn.Module):
    """Class probabilities as logits, whose softmax they are."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.module(images).clamp(min=torch.finfo(torch.float32).tiny).log()


def _prepare_again(config: DictConfig, folder: Path, data: str, root: Path | None) -> Run:
    place_data(config, root)
    if "weights" in config.model.net:
        config.model.net.weights = False  # the checkpoint has them
    run = prepare(config, is_strange=True)
    if data_name(run) != data:
        raise UserError(f"{folder}: it is of {data}, but {data_folder(config.data.root)} gives {data_name(run)}")
    return run


def place_data(config: DictConfig, root: Path | str | None) -> None:
    """The data lies in `root`, else where it lay when the run began, else in $LAB_DATA."""
    if root or config.data.root is None or not data_folder(config.data.root).is_dir():
        config.data.root = str(root) if root else os.environ.get("LAB_DATA")


def predict(
    run: Run, part: str, trainer: Trainer | None = None, checkpoint: Path | None = None
) -> tuple[dict[str, float], Predictions]:
    """Loss, accuracy and number of images of `part`, and the predictions.

    By `trainer` with the weights of `checkpoint`, else with those that the run has, in the precision it had.
    """
    trainer = trainer or _make_tester(choose_precision(run.config)[0], run.config.trainer.accelerator)
    data = ImageData(run.dataset, run.parts, run.config.model.batch_size, run.config.seed, tested=part)
    try:
        trainer.test(run.classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    except SystemExit:  # Lightning makes it of Ctrl-C, and says nothing
        raise KeyboardInterrupt from None
    logged = read_figures(trainer)
    logits, indices = (tensor.numpy(force=True) for tensor in run.classifier.outputs)
    if not np.isfinite(logits).all():
        raise UserError(f"model={run.config.model.name}: its answers are not finite: try a smaller learning rate")
    labels, sha256 = run.dataset.labels[indices], np.array(fingerprint(run.dataset, indices))
    predictions = Predictions(logits, labels, indices, np.array(run.classes), sha256)
    return {name: logged[f"test_{name}"] for name in ("loss", "accuracy", "images")}, predictions


def _make_tester(precision: str, accelerator: str) -> Trainer:
    """On the device at hand, or on the CPU where the run asked for it."""
    try:
        return Trainer(
            accelerator="cpu" if accelerator == "cpu" else "auto",
            devices=1,
            precision=precision,
            callbacks=[ProgressBar()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except ValueError as error:
        raise UserError(f"trainer.precision={precision}: {error}") from None


def data_name(run: Run) -> str:
    """mnist, or mnist_sample where it is one."""
    return run.config.data.name + ("_sample" if run.dataset.is_sample else "")


def load_data(config: DictConfig, is_strange: bool = False) -> tuple[Dataset, list[str]]:
    """The data set that `config`, a Data, names, and the names of its classes.

    Of a strange config nothing is downloaded but what this project names itself.
    """
    source = _without_addresses(config.source) if is_strange else config.source
    dataset = _call("data.source", source, Dataset, root=data_folder(config.root))
    if not len(dataset.labels):
        raise UserError(f"data={config.name}: it has no images")
    if config.classes and len(set(config.classes)) < len(config.classes):
        raise UserError(f"data.classes={config.classes}: each class needs a name of its own")
    classes = list(config.classes or map(str, range(min(dataset.labels.max() + 1, MOST_UNNAMED_CLASSES))))
    if dataset.labels.min() < 0 or dataset.labels.max() >= len(classes):
        raise UserError(
            f"data={config.name}: labels run from {dataset.labels.min()} to {dataset.labels.max()}, "
            f"but the {len(classes)} classes are numbered from 0 to {len(classes) - 1}"
        )
    return dataset, classes


def _without_addresses(source: DictConfig) -> DictConfig:
    """`source`, a stranger's, where a file could be written anywhere; as it is where conf/data/ has the same."""
    decisive = {key: value for key, value in source.items() if key not in ("sample", "md5")}
    for path in (CONF / "data").glob("*.yaml"):
        ours = OmegaConf.to_container(OmegaConf.load(path)).get("source", {})
        if decisive == {key: value for key, value in ours.items() if key not in ("sample", "md5")}:
            return source
    return OmegaConf.merge(source, {key: empty for key, empty in (("mirrors", []), ("url", "")) if key in source})


def split_data(dataset: Dataset, config: DictConfig) -> Parts:
    """The parts that `config`, a Data, cuts from its data set; with folds, those of its fold."""
    parts = folds_of(dataset, config)[config.fold] if config.folds else _cut(dataset, config)
    if config.drop_duplicates:
        parts["train"] = parts["train"][~find_leaked(dataset, parts)]
        if not len(parts["train"]):
            raise UserError("data.drop_duplicates=true: no images are left to train on")
    return parts


def _cut(dataset: Dataset, config: DictConfig) -> Parts:
    parts = split(dataset, config.validation, config.test, config.split_seed, config.stratify)
    if len(parts["train"]) == 0 or len(parts["test"]) == 0:
        raise UserError(f"data={config.name}: no images are left to {'test' if len(parts['train']) else 'train'} on")
    return parts


def count_classes(dataset: Dataset, parts: Parts, classes: list[str]) -> dict[str, npt.NDArray[np.int64]]:
    """Images of each class, [classes], in each part."""
    return {part: np.bincount(dataset.labels[indices], minlength=len(classes)) for part, indices in parts.items()}


def folds_of(dataset: Dataset, config: DictConfig) -> list[Parts]:
    """The parts of each fold that `config`, a Data, names; nothing is dropped from them."""
    return make_folds(_cut(dataset, config), dataset.labels, config.folds, config.fold_seed, config.stratify_folds)


def choose_precision(config: DictConfig) -> tuple[str, str]:
    """Lightning's precision, and why where speed=fast has chosen it."""
    if config.speed is None:
        return config.trainer.precision, ""
    return fast_precision(torch.accelerator.current_accelerator().type if runs_on_gpu(config) else "cpu")


def with_precision(config: DictConfig) -> DictConfig:
    """The config that a run's folder keeps: what speed=fast has chosen here stays, wherever the run goes on."""
    if config.speed is None:
        return config
    chosen = config.copy()
    chosen.trainer.precision, chosen.speed = choose_precision(config)[0], None
    return chosen


def runs_on_gpu(config: DictConfig) -> bool:
    """Whether what the trainer's accelerator names is not the CPU."""
    return config.trainer.accelerator != "cpu" and torch.accelerator.is_available()


def build_classifier(recipe: DictConfig, shape: tuple[int, int, int], classes: int) -> tuple[Classifier, list[Layer]]:
    """The network of `recipe` for images [n, *shape], ready to train, and its layers."""
    architecture = _call("model.net", recipe.net, nn.Sequential, classes=classes)
    net, layers = build(architecture, shape, recipe.scale, recipe.name)
    changes = dict(recipe.augment)
    changing = functools.partial(augment, **changes) if any(changes.values()) else None
    scheduling = functools.partial(_make_schedule, recipe.schedule) if recipe.schedule else None
    classifier = Classifier(net, functools.partial(_make_optimizer, recipe.optimizer), scheduling, changing)
    classifier.example_input_array = torch.zeros(1, *shape, dtype=torch.uint8)  # for the graph
    if recipe.batch_size == 1 and any(isinstance(module, nn.BatchNorm1d) for module in net.modules()):
        raise UserError(f"model.batch_size=1: model={recipe.name} has batch normalisation, which needs two images")
    optimizer = classifier.build_optimizer()  # refuses its options now, not after the run folder is made
    if scheduling:
        scheduling(optimizer, 1000 * recipe.epochs)
    return classifier, layers


def _call(key: str, config: DictConfig, kind: type, *args: Any, **kwargs: Any) -> Any:
    """The `kind` that `_target_` names, called with the other keys of `config`, which lies at `key`."""
    options = OmegaConf.to_container(config, resolve=True)
    target = str(options.pop("_target_"))
    function = _resolve(key, target)
    known = _parameters(key, function)
    for option in options:
        if option not in known:
            raise UserError(f"{key}.{option}: {target} has no such option, it knows {', '.join(known)}")
    try:
        made = function(*args, **options, **kwargs)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"{key}: {error}") from None
    if not isinstance(made, kind):
        raise UserError(f"{key}._target_={target}: gives a {type(made).__name__}, must give a {kind.__name__}")
    return made


def _resolve(key: str, target: str) -> Callable[..., Any]:
    try:
        function = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}._target_={target}: there is no such thing ({error})") from None
    if not callable(function):
        raise UserError(f"{key}._target_={target}: not a thing to call")
    return function


def _parameters(key: str, function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:  # a builtin's are not known
        raise UserError(f"{key}: {error}") from None


def _make_optimizer(config: DictConfig, groups: list[dict[str, Any]]) -> Optimizer:
    """Fused where torch has it and nothing speaks against it: the same sums in fewer passes over memory."""
    known = inspect.signature(getattr(torch.optim, str(config._target_).rpartition(".")[2], object)).parameters
    fused = "fused" in known and not {"fused", "foreach", "differentiable"} & set(config)
    return _call("model.optimizer", config, Optimizer, groups, **({"fused": True} if fused else {}))


def _make_schedule(config: DictConfig, optimizer: Optimizer, steps: int) -> dict[str, Any]:
    """One that knows its end is told it in steps and goes step by step, the others epoch by epoch."""
    known = _parameters("model.schedule", _resolve("model.schedule", str(config._target_)))
    ends = {key: steps for key in ("total_steps", "T_max") if key in known and key not in config}
    scheduler = _call("model.schedule", config, LRScheduler, optimizer, **ends)
    return {"scheduler": scheduler, "interval": "step" if ends else "epoch"}


def _keep_memory() -> None:
    """glibc then keeps what a step frees for the next one, which else zeroes its pages anew: up to twice the speed."""
    mmap_max, trim_threshold = -4, -1
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _silence_libraries() -> None:
    """What Lightning and torch say at every start, and what no user can act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    for message in (
        ".*torch.jit",  # TensorBoard's graph is traced, and devices read nothing newer
        "Converting a tensor to a Python boolean",
        "Found .* module.* in eval mode",  # the frozen backbone
        ".*LeafSpec",
        ".*sync_dist=True",  # Score has added up the processes
        "Checkpoint directory .* exists",
        ".*across ranks is zero",  # no validation part
        ".*number of training batches",  # and of steps between logs: we log epochs
    ):
        warnings.filterwarnings("ignore", message)
