"""Every key that a command may be told: its type, its default, the rule that its value obeys, its line in --help."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Optional

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf

from lab.errors import UserError
from lab.files import read_bytes

PROJECT = Path(__file__).parents[3]
CONF = PROJECT / "conf"


class Rule(NamedTuple):
    """What a value must be, for the program and in words."""

    holds: Callable[[Any], bool]
    words: str


AT_LEAST_1 = Rule(lambda value: value >= 1, "1 or more")
MOST_CLASSES = 1_000
OF_SWEEPS = ("rerun", "show_test", "search", "prune", "confirm")
UNDECIDING = ("networks", "report", "lang", *OF_SWEEPS)  # keys that no result depends on
MOST_THREADS = max(64, os.cpu_count() or 1)  # a run of a machine with more cores than this one can be read here too
FRACTION = Rule(lambda value: 0 <= value < 1, "a fraction from 0 up to 1")
SHARE = Rule(lambda value: 0 < value <= 1, "more than 0, and 1 at most")
BETWEEN = Rule(lambda value: 0 < value < 1, "between 0 and 1")


def option(default: Any = MISSING, example: str = "", help: str = "", rule: Rule | None = None) -> Any:
    """A key's default, an example of its value, what --help says of it, and its rule, which None never breaks."""
    return field(default=default, metadata={"example": example, "help": help, "rule": rule})


def one_of(*names: str) -> Rule:
    return Rule(lambda value: value in names, f"{' or '.join(names)}, or left out")


def is_size(value: Any) -> bool:
    """Whether it is "HEIGHTxWIDTH", or one number for both, in pixels."""
    sides = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", str(value), re.ASCII)
    return bool(sides) and all(1 <= int(side) <= 4096 for side in sides.groups() if side is not None)


@dataclass
class Augment:
    """Random changes of the training images."""

    rotation: float = option(0.0, "15", "turn training images by up to so many degrees")
    shift: float = option(0.0, "0.1", "move them by up to this fraction of the side", rule=FRACTION)
    flip: bool = option(False, "true", "mirror half of them left to right")
    crop: Optional[float] = option(
        None, "0.5", "cut out a random part of at least this share of the area, drawn at full size", SHARE
    )
    brightness: Optional[float] = option(None, "0.2", "brighter or darker by up to this fraction", SHARE)
    contrast: Optional[float] = option(None, "0.2", "more or less contrast by up to this fraction", SHARE)
    mixup: Optional[float] = option(
        None, "0.2", "mix each image and its class with another's; 1 mixes most", Rule(lambda a: a > 0, "more than 0")
    )


@dataclass
class Recipe:
    """A network and how it is trained: conf/model/."""

    name: str = "${hydra:runtime.choices.model}"
    net: dict[str, Any] = MISSING
    optimizer: dict[str, Any] = MISSING
    epochs: int = option(example="3", help="passes over the training part", rule=AT_LEAST_1)
    batch_size: int = option(example="64", help="images a step", rule=AT_LEAST_1)
    scale: float = option(
        255.0, "255", "pixels are divided by it", Rule(lambda scale: scale > 0, "more than 0: pixels are divided by it")
    )
    augment: Augment = field(default_factory=Augment)
    schedule: Optional[dict[str, Any]] = None
    class_weights: Optional[str] = option(
        None, "balanced", "in the training loss a rare class counts as much as a frequent one", one_of("balanced")
    )
    label_smoothing: Optional[float] = option(
        None, "0.1", "of each label so much is shared among all classes, in the training loss", BETWEEN
    )
    average: Optional[float] = option(
        None, "0.999", "validate, test and export a moving average of the weights, which keeps so much a step", BETWEEN
    )
    train: Optional[str] = option(
        None,
        "2",
        "of timm's networks: head, all, or the last 2 blocks too, at a tenth of the head's rate",
        Rule(lambda part: part in ("head", "all") or part.isdecimal(), "head, all, or a number of blocks"),
    )


@dataclass
class Data:
    """A data set and its split: conf/data/. Fractions are of the images that are not the official test part."""

    name: str = "${hydra:runtime.choices.data}"
    source: dict[str, Any] = MISSING
    root: Optional[str] = option(
        "${oc.env:LAB_DATA,null}", "FOLDER", "where the files lie; else $LAB_DATA, else data/ in the project"
    )
    classes: Optional[list[str]] = option(
        None, rule=Rule(lambda names: len(names) <= MOST_CLASSES, f"{MOST_CLASSES:,} names at most")
    )
    validation: Optional[float] = option(None, "0.1", "fraction kept for validation; 0 trains on all", FRACTION)
    test: Optional[float] = option(None, rule=FRACTION)
    split_seed: int = 42
    stratify: bool = True
    folds: Optional[int] = option(
        None,
        "5",
        "with data.fold=0: train on four folds, validate on the first",
        Rule(lambda n: 2 <= n <= 1000, "from 2 to 1,000"),
    )
    fold: int = 0
    fold_seed: int = 1
    stratify_folds: bool = False
    sample: Optional[bool] = None
    # these six are for data=folder alone
    size: Any = option(
        None, "96x128", "of pictures: height and width, or 64 for both", Rule(is_size, "64 or 96x128, up to 4096")
    )
    fit: Optional[str] = option(None, "pad", "else crop, or stretch", one_of("crop", "pad", "stretch"))
    colour: Optional[str] = option(None, "grey", "else rgb", one_of("rgb", "grey"))
    group: Optional[str] = option(None, "\"'person(\\d+)'\"", "what this finds in files' names stays in one part")
    skip_broken: bool = option(False, "true", "leave out what is no picture; result.json lists it")
    cache: Optional[str] = option(None, "FOLDER", "where they are kept decoded; else your cache folder")
    drop_duplicates: bool = option(False, "true", "train on no image that is in the validation or test part too")
    corrections: Optional[str] = option(None, "FILE", "corrected labels, as check_labels.py's page saves them")
    corrections_test: bool = option(False, "true", "correct those of the test part too; the result then says so")
    corrections_sha256: Optional[str] = "${sha256:${.corrections}}"  # tells a table that has changed since
    # how a device fits any picture; on_black: inverted where it is light; digit: as MNIST was made
    picture: str = option("photo", rule=one_of("photo", "on_black", "digit"))


@dataclass
class Train:
    """conf/train.yaml"""

    model: Recipe = MISSING
    data: Data = MISSING
    trainer: dict[str, Any] = MISSING
    seed: int = option(
        1,
        "1",
        "the same seed and threads give the same bits on the same CPU",
        Rule(lambda n: 0 <= n < 2**32, "from 0 to 4294967295"),
    )
    threads: Optional[int] = option(
        None,
        "1",
        "of the CPU: the same bits on machines with more or fewer cores",
        Rule(lambda n: 1 <= n <= MOST_THREADS, f"from 1 to {MOST_THREADS}"),
    )
    speed: Optional[str] = option(
        None, "fast", "a shorter precision where it is measured to be faster; on CUDA TF32 too", one_of("fast")
    )
    early_stopping: Optional[int] = option(
        None, "5", "stop after five epochs without a lower validation loss", AT_LEAST_1
    )
    monitor: Optional[str] = option(
        None,
        "balanced_accuracy",
        "what the best epoch and a sweep's winner are chosen by, on validation; else accuracy",
        one_of("balanced_accuracy", "macro_f1"),
    )
    weights: Optional[str] = option(None, "FILE", "a pretrained network's weights, where they cannot be fetched")
    networks: Optional[str] = option(
        None, "mine.py", "a file with networks of your own: model=NAME for its function NAME(classes)"
    )
    histograms: bool = option(False, "true", "weight histograms in TensorBoard")
    tune: Optional[str] = option(None, "lr", "suggest a learning rate and stop", one_of("lr"))
    search: Optional[int] = option(
        None,
        "20",
        "with -m and 'model.optimizer.lr=interval(1e-4,1)', say: so many trials look for the best",
        Rule(lambda n: 2 <= n <= 10_000, "from 2 to 10,000 trials"),
    )
    prune: bool = option(False, "true", "in a search: stop trials below the median of earlier ones at that epoch")
    confirm: Optional[int] = option(
        None,
        "5",
        "of a search: fresh seeds for its best three and the recipe; 0: none, and no verdict",
        Rule(lambda n: n == 0 or 2 <= n <= 1000, "0, or from 2 to 1,000 seeds"),
    )
    stop_below: Optional[list[float]] = option(
        None, rule=Rule(lambda bars: all(0 <= bar <= 1 for bar in bars), "fractions from 0 to 1, one an epoch")
    )
    report: bool = option(False, "true", "write report.html at the end: the page to hand in")
    lang: Optional[str] = option(None, "fr", "the language of that page; else English", one_of("en", "fr"))
    show_test: bool = option(False, "true", "with -m: test accuracy for every setting; else the winner's alone")
    rerun: bool = option(False, "true", "with -m: the finished jobs too")
    resume: Optional[str] = option(None, "outputs/RUN", "go on with an interrupted run, to the same bits")


@dataclass
class CrossValidate(Train):
    """conf/cross_validate.yaml"""

    workers: Optional[int] = option(
        None, "2", "folds at a time, a thread each; else as many as cores, plus any left over", AT_LEAST_1
    )


@dataclass
class Benchmark:
    """conf/benchmark.yaml"""

    recipes: list[str] = option(example="[deep,cnn]", help="what is trained")
    tasks: list[str] = option(example="[start,folds]", help="training, inference, start, folds")
    neighbours: list[str] = option(
        example="[early,late]", help="quiet; or a busy process from the start, or after the first epoch"
    )
    stacks: list[str] = option(example="[lab,plain]", help="whose: see conf/benchmark.yaml")
    rounds: int = option(example="5", help="how often each is measured, in turn", rule=AT_LEAST_1)
    images: Optional[int] = option(None, "6400", "of an epoch; else so many that it takes some seconds", AT_LEAST_1)
    epochs: Optional[int] = option(None, "2", "timed, after one that warms up; of each fold", AT_LEAST_1)
    seed: int = option(1, "1", "of the order in each round")
    keras: Optional[str] = option(None, "PYTHON", "an interpreter that has Keras; else this one, if it has")
    root: Optional[str] = option(None, "FOLDER", "MNIST and CIFAR4; else $LAB_DATA")


@dataclass
class Reproduce:
    """conf/reproduce.yaml"""

    table: dict[str, Any] = option(example="ladder", help="what is measured: labs, ladder, ladder_photos, precision")
    rows: Optional[list[str]] = option(
        None,
        "[A1,D4]",
        "names of conf/table/; A5 stands for all of A5-...; else all",
        Rule(lambda rows: len(rows), "one name at least, or left out for all"),
    )
    seeds: Optional[int] = option(None, "3", "of each row; else as many as the table's protocol asks for", AT_LEAST_1)
    workers: Optional[int] = option(
        None, "2", "runs at a time, a thread each; else as many as cores, one on a GPU", AT_LEAST_1
    )
    weights: Optional[str] = option(None, "FILE", "torchvision's ImageNet weights for E10 and E11, else downloaded")
    keras: Optional[str] = option(None, "PYTHON", "an interpreter that has Keras: E6, E8 and E9 by it too, beside ours")
    earlier: Optional[str] = option(
        None, "docs/published.csv", "a table's CSV file: its runs with the same recipe and images are not run again"
    )
    results: Optional[str] = option(
        None, "RESULTS.md", "gets the table once no row is left out, with docs/ beside it; null: no such file"
    )


SCHEMAS = {
    "train": Train,
    "cross_validate": CrossValidate,
    "show": Train,
    "check_data": Train,
    "benchmark": Benchmark,
    "reproduce": Reproduce,
}
for _command, _schema in SCHEMAS.items():
    ConfigStore.instance().store(f"{_command}_schema", _schema)
OmegaConf.register_new_resolver("unique", lambda: os.urandom(2).hex(), use_cache=True)
OmegaConf.register_new_resolver("sha256", lambda path: _sha256(path))
OmegaConf.register_new_resolver("digest", lambda *, _root_: fingerprint(_root_))


def fingerprint(config: DictConfig) -> str:
    """Eight hexadecimal digits: the same for configs with the same results, wherever the files lie.

    An option that is off counts like one that is not there: so fingerprints of older versions stay valid. The precision
    that speed=fast has chosen does not count: another machine chooses another.
    """
    decisive = [key.name for key in fields(Train) if key.name not in UNDECIDING]
    content = OmegaConf.to_container(OmegaConf.masked_copy(config, decisive), resolve=True)
    for key in ("root", "cache", "corrections"):  # corrections have a checksum
        content["data"].pop(key, None)
    content["data"]["source"].pop("cache", None)
    content["model"]["net"].pop("file", None)  # of the user's own, which has a checksum
    if content["speed"]:
        content["trainer"]["precision"] = "32-true"
    if content["data"]["folds"]:
        content["draws"] = "of seed and fold"  # older versions' folds had the seed's draws in common
    return hashlib.sha256(json.dumps(_switched_on(content), sort_keys=True).encode()).hexdigest()[:8]


def _sha256(path: str | None) -> str | None:
    """SHA-256 of a file that may be a stranger's; None where it cannot be read: whoever needs it says why."""
    try:
        return hashlib.sha256(read_bytes(Path(path).expanduser())).hexdigest() if path else None
    except (OSError, UserError):
        return None


def _switched_on(content: Any) -> Any:
    """`content` without what is off, None or False, at any depth."""
    if not isinstance(content, dict):
        return content
    kept = {key: value for key, value in content.items() if value is not None and value is not False}
    # a network, an optimizer, a schedule stays as it is: its class's own defaults are not known
    return {
        key: value if isinstance(value, dict) and "_target_" in value else _switched_on(value)
        for key, value in kept.items()
    }


def run_folder() -> Path:
    """The folder that Hydra has made for this run."""
    return Path(HydraConfig.get().runtime.output_dir)


def data_folder(root: str | None) -> Path:
    """The folder `root`, which is data.root or $LAB_DATA; without either data/ in the project."""
    return Path(root).expanduser() if root else PROJECT / "data"


def place_data(config: DictConfig, root: Path | None = None) -> None:
    """Set data.root to `root`, else leave it where the data lay when the run began, else take $LAB_DATA."""
    is_gone = config.data.root is None or not data_folder(config.data.root).is_dir()
    if root or (is_gone and "fit" not in config.data.source):  # pictures of the user's are in no other place
        config.data.root = str(root) if root else os.environ.get("LAB_DATA")
