"""What a command may be told, checked before torch is imported: Hydra's config, its types, its help."""

import contextlib
import difflib
import hashlib
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Optional

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lab import UserError

PICTURES = ("photo", "on_black", "digit")  # on_black: inverted where it is light; digit: as MNIST was made
PROJECT = Path(__file__).parents[2]
CONF = PROJECT / "conf"


@dataclass
class Augment:
    """Random changes of the training images: degrees, fraction of the side, left to right."""

    rotation: float = 0.0
    shift: float = 0.0
    flip: bool = False


@dataclass
class Recipe:
    """A network and how it is trained: conf/model/."""

    name: str = "${hydra:runtime.choices.model}"
    net: dict[str, Any] = MISSING
    optimizer: dict[str, Any] = MISSING
    epochs: int = MISSING
    batch_size: int = MISSING
    scale: float = 255.0
    augment: Augment = field(default_factory=Augment)


@dataclass
class Data:
    """A data set and its split: conf/data/. Fractions are of the images that are not the official test part."""

    name: str = "${hydra:runtime.choices.data}"
    source: dict[str, Any] = MISSING
    root: Optional[str] = "${oc.env:LAB_DATA,null}"
    classes: Optional[list[str]] = None
    validation: Optional[float] = None
    test: Optional[float] = None
    split_seed: int = 42
    stratify: bool = True
    folds: Optional[int] = None
    fold: int = 0
    fold_seed: int = 1
    stratify_folds: bool = False
    sample: Optional[bool] = None
    picture: str = "photo"  # how a device fits any picture: its middle, scaled


@dataclass
class Train:
    """conf/train.yaml"""

    model: Recipe = MISSING
    data: Data = MISSING
    trainer: dict[str, Any] = MISSING
    seed: int = 1
    weights: Optional[str] = None
    histograms: bool = False


@dataclass
class CrossValidate(Train):
    """conf/cross_validate.yaml"""

    workers: Optional[int] = None


def _digest(_root_: DictConfig) -> str:
    """The same for the same cross-validation, whatever the number of workers and wherever the files lie."""
    content = OmegaConf.to_container(OmegaConf.masked_copy(_root_, [key.name for key in fields(Train)]), resolve=True)
    content["data"].pop("root")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


SCHEMAS = {"train": Train, "cross_validate": CrossValidate, "show": Train}
for command, schema in SCHEMAS.items():
    ConfigStore.instance().store(f"{command}_schema", schema)
OmegaConf.register_new_resolver("unique", lambda: os.urandom(2).hex(), use_cache=True)
OmegaConf.register_new_resolver("digest", lambda *, _root_: _digest(_root_))


def run_command(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Compose the config from the command line and give it to `task`, once a job of a multirun.

    A user's mistake ends in one line on stderr and exit code 1; HYDRA_FULL_ERROR=1 shows the traceback.
    In a multirun it is told at once and the other jobs go on.
    """
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(task.__doc__, config_name))
        return
    # a process of trainer=ddp inherits the variable as it is set below
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1" and "LOCAL_RANK" not in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print in many lines
    composed, failed_jobs = False, []

    def job(config: DictConfig) -> None:
        nonlocal composed
        composed = True
        try:
            check(config, SCHEMAS[config_name])
            task(config)
        except Exception as error:
            with contextlib.suppress(OSError):
                run_folder().rmdir()  # Hydra made it; with files in it, it stays
            is_users = isinstance(error, UserError | OSError) and not show_traceback
            if HydraConfig.get().mode == RunMode.RUN:
                if is_users:
                    raise SystemExit(f"error: {one_line(error)}") from None
                raise
            failed_jobs.append(HydraConfig.get().job.num)
            if is_users:
                print(f"error: {HydraConfig.get().job.override_dirname}: {one_line(error)}", file=sys.stderr)
            else:  # a mistake of ours ends this job, not the others
                traceback.print_exc()

    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        if show_traceback or (composed and type(error) is ValueError):  # before the job Hydra's, after it ours
            raise
        raise SystemExit(f"error: {_explain(error)}") from None
    except KeyboardInterrupt:
        raise SystemExit("error: interrupted") from None
    if failed_jobs:
        raise SystemExit(f"error: {len(failed_jobs)} jobs failed, numbers {failed_jobs}: the lines above say why")


def check(config: DictConfig, root: type[Train]) -> None:
    """Refuse values that have the right type and still make no sense."""
    for prefix, node, schema in (("", config, root), ("model.", config.model, Recipe), ("data.", config.data, Data)):
        for key in set(node) - {known.name for known in fields(schema)}:
            raise UserError(f"{prefix}{key}: there is no such key{_nearest(key, _known_keys())}")
    for key in sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{key} is missing: give {key}=...")
    model, data, trainer = config.model, config.data, config.trainer
    rate = model.optimizer.get("lr")
    folds = 2 if data.folds is None else data.folds
    for key, value, holds, rule in (
        ("seed", config.seed, 0 <= config.seed < 2**32, "from 0 to 4294967295"),
        ("model.epochs", model.epochs, model.epochs >= 1, "1 or more"),
        ("model.batch_size", model.batch_size, model.batch_size >= 1, "1 or more"),
        ("model.scale", model.scale, model.scale > 0, "more than 0: pixels are divided by it"),
        ("model.optimizer.lr", rate, isinstance(rate, int | float) and rate > 0, "a number above 0"),
        ("model.augment.shift", model.augment.shift, 0 <= model.augment.shift < 1, "a fraction from 0 up to 1"),
        ("data.validation", data.validation, 0 <= (data.validation or 0) < 1, "a fraction from 0 up to 1"),
        ("data.test", data.test, 0 <= (data.test or 0) < 1, "a fraction from 0 up to 1"),
        ("data.folds", folds, folds >= 2, "2 or more"),
        ("data.picture", data.picture, data.picture in PICTURES, f"one of {', '.join(PICTURES)}"),
        ("data.fold", data.fold, data.folds is None or 0 <= data.fold < folds, f"from 0 to {folds - 1}"),
    ):
        if not holds:
            raise UserError(f"{key}={value}: must be {rule}")
    for key in ("max_epochs", "max_steps", "limit_train_batches", "limit_test_batches", "accumulate_grad_batches"):
        if not isinstance(trainer[key], int | float | None) or trainer[key] == 0:
            raise UserError(f"trainer.{key}={trainer[key]}: must be a number, and not 0")
    one_device = trainer.devices == trainer.num_nodes == 1
    if root is CrossValidate:
        if config.workers is not None and config.workers < 1:
            raise UserError(f"workers={config.workers}: must be 1 or more")
        if data.folds is None or data.fold:
            raise UserError("cross_validate.py takes each fold in turn: give data.folds=5, and no data.fold")
        if trainer.limit_test_batches is not None:
            raise UserError("trainer.limit_test_batches is not for folds, which are scored whole")
        if not one_device:
            raise UserError("trainer=ddp and other runs on several devices are not for folds: workers=N is")
    if HydraConfig.get().mode == RunMode.MULTIRUN and not one_device:
        raise UserError("trainer=ddp and other runs on several devices go one at a time: leave out -m")
    if data.folds is None and (data.fold or data.stratify_folds):
        raise UserError("data.fold and data.stratify_folds go with data.folds=5")
    if (data.validation or 0) + (data.test or 0) >= 1:
        raise UserError(f"data.validation={data.validation} data.test={data.test}: nothing is left to train on")
    if data.sample is not None and "sample" not in data.source:
        raise UserError(f"data.sample={data.sample}: data={data.name} has none, only data=mnist")
    if config.weights is not None and "weights" not in model.net:
        raise UserError(f"weights={config.weights}: model={model.name} takes none, only model=resnet50")


def run_folder() -> Path:
    """Where Hydra puts the job's files."""
    return Path(HydraConfig.get().runtime.output_dir)


def data_folder(root: str | None) -> Path:
    """`root`, which is $LAB_DATA unless data.root says otherwise; else data/ in the project."""
    return Path(root).expanduser() if root else PROJECT / "data"


def help_text(title: str, command: str) -> str:
    """What --help prints: the recipes and data sets with the first line of their files."""

    def lines(group: str) -> Iterator[str]:
        for path in sorted((CONF / group).glob("*.yaml")):
            yield f"  {path.stem:18}{path.read_text().partition(chr(10))[0].removeprefix('# ')}"

    return "\n".join(
        [
            f"{title}: python src/{command}.py [model=NAME] [data=NAME] [KEY=VALUE ...]",
            "\nmodel=",
            *lines("model"),
            "\ndata=",
            *lines("data"),
            "\ntrainer=",
            *lines("trainer"),
            (CONF / "options.txt").read_text(),
        ]
    )


def _keys(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted path of every key."""
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def _known_keys() -> Iterator[str]:
    """Of the recipe and data set on the command line, read from their files: a second composition takes too long."""
    yield from (known.name for known in fields(SCHEMAS.get(Path(sys.argv[0]).stem, Train)))
    yield from _keys(OmegaConf.to_container(OmegaConf.load(CONF / "trainer" / "default.yaml")), "trainer.")
    for group, schema, default in (("model", Recipe, "deep"), ("data", Data, "mnist")):
        given = [word.removeprefix(f"{group}=") for word in sys.argv[1:] if word.startswith(f"{group}=")]
        paths = [CONF / group / f"{name}.yaml" for name in (*given[-1:], default)]
        node = OmegaConf.merge(schema, OmegaConf.load(next(path for path in paths if path.exists())))
        yield from _keys(OmegaConf.to_container(node), f"{group}.")


def _nearest(key: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no key is near."""
    known = list(known)
    last = key.split(".")[-1]
    exact = [path for path in known if path.split(".")[-1] == last]
    by_name = {path.split(".")[-1]: path for path in known}
    close = [by_name[name] for name in difflib.get_close_matches(last, by_name, 1)]
    found = exact or difflib.get_close_matches(key, known, 1) or close
    return f"; did you mean '{found[0]}'?" if found else ""


def _explain(error: Exception) -> str:
    """Hydra's refusal in one line, with the nearest key or value that there is."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={name}: there is none{_nearest(name, error.options)} Known: {', '.join(error.options)}"
    if wrong_key := re.match(r"Could not override '([^']+)'", str(error)):
        key, known = wrong_key[1], _known_keys()
        more = "any other option of Lightning's: +trainer.KEY=VALUE" if key.startswith("trainer.") else "see --help"
        return f"{key}: there is no such key{_nearest(key, known)} ({more})"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        override = str(error).partition("\n")[0].removeprefix("Error merging override ")
        return f"{override}: {one_line(error.__cause__)}"
    return one_line(error)


def one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = str(error).partition("\nSee https")[0]
    return " ".join((text if isinstance(error, UserError | HydraException) else text.partition("\n")[0]).split())
