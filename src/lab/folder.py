"""A run's folder: claimed by the run that writes it, read by the commands that evaluate it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lab import UserError
from lab.config import Train


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


def read_config(folder: Path) -> DictConfig:
    """The Train config of a run. What it names to be called is ours or torch's: a folder may be a stranger's."""
    path = folder / "config.yaml"
    if folder.is_file():
        raise UserError(f"{folder}: a file: give the run's folder")
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; run folders lie in outputs/")
    if not path.exists():
        runs = sorted(config.parent.name for config in folder.glob("*/config.yaml"))
        inside = f"its runs are {', '.join(runs)}" if runs else "it has no config.yaml"
        raise UserError(f"{folder}: not a run's folder: {inside}")
    try:
        saved = OmegaConf.load(path)
        if "workers" in saved:
            raise UserError(f"{folder}: a cross-validation: give one of its folds, {folder}/fold_0")
        config = OmegaConf.merge(OmegaConf.structured(Train), saved)
        missing = OmegaConf.missing_keys(config)
        targets = list(_targets(OmegaConf.to_container(config, resolve=True)))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        line = str(error).partition("\n")[0]
        raise UserError(f"{path}: not the configuration of a run of this version ({line})") from None
    if missing:
        raise UserError(f"{path}: not the configuration of a run of this version (it lacks {min(missing)})")
    for target in targets:
        if not re.fullmatch(r"(lab\.models|lab\.datasets|torch\.optim)\.\w+", str(target)):
            raise UserError(f"{path}: _target_ {target} is none of this project's: it is not run")
    return config


def read_result(folder: Path) -> dict[str, Any]:
    """The result.json of a finished run or cross-validation."""
    path = folder / "result.json"
    if not path.exists():
        if folder.is_dir() and (folder / "config.yaml").exists():
            raise UserError(f"{folder}: its run has not finished: it has no result.json")
        read_config(folder)  # says what else the folder is
    try:
        result = json.loads(path.read_text())
        for key in ("model", "data", "parameters", "seconds"):
            result[key]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the result of a run of this version ({error!r})") from None
    return result


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from (node[key] for key in node if key == "_target_")
        node = node.values()
    if not isinstance(node, str | int | float | None):
        for child in node:
            yield from _targets(child)
