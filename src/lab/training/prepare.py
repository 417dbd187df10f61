"""Prepares a run from a config: data set, network, loss, optimizer, schedule."""

import contextlib
import copy
import ctypes
import functools
import inspect
import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from pytorch_lightning import seed_everything
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lab.config.instantiate import instantiate
from lab.datasets.augment import augment, mix
from lab.datasets.batches import Features, ImageData
from lab.datasets.dataset import Dataset, load
from lab.errors import UserError
from lab.models.build import Layer, build
from lab.training.classifier import Classifier


@dataclass
class Run:
    """A network and the data set that it is for, as `config`, a Train, describes them."""

    config: DictConfig
    dataset: Dataset
    classifier: Classifier
    layers: list[Layer]

    def data(self, tested: str = "test", whole_epochs: bool = False) -> ImageData:
        """The data set in batches; see ImageData."""
        size, changes = self.config.model.batch_size, self.classifier.changes_images
        return ImageData(self.dataset, size, draw_seed(self.config), tested, whole_epochs, self.features, changes)

    @functools.cached_property
    def features(self) -> Features | None:
        """What the network's frozen layers make of the images; None where it has none."""
        net = self.classifier.net
        return Features(torch.from_numpy(self.dataset.images), net) if net.frozen else None


def prepare(config: DictConfig, untrusted: bool = False, has_weights: bool = False) -> Run:
    """The run that `config` describes, with weights drawn by its seed, or of a checkpoint to come: it `has_weights`.

    An untrusted config comes from a run's folder, perhaps a stranger's: see datasets.dataset.load.
    """
    _silence_libraries()
    _keep_memory()
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"  # Lightning's 1 loads the driver's library at each step of Adam
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)  # as TensorFlow does: the tiny gradients of raw pixels take twice the time without
    # of speed=fast also TensorFloat32 and the fastest of several convolutions; else float32 is float32
    is_fast = config.speed is not None and torch.cuda.is_available()
    torch.set_float32_matmul_precision("high" if is_fast else "highest")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = is_fast
    seed_everything(draw_seed(config), verbose=False)
    dataset = load(config.data, untrusted)
    classifier, layers = build_classifier(config, dataset.shape, len(dataset.classes), has_weights)
    classifier.train_loss = make_loss(config.model, dataset)
    return Run(config, dataset, classifier, layers)


def draw_seed(config: DictConfig) -> int:
    """The seed of the first weights, the order of the images, dropout and augmentation.

    Each fold has its own, from seed and fold: with one for all, the spread over folds would leave out that of draws.
    """
    if not config.data.folds:
        return config.seed
    return int(np.random.SeedSequence([config.seed, config.data.fold]).generate_state(1)[0])


def build_classifier(
    config: DictConfig, shape: tuple[int, int, int], classes: int, has_weights: bool = False
) -> tuple[Classifier, list[Layer]]:
    """The network of `config`, a Train, for images [n, *shape], with its optimizer; and the table of its layers.

    A pretrained network reads no weights where it `has_weights` to come.
    """
    recipe = config.model
    left_out = {"weights": False} if has_weights and "weights" in recipe.net else {}
    architecture = instantiate("model.net", recipe.net, nn.Sequential, classes=classes, **left_out)
    net, layers = build(architecture, shape, recipe.scale, recipe.name)
    if (answer := layers[-1].shape) != (classes,):  # of the user's own
        told = "x".join(map(str, answer)) or "one number"
        raise UserError(f"model={recipe.name}: gives {told} for an image, must give {classes} logits, one a class")
    if recipe.batch_size == 1 and any(isinstance(module, nn.BatchNorm1d) for module in net.modules()):
        raise UserError(f"model.batch_size=1: model={recipe.name} has batch normalisation, which needs two images")
    changes = dict(recipe.augment)
    mixup = changes.pop("mixup")
    mixing = functools.partial(mix, classes=classes, alpha=mixup) if mixup else None
    changing = functools.partial(augment, **changes) if any(changes.values()) else None
    optimizer = make_optimizer(recipe.optimizer, net, bool(config.trainer.gradient_clip_val))
    scheduling = functools.partial(_make_schedule, recipe.schedule) if recipe.schedule else None
    if scheduling:
        scheduling(copy.deepcopy(optimizer), 1000 * recipe.epochs)  # refuses its options before the folder is made
    classifier = Classifier(net, optimizer, classes, scheduling, changing, mixing)
    classifier.example_input_array = torch.zeros(1, *shape, dtype=torch.uint8)  # for the graph
    return classifier, layers


def make_loss(recipe: DictConfig, dataset: Dataset) -> nn.CrossEntropyLoss:
    """The loss that `recipe` trains by. Balanced, all classes weigh the same, as by scikit-learn's class_weight."""
    counts, weights = torch.from_numpy(dataset.counts()["train"]), None
    if recipe.class_weights:
        weights = (counts.sum() / (len(counts) * counts)).where(counts > 0, 0).float()
    return nn.CrossEntropyLoss(weights, label_smoothing=recipe.label_smoothing or 0.0)


def make_optimizer(config: DictConfig, net: nn.Module, clips: bool = False) -> Optimizer:
    """The optimizer of `config` for the parameters of `net` that train.

    It is fused where torch has that and nothing forbids it: the same sums in fewer passes over memory. Keras' l2(x)
    adds x * w ** 2 to the loss, which has the gradient of a weight decay of 2 x, beside the recipe's own. Layers with
    a `rate_factor` learn at so much of the recipe's rate.
    """
    fuses = "fused" in _parameters(torch.optim, config._target_)
    fused = fuses and not clips and not {"fused", "foreach", "differentiable"} & set(config)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                l2 = getattr(module, "l2", 0.0) if name == "weight" else 0.0
                groups.setdefault((l2, getattr(module, "rate_factor", 1.0)), []).append(parameter)
    groups = dict(sorted(groups.items(), key=lambda group: -group[0][1]))  # the recipe's own rate is the first
    params = [{"params": params} for params in groups.values()]
    optimizer = instantiate("model.optimizer", config, Optimizer, params, **({"fused": True} if fused else {}))
    for (l2, factor), group in zip(groups, optimizer.param_groups, strict=True):
        group["lr"] *= factor
        if l2 and "weight_decay" not in optimizer.defaults:
            raise UserError(f"model.optimizer._target_={config._target_}: the network's l2 needs one with weight_decay")
        if l2:
            group["weight_decay"] = group.get("weight_decay", 0) + 2 * l2
    return optimizer


def _make_schedule(config: DictConfig, optimizer: Optimizer, steps: int) -> dict[str, Any]:
    """Lightning's lr_scheduler: it goes epoch by epoch, or step by step where the schedule must know its last step."""
    known = _parameters(torch.optim.lr_scheduler, config._target_)
    ends = {key: steps for key in ("total_steps", "T_max") if key in known and key not in config}
    peaks = {}
    if isinstance(config.get("max_lr"), int | float):  # each group's own
        shares = [group["lr"] / optimizer.defaults["lr"] for group in optimizer.param_groups]
        peaks = {"max_lr": [config.max_lr * share for share in shares]}
    scheduler = instantiate("model.schedule", config, LRScheduler, optimizer, **ends, **peaks)
    return {"scheduler": scheduler, "interval": "step" if ends else "epoch"}


def _parameters(module: ModuleType, target: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of `target` where `module`, torch's, has a class of that name; else none is known."""
    return inspect.signature(getattr(module, str(target).rpartition(".")[2], object)).parameters


def _keep_memory() -> None:
    """Let glibc keep the memory that a step frees for the next: zeroing its pages anew takes up to half the time."""
    mmap_max, trim_threshold = -4, -1
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _silence_libraries() -> None:
    """Silence what Lightning and torch say at every start, and what no user can act on."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)  # its table is what was asked for
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    for message in (
        ".*torch.jit",  # TensorBoard's graph is traced, and devices read nothing newer
        "Found .* module.* in eval mode",  # the frozen backbone
        ".*LeafSpec",
        ".*sync_dist=True",  # Score has added up the processes
        "Checkpoint directory .* exists",
        ".*across ranks is zero",  # no validation part
        ".*number of training batches",  # and of steps between logs: we log epochs
        "Grad strides do not match",  # of channels_last, in several processes
        ".*dataloader shuffling",  # of overfit_batches: ImageData does not shuffle then
        ".*ModelCheckpoint.* could not find the monitored key",  # max_steps may end before a validation
        "ReduceLROnPlateau conditioned on metric",  # of an epoch without validation
    ):
        warnings.filterwarnings("ignore", message)
