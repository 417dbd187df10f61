"""Trains one run, from a config to a folder with its results."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lab.config.checks import check_start
from lab.config.overrides import resume_command
from lab.config.schema import place_data
from lab.display.figures import confusion, curves
from lab.errors import UserError, explain, first_line
from lab.evaluation.metrics import evaluate, print_confused
from lab.files import read_text, write_json, write_text
from lab.runs.folder import claim, is_of_folds, occupied, read_config
from lab.runs.predictions import Predictions
from lab.training.checkpoint import read_checkpoint
from lab.training.classifier import WholeEpochsClassifier, fits_whole_epochs
from lab.training.fastest import Threads, choose_precision
from lab.training.load import load_weights, predict
from lab.training.prepare import Run, prepare
from lab.training.result import (
    describe,
    fell_below,
    log_hyperparameters,
    print_end,
    print_result,
    print_start,
    summarise,
)
from lab.training.trainer import Epochs, ProgressBar, make_trainer, quiet_threads, trainer_options

NEEDED = {"epoch", "seconds", "train_accuracy", "train_images", "train_loss"}  # in a checkpoint, of each epoch


def train(
    config: DictConfig, folder: Path, tested: str = "test", resumes: bool = False, callbacks: Sequence[Callback] = ()
) -> None:
    """Train the recipe on the data, test its last and its best epoch, leave everything in `folder`.

    `callbacks` are called before the run's own. With `tested="validation"` the run is a fold's: its last epoch is
    scored on the images held out, the test part is not used.
    """
    run = prepare(config, untrusted=resumes, has_weights=resumes and (folder / "last.ckpt").exists())
    _check_validation(run)
    fast = choose_precision(run) if config.speed and not resumes else ""
    epochs = Epochs(folder / "metrics.csv", lambda rows: fell_below(config, rows))
    keeps_best = tested == "test" and len(run.dataset.parts["validation"]) > 0
    trainer = make_trainer(config, folder, [*callbacks, epochs, ProgressBar(), Threads(run, epochs)], keeps_best)
    _check_processes(run, trainer)
    if trainer.fast_dev_run:
        return _fast_dev_run(run, trainer, folder)
    is_first = rank_zero_only.rank == 0  # of the processes of a distributed run
    if is_first and not resumes:
        claim(folder, config)
        if config.networks:
            write_text(read_text(Path(config.networks).expanduser()), folder / "networks.py")
    with _interruptible(folder, epochs), occupied(folder) if is_first else contextlib.nullcontext(), quiet_threads():
        if is_first:
            print_start(run)
            if fast:
                print(f"speed=fast: {fast}")
        _fit(run, trainer, epochs, folder / "last.ckpt" if resumes else None)
        if is_first:
            print_end(run, epochs.rows, trainer.max_epochs)
        scores, predictions = _test(run, trainer, epochs, folder, tested)
        if trainer.world_size > 1:
            torch.distributed.destroy_process_group()  # else one that ends first may take the others with it
        if trainer.is_global_zero:
            _write(run, trainer, epochs, scores, predictions, folder)


def resume(folder: Path) -> DictConfig:
    """Go on with the run of `folder` after its last finished epoch, to the same bits as without an interruption.

    That works because all that an epoch draws depends on the seed and the epoch's number alone. Give the run's config.
    """
    config, folder = read_config(folder), folder.absolute()
    if config.tune:
        raise UserError(f"{folder}: tune=lr has no epochs to go on with: start it again")
    if (folder / "result.json").exists():
        print(f"{folder} has finished: nothing is left to do")
        return config
    if is_of_folds(folder):  # and is not to be tested on the test part
        raise UserError(f"{folder}: a fold: the command that began the cross-validation goes on with it")
    weights = OmegaConf.select(config, "model.net.weights")
    place = Path(os.path.realpath(Path(str(weights)).expanduser()))  # Path.resolve raises of links in a circle
    if weights and place.is_relative_to(folder.resolve()):  # a stranger's, perhaps
        raise UserError(f"{folder}: its weights={weights} lie in the folder itself: they are not read")
    check_start(config.trainer)
    place_data(config)
    train(config, folder, resumes=True)
    return config


def _check_validation(run: Run) -> None:
    """UserError where a key needs a validation part, and there is none."""
    config = run.config
    watches = {"early_stopping": config.early_stopping, "stop_below": config.stop_below}
    watches |= {"schedule=plateau": "Plateau" in str(config.model.schedule)}
    if unfit := [key for key, value in watches.items() if value and not _validates(run)]:
        raise UserError(f"{unfit[0]} looks at the validation part: there is no validation part, give data.validation")


def _check_processes(run: Run, trainer: Trainer) -> None:
    """UserError where the processes of a distributed run cannot work together."""
    size, processes = run.config.model.batch_size, trainer.world_size
    if size % processes:
        share = size // processes * processes or processes
        raise UserError(f"model.batch_size={size}: {processes} processes cannot share it, {share} they can")
    if processes > 1 and run.config.trainer.get("sync_batchnorm") and trainer.strategy.root_device.type == "cpu":
        raise UserError("trainer.sync_batchnorm=true: torch has it for GPUs alone")


def _validates(run: Run) -> bool:
    return len(run.dataset.parts["validation"]) > 0 and run.config.trainer.limit_val_batches != 0


def _fit(run: Run, trainer: Trainer, epochs: Epochs, last: Path | None) -> None:
    """Train; a run that goes on does so from the checkpoint `last`, if there is one."""
    done = _check_checkpoints(run, last) if last and last.exists() else None
    if whole := fits_whole_epochs(trainer_options(run.config), trainer, run.classifier.optimizer):
        run.classifier = WholeEpochsClassifier(run.classifier)
    data = run.data(whole_epochs=whole)
    try:
        with _trainers_words():
            checkpoint = None if done is None else last
            trainer.fit(run.classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except Exception as error:
        if done is None or len(epochs.rows) > done + 1 or explain(error):
            raise
        raise UserError(f"{last}: this run cannot go on from it ({first_line(error)})") from None
    if not epochs.rows:
        raise UserError("training ended before its first epoch did: see trainer.max_time, max_steps and callbacks")


def _check_checkpoints(run: Run, last: Path) -> int:
    """How many epochs the checkpoint `last` has done. UserError where it, or one beside it, is of another network."""
    for path in last.parent.glob("*.ckpt"):
        load_weights(run, path)
    states = read_checkpoint(last).get("callbacks", {})
    if not isinstance(states, dict) or "Epochs" not in states:
        raise UserError(f"{last}: of an older version, which did not save what a run needs to go on")
    rows = states["Epochs"].get("rows") if isinstance(states["Epochs"], dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= NEEDED for row in rows):
        raise UserError(f"{last}: this run cannot go on from it (it has no epochs)")
    return len(rows)


def _fast_dev_run(run: Run, trainer: Trainer, folder: Path) -> None:
    """For trainer.fast_dev_run: run some batches of each part, and keep nothing."""
    with _trainers_words():
        trainer.fit(run.classifier, datamodule=run.data())
        predict(run, "test", trainer)
    with contextlib.suppress(OSError):  # with files in it, it stays
        folder.rmdir()
    print(f"trainer.fast_dev_run={trainer.fast_dev_run}: training, validation and test ran through; nothing is kept")


def _test(
    run: Run, trainer: Trainer, epochs: Epochs, folder: Path, part: str
) -> tuple[dict[str, Any], dict[str, Predictions]]:
    """The scores for result.json, and the last epoch's predictions by part."""
    rows = {"last": epochs.rows[-1]}
    if (folder / "best.ckpt").exists():
        validated = [row for row in epochs.rows if "val_loss" in row]
        rows = {"best": max(validated, key=lambda row: row[f"val_{run.config.monitor or 'accuracy'}"])} | rows
    tested: dict[int, dict[str, float]] = {}  # by epoch: the best may be the last
    predictions = {}
    with _trainers_words():
        for which, row in rows.items():
            if row["epoch"] not in tested:
                tested[row["epoch"]], predictions[part] = predict(run, part, trainer, folder / f"{which}.ckpt")
        if part == "test" and _validates(run):
            validated, predictions["validation"] = predict(run, "validation", trainer, folder / "last.ckpt")
            if "val_loss" not in rows["last"]:  # check_val_every_n_epoch has left it out
                rows["last"] = rows["last"] | {f"val_{name}": value for name, value in validated.items()}
    scores = {which: {"epoch": row["epoch"]} | tested[row["epoch"]] for which, row in rows.items()}
    return summarise(rows) | {"test" if part == "test" else "held_out": scores}, predictions


def _write(
    run: Run,
    trainer: Trainer,
    epochs: Epochs,
    scores: dict[str, Any],
    predictions: dict[str, Predictions],
    folder: Path,
) -> None:
    """Write what the run leaves beside checkpoints and metrics.csv; result.json comes last: the run has finished."""
    result = describe(run) | scores
    result |= {
        "seconds": round(epochs.elapsed(), 3),  # of the whole training, validation and checkpoints included
        "images_per_second": round(epochs.images / epochs.seconds, 1),  # of the training batches alone
        "device": str(trainer.strategy.root_device),
        "processes": trainer.world_size,
        "precision": trainer.precision,  # of float16 a CPU makes bfloat16
    }
    if fell_below(run.config, epochs.rows):
        result["pruned"] = True
    answered = predictions.pop("test" if "test" in scores else "validation")
    answered.save(folder / "predictions.npz")
    for part, others in predictions.items():
        others.save(folder / f"predictions_{part}.npz")
    evaluation = evaluate(answered, predictions.get("validation"))
    result |= {key: evaluation[key] for key in ("auc", "threshold") if key in evaluation}
    if "test" in scores:
        name, test = f"{result['model']} on {result['data']['name']}", result["test"]["last"]
        passes = "1 epoch" if test["epoch"] == 1 else f"{test['epoch']} epochs"
        title = f"{name}: test accuracy {test['accuracy']:.2%} after {passes}"
        curves([epochs.rows], title, folder / "curves.png")
        confusion(evaluation["confusion"], run.dataset.classes, title, folder / "confusion.png")
        log_hyperparameters(run, result)
    write_json(result, folder / "result.json")
    print_result(result)
    print_confused(evaluation)
    print(f"Run folder: {folder}")


@contextlib.contextmanager
def _interruptible(folder: Path, epochs: Epochs) -> Iterator[None]:
    """Let Ctrl-C end the run with the command that goes on with it."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the one the other
        done = f"after epoch {len(epochs.rows)}" if epochs.rows else "in the first epoch"
        raise KeyboardInterrupt(f"{done}: {resume_command(folder)}") from None


@contextlib.contextmanager
def _trainers_words() -> Iterator[None]:
    """Make a UserError of what Lightning's Trainer refuses: it is one of its options."""
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(f"trainer: {error}") from None
