"""Values that have the right type and still make no sense, refused before torch is imported."""

import difflib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lab import UserError
from lab.config import CONF, SCHEMAS, CrossValidate, Data, Recipe, Train

PICTURES = ("photo", "on_black", "digit")  # on_black: inverted where it is light; digit: as MNIST was made


def check(config: DictConfig, root: type[Train]) -> None:
    """Refuse values that have the right type and still make no sense."""
    for prefix, node, schema in (("", config, root), ("model.", config.model, Recipe), ("data.", config.data, Data)):
        for key in set(node) - {known.name for known in fields(schema)}:
            raise UserError(f"{prefix}{key}: there is no such key{nearest(key, known_keys())}")
    for key in sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{key} is missing: give {key}=...")
    check_values(config)
    if root is CrossValidate:
        _check_folds(config)
    _check_mode(config, root)
    _check_together(config)


def check_values(config: DictConfig) -> None:
    """Refuse a value of a Train that makes no sense by itself; from the command line, or from a run's folder."""
    model, data, trainer = config.model, config.data, config.trainer
    rate = model.optimizer.get("lr")
    steps = (model.schedule or {}).get("step_size", 1)
    folds = 2 if data.folds is None else data.folds
    for key, value, holds, rule in (
        ("seed", config.seed, 0 <= config.seed < 2**32, "from 0 to 4294967295"),
        ("threads", config.threads, config.threads is None or config.threads >= 1, "1 or more"),
        (
            "early_stopping",
            config.early_stopping,
            config.early_stopping is None or config.early_stopping >= 1,
            "1 or more",
        ),
        ("speed", config.speed, config.speed in (None, "fast"), "fast, or left out"),
        ("tune", config.tune, config.tune in (None, "lr"), "lr: nothing else is tuned"),
        ("model.epochs", model.epochs, model.epochs >= 1, "1 or more"),
        ("model.batch_size", model.batch_size, model.batch_size >= 1, "1 or more"),
        ("model.scale", model.scale, model.scale > 0, "more than 0: pixels are divided by it"),
        ("model.optimizer.lr", rate, isinstance(rate, int | float) and rate > 0, "a number above 0"),
        ("model.schedule.step_size", steps, isinstance(steps, int) and steps >= 1, "1 or more"),
        ("model.augment.shift", model.augment.shift, 0 <= model.augment.shift < 1, "a fraction from 0 up to 1"),
        ("data.validation", data.validation, 0 <= (data.validation or 0) < 1, "a fraction from 0 up to 1"),
        ("data.test", data.test, 0 <= (data.test or 0) < 1, "a fraction from 0 up to 1"),
        ("data.folds", folds, folds >= 2, "2 or more"),
        ("data.picture", data.picture, data.picture in PICTURES, f"one of {', '.join(PICTURES)}"),
        ("data.fold", data.fold, data.folds is None or 0 <= data.fold < folds, f"from 0 to {folds - 1}"),
    ):
        if not holds:
            raise UserError(f"{key}={value}: must be {rule}")
    _check_trainer(trainer)


def _check_trainer(trainer: DictConfig) -> None:
    every = trainer.check_val_every_n_epoch
    if not isinstance(every, int) or every < 1:
        raise UserError(f"trainer.check_val_every_n_epoch={every}: must be 1 or more")
    clip = trainer.gradient_clip_val
    if clip is not None and not (isinstance(clip, int | float) and clip > 0):
        raise UserError(f"trainer.gradient_clip_val={clip}: must be a number above 0, or left out")
    if trainer.precision is None:
        raise UserError("trainer.precision=null: must be one of Lightning's, 32-true for float32")
    for key in ("max_epochs", "limit_train_batches", "limit_test_batches"):
        if not isinstance(trainer[key], int | float | None) or trainer[key] == 0:
            raise UserError(f"trainer.{key}={trainer[key]}: must be a number, and not 0")
    limit = trainer.limit_train_batches
    if limit is not None and (not limit > 0 or (isinstance(limit, float) and limit > 1)):
        raise UserError(f"trainer.limit_train_batches={limit}: must be a number of batches, or a fraction of them")


def _check_together(config: DictConfig) -> None:
    model, data, trainer = config.model, config.data, config.trainer
    if config.speed and trainer.precision != "32-true":
        raise UserError(f"speed=fast chooses the precision: leave out trainer.precision={trainer.precision}")
    if str(trainer.precision).startswith("16") and trainer.gradient_clip_val:
        raise UserError("trainer.gradient_clip_val: not with trainer.precision=16-mixed, whose gradients are scaled")
    if model.schedule and trainer.max_epochs == -1:
        raise UserError("trainer.max_epochs=-1: a schedule needs an end")
    if data.folds is None and (data.fold or data.stratify_folds):
        raise UserError("data.fold and data.stratify_folds go with data.folds=5")
    if (data.validation or 0) + (data.test or 0) >= 1:
        raise UserError(f"data.validation={data.validation} data.test={data.test}: nothing is left to train on")
    if data.sample is not None and "sample" not in data.source:
        raise UserError(f"data.sample={data.sample}: data={data.name} has none, only data=mnist")
    if config.weights is not None and "weights" not in model.net:
        raise UserError(f"weights={config.weights}: model={model.name} takes none, only model=resnet50")


def _check_folds(config: DictConfig) -> None:
    if config.workers is not None and config.workers < 1:
        raise UserError(f"workers={config.workers}: must be 1 or more")
    if config.data.folds is None or config.data.fold:
        raise UserError("cross_validate.py takes each fold in turn: give data.folds=5, and no data.fold")
    if config.trainer.limit_test_batches is not None:
        raise UserError("trainer.limit_test_batches is not for folds, which are scored whole")
    if not _is_on_one_device(config):
        raise UserError("trainer=ddp and other runs on several devices are not for folds: workers=N is")
    if config.early_stopping or "Plateau" in str(config.model.schedule):
        raise UserError("early_stopping and schedule=plateau would look at the fold that scores")
    if config.threads != 1 or config.tune:
        raise UserError("threads and tune are not for folds: each takes one thread, and nothing is tuned on it")


def _check_mode(config: DictConfig, root: type[Train]) -> None:
    """Resumed, tuned, or one of a sweep."""
    is_multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    if config.resume:
        others = [word for word in HydraConfig.get().overrides.task if not word.startswith("resume=")]
        if others or is_multirun or root is CrossValidate:
            raise UserError(f"resume=RUN goes on as RUN/config.yaml says: leave out {(*others, '-m')[0]}")
    if config.tune and not _is_on_one_device(config):
        raise UserError("tune=lr takes one device")
    if is_multirun and not _is_on_one_device(config):
        raise UserError("trainer=ddp and other runs on several devices go one at a time: leave out -m")
    if is_multirun and config.tune:
        raise UserError("tune=lr goes one at a time: leave out -m")
    if config.rerun and not is_multirun:
        raise UserError("rerun=true is of a sweep: a single run is always new")


def _is_on_one_device(config: DictConfig) -> bool:
    return config.trainer.devices == config.trainer.num_nodes == 1


def _keys(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted path of every key."""
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def known_keys() -> Iterator[str]:
    """Of the recipe and data set on the command line, read from their files: a second composition takes too long."""
    schema = SCHEMAS.get(Path(sys.argv[0]).stem, Train)
    yield from (known.name for known in fields(schema))
    if not issubclass(schema, Train):
        return
    yield from _keys(OmegaConf.to_container(OmegaConf.load(CONF / "trainer" / "default.yaml")), "trainer.")
    for group, schema, default in (("model", Recipe, "deep"), ("data", Data, "mnist")):
        given = [word.removeprefix(f"{group}=") for word in sys.argv[1:] if word.startswith(f"{group}=")]
        paths = [CONF / group / f"{name}.yaml" for name in (*given[-1:], default)]
        node = OmegaConf.merge(schema, OmegaConf.load(next(path for path in paths if path.exists())))
        yield from _keys(OmegaConf.to_container(node), f"{group}.")


def nearest(key: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no key is near."""
    known = list(known)
    last = key.split(".")[-1]
    exact = [path for path in known if path.split(".")[-1] == last]
    by_name = {path.split(".")[-1]: path for path in known}
    close = [by_name[name] for name in difflib.get_close_matches(last, by_name, 1)]
    found = exact or difflib.get_close_matches(key, known, 1) or close
    return f"; did you mean '{found[0]}'?" if found else ""
