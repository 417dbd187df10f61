"""A run's folder: claimed by the run that writes it, read by the commands that evaluate it."""

import contextlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from lab.config import own
from lab.config.checks import check_plain, check_values
from lab.config.overrides import resume_command
from lab.config.schema import CrossValidate, Train
from lab.errors import UserError, first_line, printable
from lab.files import LEFT_OVER, MOST_TEXT, atomic_write, open_plain, read_bytes, read_csv, read_text, refuse_bomb

# what a folder may name as _target_
TRUSTED = r"(lab\.models(?!\.own$)|lab\.datasets|lab\.training\.optimizers|torch\.optim(\.lr_scheduler)?)\.\w+"
# options of Lightning's Trainer, and their values, that a folder may name
OPTIONS = {"accelerator", "accumulate_grad_batches", "benchmark", "check_val_every_n_epoch", "detect_anomaly"}
OPTIONS |= {"deterministic", "devices", "fast_dev_run", "gradient_clip_algorithm", "gradient_clip_val"}
OPTIONS |= {"enable_model_summary", "enable_progress_bar", "inference_mode", "limit_predict_batches"}
OPTIONS |= {"reload_dataloaders_every_n_epochs", "use_distributed_sampler"}
OPTIONS |= {"limit_test_batches", "limit_train_batches", "limit_val_batches", "log_every_n_steps", "max_epochs"}
OPTIONS |= {"max_steps", "max_time", "min_epochs", "min_steps", "num_nodes", "overfit_batches", "precision", "profiler"}
OPTIONS |= {"strategy", "sync_batchnorm", "val_check_interval"}
PLAIN = r"None|True|False|auto|cpu|gpu|cuda|mps|simple|advanced|pytorch|norm|value|warn|bf16[\w-]*|\d[\w:.+-]*|-1"
PLAIN += r"|\[?\d+(, ?\d+)*,?\]?"  # a list of GPUs
PLAIN += r"|ddp(_find_unused_parameters_(true|false))?"  # of other strategies no process gives its results back
PLAIN += r"|\{'(weeks|days|hours|minutes|seconds)': [\d.]+(, '(weeks|days|hours|minutes|seconds)': [\d.]+)*\}"
NEEDED_OF_EPOCH = {"epoch", "train_loss", "train_accuracy"}
NEEDED = ("model.net._target_", "model.optimizer._target_", "data.source._target_", "trainer.precision")
MOST_CONFIG, MOST_NODES, MOST_DEPTH = 2**18, 10_000, 20  # bytes, values, levels: more would take long to read
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)  # what parsers raise for a damaged file
LEFT = ("*.ckpt", "metrics.csv", "result.json")  # by a run
CORRECTIONS = "corrections.csv"  # a run's copy of the table that data.corrections named


def claim(folder: Path, config: DictConfig) -> None:
    """Write config.yaml, which makes the folder this run's: a folder that has one is another run's.

    The user's callbacks are left out: what a folder names is not run. UserError where it is another run's, though its
    config.yaml is gone, and where no command could read the config.
    """
    content = OmegaConf.to_container(config, resolve=True)
    content["trainer"].pop("callbacks", None)
    for option in _find_refused(content["trainer"]):
        raise UserError(f"{option}: is not for this program: no command could read the run again")
    try:
        if any(each for pattern in LEFT for each in folder.glob(pattern)):
            raise FileExistsError
        with atomic_write(folder / "config.yaml", replaces=False) as beside:
            beside.write_text(OmegaConf.to_yaml(content), encoding="utf-8")
    except FileExistsError:
        raise UserError(f"{folder} holds another run: choose another hydra.run.dir") from None
    if config.data.corrections:
        content = read_bytes(Path(config.data.corrections).expanduser())
        with atomic_write(folder / CORRECTIONS) as beside:
            beside.write_bytes(content)  # to the byte: it has a checksum


@contextlib.contextmanager
def locked(folder: Path, what: str, lock: str = ".lock") -> Iterator[None]:
    """Keep other processes out of `folder` meanwhile. UserError where one is already at this `what`."""
    try:
        with FileLock(folder / lock, blocking=False):
            yield
    except Timeout:
        raise UserError(f"{folder}: another process is at this {what}") from None


@contextlib.contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Keep others from training into `folder` meanwhile; remove what a killed process has half written."""
    with locked(folder, "run", ".running"):
        for path in folder.iterdir():
            if re.fullmatch(LEFT_OVER, path.name):
                path.unlink(missing_ok=True)
        yield
        with contextlib.suppress(OSError):  # Windows removes no file that is open
            (folder / ".running").unlink()


def read_config(folder: Path, schema: type[Train] = Train, builds: bool = True) -> DictConfig:
    """The config of a run. A folder may be a stranger's: UserError where it names anything but ours or torch's to call.

    Where the caller `builds` the network and it is of a file of the user's own, the command line must name that file.
    """
    path = folder / "config.yaml"
    if folder.is_file():
        raise UserError(f"{folder}: a file: give the run's folder, or its model.ts to evaluate.py")
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; run folders lie in outputs/")
    if not path.exists():
        runs = sorted(config.parent.name for config in folder.glob("*/config.yaml"))
        inside = f"its runs are {', '.join(runs)}" if runs else "it has no config.yaml"
        raise UserError(f"{folder}: not a run's folder: {inside}")
    try:
        text = read_text(path, MOST_CONFIG)
        _refuse_growth(text)
        saved = OmegaConf.create(text)
    except UserError:
        raise
    except Exception as error:  # a damaged file raises whatever its parser does
        raise UserError(f"{path}: damaged ({first_line(error)})") from None
    if ("workers" in saved) != (schema is CrossValidate):
        kind = f"a cross-validation: give one of its folds, {folder}/fold_0" if "workers" in saved else "another run"
        raise UserError(f"{folder}: {kind}")
    return _check_config(saved, path, schema, builds)


def read_exported(path: Path) -> dict[str, Any]:
    """The metadata of a model.ts; its "config" is a Train."""
    try:
        refuse_bomb(path)
        with open_plain(path) as file, zipfile.ZipFile(file) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/extra/metadata.json"))
            if archive.getinfo(name).file_size > MOST_TEXT:
                raise ValueError("its metadata is too large")
            metadata = json.loads(archive.read(name))
        _refuse_growth(json.dumps(metadata["config"]))
        check_plain(metadata)
        config = OmegaConf.create(metadata["config"])
        config.data.root = None
        metadata["data"], metadata["metrics"]["part"]  # KeyError where one is missing
    except Exception as error:  # a damaged archive raises whatever its parser does
        raise UserError(f"{path}: neither a run's folder nor the model.ts of one ({first_line(error)})") from None
    return metadata | {"config": _check_config(config, path, Train, builds=True)}


def read_result(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """The result.json of a finished run; `kind` is "test", or "held_out" for a fold, where it must be the one."""
    path = folder / "result.json"
    if not path.exists():
        if folder.is_dir() and (folder / "config.yaml").exists():
            goes_on = "the command that began it" if is_of_folds(folder) else resume_command(folder)
            raise UserError(f"{folder}: its run has not finished: {goes_on} goes on")
        read_config(folder)  # says what else the folder is
    try:
        result = json.loads(read_text(path))
        # KeyError, TypeError or ValueError where one is missing or of another kind
        result["model"], result["data"]["name"], result["parameters"]["total"], result["seed"], float(result["seconds"])
        check_plain(result)
        kind = kind or next(key for key in ("folds", "test", "held_out") if key in result)
        float(result["folds"][0]["accuracy"] if kind == "folds" else result[kind]["last"]["accuracy"])
    except (*DAMAGE, IndexError, StopIteration, UserError) as error:
        raise UserError(f"{path}: not the result of a run of this version ({error!r})") from None
    return result


def is_of_folds(folder: Path) -> bool:
    """Whether it is a cross-validation's folder or one of its folds': another command than resume= goes on with it."""
    return any((place / "folds.csv").exists() for place in (folder, folder.absolute().parent))


def read_history(folder: Path, mend: str = "train it anew") -> list[dict[str, float]]:
    """A row for each epoch of metrics.csv: "epoch", "train_loss", and of "val_accuracy", ... what it has.

    UserError where the file is damaged; `mend` says what to do then.
    """
    path = folder / "metrics.csv"
    try:
        rows = [{name: float(value) for name, value in row.items() if value} for row in read_csv(path)]
        if not rows or not all(row.keys() >= NEEDED_OF_EPOCH for row in rows):
            raise ValueError("no epochs")
    except (ValueError, TypeError):
        raise UserError(f"{path}: damaged: {mend}") from None
    return rows


def _check_config(saved: DictConfig, path: Path, schema: type[Train], builds: bool) -> DictConfig:
    """`saved`, of the file `path`, as a `schema`; UserError where it is none, or names what must not be called."""
    try:
        config = OmegaConf.merge(OmegaConf.structured(schema), saved)
        missing = OmegaConf.missing_keys(config)
        missing = missing or {key for key in NEEDED if OmegaConf.select(config, key) is None}
        content = OmegaConf.to_container(config, resolve=True)
        if is_own := content["model"]["net"].get("_target_") == own.TARGET:
            content["model"]["net"] = {}
        targets = list(_targets(content))
    except (*DAMAGE, OmegaConfBaseException) as error:
        raise UserError(f"{path}: not the configuration of a run of this version ({first_line(error)})") from None
    if missing:
        raise UserError(f"{path}: not the configuration of a run of this version (it lacks {min(missing)})")
    for target in targets:
        if not re.fullmatch(TRUSTED, str(target)):
            raise UserError(f"{path}: _target_ {target} is none of this project's: it is not run")
    for option in _find_refused(config.trainer):
        raise UserError(f"{path}: {option}: is not taken from a folder")
    if config.data.corrections and (path.parent / CORRECTIONS).exists():
        config.data.corrections = str(path.parent / CORRECTIONS)
    if is_own and builds:
        own.trust_named(config.model.net, path.parent)
    try:
        check_values(config)
    except (UserError, *DAMAGE, OmegaConfBaseException) as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    return config


def _find_refused(trainer: Mapping[str, Any]) -> Iterator[str]:
    """The options of Lightning's Trainer, KEY=VALUE, that no folder may name."""
    for key, value in trainer.items():
        if key not in OPTIONS or not re.fullmatch(PLAIN, str(value)):
            yield f"trainer.{key}={printable(str(value))}"


def _refuse_growth(text: str) -> None:
    """ValueError where a YAML text has what this program never writes, and what could grow without end."""
    depth = 0
    for nodes, event in enumerate(yaml.parse(text, yaml.SafeLoader)):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent):
            raise ValueError("it has aliases")
        if isinstance(event, ScalarEvent) and "${" in event.value:
            raise ValueError("it has interpolations")
        if depth > MOST_DEPTH or nodes > MOST_NODES:
            raise ValueError("it has too many values, or too deep in one another")


def _targets(node: Any) -> Iterator[Any]:
    """The value of every _target_, at any depth."""
    if isinstance(node, dict):
        yield from (node[key] for key in node if key == "_target_")
        node = node.values()
    if not isinstance(node, str | int | float | None):
        for child in node:
            yield from _targets(child)
