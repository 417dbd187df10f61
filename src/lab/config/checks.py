"""Refuses values that have the right type and still make no sense, before torch is imported."""

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lab.config.overrides import known_keys, nearest
from lab.config.schema import CrossValidate, Train
from lab.errors import UserError, printable

MOST = 2**32, 1e38  # the greatest int, the greatest float
# types of options that Lightning does not check
KINDS = {"benchmark": bool, "detect_anomaly": bool, "profiler": str, "sync_batchnorm": bool}
# options of Lightning's Trainer that this program reads by name
TRAINERS = ("accelerator", "check_val_every_n_epoch", "devices", "gradient_clip_val", "limit_test_batches")
TRAINERS += ("limit_train_batches", "limit_val_batches", "max_epochs", "num_nodes", "precision")


def check(config: DictConfig, schema: type) -> None:
    """UserError where `config`, which a command has composed, has a key or a value that makes no sense."""
    _check_keys(config, schema)
    for key in sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{key} is missing: give {key}=...")
    check_values(config, schema)
    if schema is CrossValidate:
        _check_folds(config)
    if issubclass(schema, Train):
        check_start(config.trainer)
        _check_mode(config, schema)
        _check_together(config)


def check_values(config: DictConfig, schema: type = Train) -> None:
    """UserError where a value makes no sense by itself. The config may come from a run's folder."""
    check_plain(OmegaConf.to_container(config, resolve=True))
    _check_rules(config, schema)
    if not issubclass(schema, Train):
        return
    rate = config.model.optimizer.get("lr")
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not rate > 0:
        raise UserError(f"model.optimizer.lr={rate}: must be a number above 0")
    steps = (config.model.schedule or {}).get("step_size", 1)
    if not isinstance(steps, int) or steps < 1:
        raise UserError(f"model.schedule.step_size={steps}: must be 1 or more")
    if config.data.folds is not None and not 0 <= config.data.fold < config.data.folds:
        raise UserError(f"data.fold={config.data.fold}: must be from 0 to {config.data.folds - 1}")
    _check_trainer(config.trainer)


def _check_keys(node: DictConfig, schema: type, prefix: str = "") -> None:
    """UserError where a key is unknown, or has been removed."""
    known = {key.name: key.type for key in fields(schema)}
    for key in set(node) - set(known):
        raise UserError(f"{prefix}{key}: there is no such key{nearest(key, known_keys())}")
    for key in set(known) - set(node):
        raise UserError(f"{prefix}{key}: is needed: leave out ~{prefix}{key}")
    for key, kind in known.items():
        if is_dataclass(kind):
            _check_keys(node[key], kind, f"{prefix}{key}.")


def check_plain(node: Any, key: str = "") -> None:
    """UserError where `node`, nested dicts and lists, has a number too large for a library, or an unprintable name."""
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            check_plain(str(name), f"a key of {key or 'it'}")
            check_plain(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, int | float) and not abs(node) < (most := MOST[type(node) is float]):
        raise UserError(f"{key}={node}: must be a number between -{most:g} and {most:g}")
    elif isinstance(node, str) and printable(node) != node:
        raise UserError(f"{key}={printable(node)}: has characters that cannot be printed")


def _check_rules(node: DictConfig, schema: type, prefix: str = "") -> None:
    """UserError where a value breaks the rule that the schema has for its key."""
    for key in fields(schema):
        value, rule = node[key.name], key.metadata.get("rule")
        if is_dataclass(key.type):
            _check_rules(value, key.type, f"{prefix}{key.name}.")
        elif rule and value is not None and not rule.holds(value):
            raise UserError(f"{prefix}{key.name}={value}: must be {rule.words}")


def check_start(trainer: Mapping[str, Any]) -> None:
    """UserError where no run can start or go on with these options on this machine; one of another can be read here."""
    devices, nodes, cores = trainer["devices"], trainer["num_nodes"], os.cpu_count() or 1
    if isinstance(devices, int) and devices != -1 and not 1 <= devices <= cores:
        raise UserError(f"trainer.devices={devices}: must be from 1 to {cores}, the cores of this machine")
    if isinstance(devices, str) and devices != "auto" and "," not in devices:
        raise UserError(f"trainer.devices={devices}: must be a number, auto, or a list of GPUs")
    if nodes != 1 and not {"MASTER_ADDR", "SLURM_JOB_ID"} & os.environ.keys():
        raise UserError(f"trainer.num_nodes={nodes}: the other machines are not known: set MASTER_ADDR, or leave it 1")
    if not isinstance(trainer["max_epochs"], int | None):
        raise UserError(f"trainer.max_epochs={trainer['max_epochs']}: must be a whole number")
    if trainer.get("max_steps") == 0:
        raise UserError("trainer.max_steps=0: must be 1 or more, or -1 for no end")


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    if missing := [key for key in TRAINERS if key not in trainer]:
        raise UserError(f"trainer.{missing[0]}: is needed: leave out ~trainer.{missing[0]}")
    every = trainer["check_val_every_n_epoch"]
    if not isinstance(every, int) or every < 1:
        raise UserError(f"trainer.check_val_every_n_epoch={every}: must be 1 or more")
    for key, value in trainer.items():
        if OmegaConf.is_config(value) and key not in ("callbacks", "devices", "max_time"):
            raise UserError(f"trainer.{key}={value}: must be one value")
        if not isinstance(value, KINDS.get(key, object) | None):
            raise UserError(f"trainer.{key}={value}: must be {'true or false' if KINDS[key] is bool else 'a name'}")
    callbacks = trainer.get("callbacks")
    if callbacks is not None and not (OmegaConf.is_list(callbacks) and all(map(OmegaConf.is_dict, callbacks))):
        raise UserError(f"trainer.callbacks={callbacks}: must be a list, [{{_target_: my.Callback}}]")
    clip = trainer["gradient_clip_val"]
    if clip is not None and not (isinstance(clip, int | float) and clip > 0):
        raise UserError(f"trainer.gradient_clip_val={clip}: must be a number above 0, or left out")
    if trainer["precision"] is None:
        raise UserError("trainer.precision=null: must be one of Lightning's, 32-true for float32")
    for key in ("max_epochs", "limit_train_batches", "limit_test_batches"):
        if not isinstance(trainer[key], int | float | None) or trainer[key] == 0:
            raise UserError(f"trainer.{key}={trainer[key]}: must be a number, and not 0")
    limit = trainer["limit_train_batches"]
    if limit is not None and (not limit > 0 or (isinstance(limit, float) and limit > 1)):
        raise UserError(f"trainer.limit_train_batches={limit}: must be a number of batches, or a fraction of them")


def _check_together(config: DictConfig) -> None:
    """UserError where two keys do not go together."""
    model, data, trainer = config.model, config.data, config.trainer
    if config.speed and trainer.precision != "32-true":
        raise UserError(f"speed=fast chooses the precision: leave out trainer.precision={trainer.precision}")
    if model.schedule and trainer.max_epochs == -1:
        raise UserError("trainer.max_epochs=-1: a schedule needs an end")
    if data.folds is None and (data.fold or data.stratify_folds):
        raise UserError("data.fold and data.stratify_folds go with data.folds=5")
    if (data.validation or 0) + (data.test or 0) >= 1:
        raise UserError(f"data.validation={data.validation} data.test={data.test}: nothing is left to train on")
    if data.sample is not None and "sample" not in data.source:
        raise UserError(f"data.sample={data.sample}: data={data.name} has none, only data=mnist")
    if data.root is None and "fit" in data.source:
        raise UserError(f"data.root is missing: data={data.name} needs data.root=FOLDER, that of your pictures")
    for key in ("size", "fit", "colour", "group", "skip_broken", "cache"):
        if data[key] and key not in data.source:
            raise UserError(f"data.{key}={data[key]}: is for data=folder, not for data={data.name}")
    if config.weights is not None and "weights" not in model.net:
        raise UserError(f"weights={config.weights}: model={model.name} takes none, only pretrained networks do")
    if model.train is not None and "train" not in model.net:
        raise UserError(f"model.train={model.train}: is for timm's networks, not for model={model.name}")
    if config.early_stopping and trainer.get("val_check_interval") is not None:
        interval = f"trainer.val_check_interval={trainer.val_check_interval}"
        raise UserError(f"early_stopping counts epochs: leave out {interval}, which validates at other times")


def _check_folds(config: DictConfig) -> None:
    if config.data.folds is None or config.data.fold:
        raise UserError("cross_validate.py takes each fold in turn: give data.folds=5, and no data.fold")
    if config.trainer.limit_test_batches is not None:
        raise UserError("trainer.limit_test_batches is not for folds, which are scored whole")
    if config.trainer.get("fast_dev_run"):
        raise UserError("trainer.fast_dev_run is not for folds: it keeps nothing, train.py takes it")
    if not is_on_one_device(config):
        raise UserError("trainer=ddp and other runs on several devices are not for folds: workers=N is")
    if config.early_stopping or config.stop_below or "Plateau" in str(config.model.schedule):
        raise UserError("early_stopping, stop_below and schedule=plateau would look at the fold that scores")
    if config.threads != 1 or config.tune:
        raise UserError("threads and tune are not for folds: each takes one thread, and nothing is tuned on it")


def _check_mode(config: DictConfig, schema: type) -> None:
    """UserError where resume, tune or keys of a sweep are told with something that they do not go with."""
    is_multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    if config.resume:
        typed = HydraConfig.get().overrides.task
        others = [word for word in typed if not word.startswith(("resume=", "networks="))]
        if others or is_multirun or schema is CrossValidate:
            raise UserError(f"resume=RUN goes on as RUN/config.yaml says: leave out {(*others, '-m')[0]}")
    if config.tune and not is_on_one_device(config):
        raise UserError("tune=lr takes one device")
    if config.tune and config.trainer.get("fast_dev_run"):
        raise UserError("tune=lr keeps what it finds, trainer.fast_dev_run nothing: leave one out")
    if is_multirun and not is_on_one_device(config):
        raise UserError("trainer=ddp and other runs on several devices go one at a time: leave out -m")
    if is_multirun and config.tune:
        raise UserError("tune=lr goes one at a time: leave out -m")
    placed = any(word.startswith("hydra.run.dir=") for word in HydraConfig.get().overrides.hydra)
    if config.trainer.num_nodes != 1 and not placed and not config.resume:
        raise UserError("trainer.num_nodes: the machines need one folder: give hydra.run.dir, the same to each")
    if config.rerun and not is_multirun:
        raise UserError("rerun=true is of a sweep: a single run is always new")
    if config.show_test and not is_multirun:
        raise UserError("show_test=true is of a sweep: a single run always shows it")
    if config.search is not None and (not is_multirun or schema is CrossValidate):
        raise UserError(f"search={config.search} is of a sweep of train.py: type -m, and a range to search")
    if config.search is not None and config.report:
        raise UserError("report=true: a search has no page, its folder has the verdict and pictures: leave it out")
    if config.search is not None and config.show_test:
        raise UserError("show_test=true: a search shows the test accuracy of what it ends with alone")
    if config.search is not None and config.confirm and (config.data.folds or 0) > 2:
        told = f"with data.folds={config.data.folds} the other folds confirm"
        raise UserError(f"confirm={config.confirm}: {told}: leave it out, or give 0 for no verdict")
    refuse_without_search(config)


def refuse_without_search(config: DictConfig) -> None:
    """UserError where keys of a search are told without search=."""
    if config.search is None and (config.prune or config.confirm is not None):
        key = "prune=true" if config.prune else f"confirm={config.confirm}"
        raise UserError(f"{key} is of a search: give search=20 and a range, or leave it out")


def is_on_one_device(config: DictConfig) -> bool:
    """Whether one process trains it, also on a GPU that devices=[1] names."""
    devices = config.trainer.devices
    return config.trainer.num_nodes == 1 and (len(devices) if OmegaConf.is_list(devices) else devices) == 1
