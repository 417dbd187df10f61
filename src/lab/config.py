"""What a command may be told: Hydra's config and its types."""

import hashlib
import json
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from lab import UserError

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
    schedule: Optional[dict[str, Any]] = None


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
    drop_duplicates: bool = False
    picture: str = "photo"  # how a device fits any picture: its middle, scaled


@dataclass
class Train:
    """conf/train.yaml"""

    model: Recipe = MISSING
    data: Data = MISSING
    trainer: dict[str, Any] = MISSING
    seed: int = 1
    threads: Optional[int] = None
    speed: Optional[str] = None
    early_stopping: Optional[int] = None
    weights: Optional[str] = None
    histograms: bool = False
    tune: Optional[str] = None
    rerun: bool = False
    resume: Optional[str] = None


@dataclass
class CrossValidate(Train):
    """conf/cross_validate.yaml"""

    workers: Optional[int] = None


@dataclass
class Benchmark:
    """conf/benchmark.yaml"""

    recipes: list[str] = MISSING
    also: list[str] = MISSING
    rounds: int = MISSING
    keras: Optional[str] = None
    root: Optional[str] = None


@dataclass
class Reproduce:
    """conf/reproduce.yaml"""

    table: dict[str, Any] = MISSING
    rows: Optional[list[str]] = None
    seeds: Optional[int] = None
    workers: Optional[int] = None
    weights: Optional[str] = None
    results: Optional[str] = None


def digest(config: DictConfig) -> str:
    """The same for the same results: neither the number of workers nor where the files lie decides them.

    What is off counts like what is not there, so that digests outlive new options.
    """
    decisive = [key.name for key in fields(Train) if key.name != "rerun"]
    content = OmegaConf.to_container(OmegaConf.masked_copy(config, decisive), resolve=True)
    del content["data"]["root"]
    return hashlib.sha256(json.dumps(_switched_on(content), sort_keys=True).encode()).hexdigest()[:8]


def _switched_on(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    kept = {key: value for key, value in content.items() if value is not None and value is not False}
    # of a network, an optimizer, a schedule no default is known
    return {
        key: value if isinstance(value, dict) and "_target_" in value else _switched_on(value)
        for key, value in kept.items()
    }


SCHEMAS = {
    "train": Train,
    "cross_validate": CrossValidate,
    "show": Train,
    "check_data": Train,
    "benchmark": Benchmark,
    "reproduce": Reproduce,
}
for command, schema in SCHEMAS.items():
    ConfigStore.instance().store(f"{command}_schema", schema)
OmegaConf.register_new_resolver("unique", lambda: os.urandom(2).hex(), use_cache=True)
OmegaConf.register_new_resolver("digest", lambda *, _root_: digest(_root_))


def quoted(key: str, value: str) -> str:
    """KEY='VALUE', for Hydra's grammar."""
    return f"{key}='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def run_folder() -> Path:
    """Where Hydra puts the job's files."""
    return Path(HydraConfig.get().runtime.output_dir)


def data_folder(root: str | None) -> Path:
    """`root`, which is $LAB_DATA unless data.root says otherwise; else data/ in the project."""
    return Path(root).expanduser() if root else PROJECT / "data"


def in_users_words(error: Exception) -> Exception:
    """The UserError that `error` amounts to, else itself."""
    if isinstance(error, InterpolationResolutionError):  # seed=${seed}
        return UserError(f"{error.full_key}: {one_line(error)}")
    # torch is not imported here, and on a CPU it raises a plain RuntimeError
    if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", str(error)):
        return UserError("not enough memory: try a smaller model.batch_size, or fewer runs at a time")
    return error


def one_line(error: BaseException) -> str:
    """Its message as a user should read it: of an OSError the file and the reason, of others' errors the first line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    text = str(error).partition("\nSee https")[0]
    return " ".join((text if isinstance(error, UserError | HydraException) else text.partition("\n")[0]).split())
