"""Training: Lightning's Trainer with our callbacks, and what is tested and saved when it ends."""

import contextlib
import inspect
import io
import threading
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tqdm import tqdm

from lab import UserError
from lab.callbacks import Epochs, Histograms, ProgressBar, Turns
from lab.config import data_folder
from lab.data import ImageData
from lab.duplicates import find_leaked
from lab.evaluation import evaluate
from lab.files import whole, write_json
from lab.folder import claim, occupied, read_config, resume_command
from lab.network import count_parameters
from lab.plots import confusion, curves
from lab.predictions import Predictions
from lab.results import describe, log_hyperparameters, summarise
from lab.run import (
    Run,
    check_checkpoint,
    choose_precision,
    count_classes,
    load_weights,
    place_data,
    predict,
    prepare,
    with_precision,
)
from lab.terminal import print_confused, print_data, print_layers, print_result, warn

UNFIT = {"val_check_interval", "fast_dev_run", "overfit_batches", "barebones", "max_steps", "min_steps"}
UNFIT |= {"accumulate_grad_batches"}


class Events(TensorBoardLogger):
    """TensorBoard's files beside the others of the run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False)
        threading.excepthook = _silence_writer

    def save(self) -> None:
        """No hparams.yaml: config.yaml has it all."""
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        with contextlib.suppress(OSError):  # the folder is gone: whatever ended the run has said so
            super().finalize(status)


def _silence_writer(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread, on a full disk: its next call raises the same where it ends the run in a line."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are whole or absent, and never in a folder that somebody has deleted meanwhile."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        content = io.BytesIO()  # torch's own writer has no plain word for a full disk
        torch.save(checkpoint, content)
        with whole(Path(path)) as beside:
            beside.write_bytes(content.getbuffer())


class Kept(ModelCheckpoint):
    """A checkpoint that a resumed run knows again, wherever its folder has been moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        path = str(Path(self.dirpath) / f"{self.filename}.ckpt")
        best = {path: state_dict["best_model_score"]} if state_dict["best_k_models"] else {}
        places = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path, "best_k_models": best}
        super().load_state_dict(state_dict | places)


class Patience(EarlyStopping):
    """Stops a resumed run that had stopped already, and was killed while it was tested."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.stopped_epoch > 0


def resume(folder: Path) -> None:
    """Go on with the run of `folder`, to the same bits as if nothing had happened.

    From the end of its last finished epoch: all that an epoch draws depends on the seed and its number alone.
    """
    config, folder = read_config(folder), folder.absolute()
    if config.tune:
        raise UserError(f"{folder}: tune=lr has no epochs to go on with: start it again")
    if (folder / "result.json").exists():
        print(f"{folder} has finished: nothing is left to do")
        return
    place_data(config, None)
    fit(config, folder, resumes=True)


def fit(config: DictConfig, folder: Path, resumes: bool = False) -> None:
    """Train the recipe on the data, test its best and its last epoch, leave everything in `folder`."""
    run = prepare(config, is_strange=resumes)
    watched = {"early_stopping": config.early_stopping, "schedule=plateau": "Plateau" in str(config.model.schedule)}
    validates = len(run.parts["validation"]) and config.trainer.limit_val_batches != 0
    if unfit := [key for key, value in watched.items() if value and not validates]:
        raise UserError(f"{unfit[0]} looks at the validation loss: there is no validation part, give data.validation")
    epochs = Epochs(folder / "metrics.csv", tqdm.write)
    trainer = make_trainer(config, folder, [epochs, ProgressBar()], keeps_best=len(run.parts["validation"]) > 0)
    if rank_zero_only.rank == 0 and not resumes:
        claim(folder, with_precision(config))
    try:
        with occupied(folder) if rank_zero_only.rank == 0 else contextlib.nullcontext():
            if rank_zero_only.rank == 0:
                print_start(run)
            result, predictions = _train(run, trainer, epochs, folder, "test", resumes)
            if trainer.is_global_zero:
                _finish(run, result, predictions, epochs, folder)
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the one the other
        done = f"after epoch {len(epochs.rows)}" if epochs.rows else "in the first epoch"
        raise KeyboardInterrupt(f"{done}: {resume_command(folder)}") from None


def _finish(run: Run, result: dict[str, Any], predictions: Predictions, epochs: Epochs, folder: Path) -> None:
    predictions.save(folder / "predictions.npz")
    name = f"{result['model']} on {result['data']['name']}"
    test, evaluation = result["test"]["last"], evaluate(predictions)
    title = f"{name}: test accuracy {test['accuracy']:.2%} after {test['epoch']} epochs"
    curves([epochs.rows], title, folder / "curves.png")
    confusion(evaluation["confusion"], run.classes, title, folder / "confusion.png")
    log_hyperparameters(run, result)
    write_json(result, folder / "result.json")  # the run that has it has finished
    print_result(result)
    print_confused(evaluation)
    print(f"Run folder: {folder}")


def fit_fold(config: DictConfig, folder: Path, turns: Turns) -> None:
    """Train on all folds but one, score the last epoch's weights on that one; the test part is not used."""
    run = prepare(config)
    epochs = Epochs(folder / "metrics.csv")
    trainer = make_trainer(config, folder, [epochs, turns], keeps_best=False)
    claim(folder, with_precision(config))
    result, predictions = _train(run, trainer, epochs, folder, "validation")
    result["seconds"] = round(result["seconds"] - turns.waited, 3)
    predictions.save(folder / "predictions.npz")
    write_json(result, folder / "result.json")


def make_trainer(config: DictConfig, folder: Path, callbacks: list[Callback], keeps_best: bool) -> Trainer:
    """Lightning's Trainer, with checkpoints, our callbacks and what `config.trainer` says."""
    options = OmegaConf.to_container(config.trainer, resolve=True)
    options["max_epochs"] = options["max_epochs"] or config.model.epochs
    options["precision"] = choose_precision(config)[0]
    if config.speed and options["precision"] == "16-mixed" and options["gradient_clip_val"]:
        raise UserError("trainer.gradient_clip_val: not with float16, whose gradients are scaled: leave out speed=fast")
    unknown = set(options) - set(inspect.signature(Trainer.__init__).parameters)
    if unfit := UNFIT & set(options):
        raise UserError(f"trainer.{min(unfit)}: is not for these runs, which validate and keep figures once an epoch")
    del options["limit_train_batches"]  # the data's, see _train
    if unknown:
        raise UserError(f"trainer.{min(unknown)}: Lightning's Trainer has no such option")
    checkpoints = [Kept(folder, "last", enable_version_counter=False, save_on_train_epoch_end=True)]
    if keeps_best and options["limit_val_batches"] != 0:
        best = Kept(folder, "best", monitor="val_accuracy", mode="max", enable_version_counter=False)
        checkpoints.insert(0, best)  # the last one is saved after it, and knows it
    others = [Histograms()] if config.histograms else []
    if config.early_stopping:
        others.append(Patience("val_loss", patience=config.early_stopping, check_on_train_epoch_end=False))
    if config.model.schedule:
        others.append(LearningRateMonitor("epoch"))
    try:
        return Trainer(
            **options,
            logger=Events(folder),
            callbacks=[*callbacks, *checkpoints, *others],
            plugins=[WholeFiles()],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"trainer: {error}") from None


def _train(
    run: Run, trainer: Trainer, epochs: Epochs, folder: Path, part: str, resumes: bool = False
) -> tuple[dict[str, Any], Predictions]:
    """Train, from the last checkpoint on where it `resumes`, then test on `part`: result, last epoch's predictions."""
    options, classifier = run.config.trainer, run.classifier
    classifier.clip_value, classifier.clip_algorithm = options.gradient_clip_val, options.gradient_clip_algorithm
    trainer.gradient_clip_val = trainer.gradient_clip_algorithm = None  # Lightning steps nothing itself
    classifier.backward_is_plain = trainer.world_size == 1 and getattr(trainer.precision_plugin, "scaler", None) is None
    data = ImageData(run.dataset, run.parts, run.config.model.batch_size, run.config.seed)
    data.limit = options.limit_train_batches
    last = folder / "last.ckpt"
    if resumes and last.exists():
        for path in folder.glob("*.ckpt"):
            load_weights(run, path)
        if "Epochs" not in check_checkpoint(last).get("callbacks", {}):
            raise UserError(f"{last}: of an older version, which did not save what a run needs to go on")
    try:
        trainer.fit(
            classifier, datamodule=data, ckpt_path=last if resumes and last.exists() else None, weights_only=True
        )
        seconds = epochs.elapsed()
        rows = {"last": epochs.rows[-1]}
        if (folder / "best.ckpt").exists():
            validated = (row for row in epochs.rows if "val_loss" in row)
            rows = {"best": max(validated, key=lambda row: row["val_accuracy"])} | rows
        tested = {}  # by epoch: the best may be the last
        for which, row in rows.items():
            if row["epoch"] not in tested:
                tested[row["epoch"]] = predict(run, part, trainer, folder / f"{which}.ckpt")
    except MisconfigurationException as error:
        raise UserError(f"trainer: {error}") from None
    figures = {which: {"epoch": row["epoch"]} | tested[row["epoch"]][0] for which, row in rows.items()}
    result = describe(run) | summarise(rows) | {"test" if part == "test" else "held_out": figures}
    speed = {
        "seconds": round(seconds, 3),  # of the whole training, validation and checkpoints included
        "images_per_second": round(epochs.images / epochs.seconds, 1),  # of the training batches alone
        "device": str(trainer.strategy.root_device),
        "processes": trainer.world_size,
    }
    return result | speed, tested[rows["last"]["epoch"]][1]


def print_start(run: Run) -> None:
    """The data and the network, and whatever the user should know of them."""
    shape = "x".join(map(str, run.classifier.example_input_array.shape[1:]))
    config, name = run.config, run.config.data.name
    if run.dataset.is_sample:
        name += " SAMPLE"
        warn(
            "This is NOT the MNIST data set: neither its files nor a network were found, so this run uses a sample of "
            "5,000 of its images. Its scores are not MNIST's. For the real set put the four files of "
            f"{config.data.source.mirrors[0]} into {data_folder(config.data.root) / config.data.source.folder}, or "
            "name their place with data.root=FOLDER or LAB_DATA; data.sample=false makes this an error."
        )
    if "train" in run.parts and (leaked := int(find_leaked(run.dataset, run.parts).sum())):
        warn(
            f"{leaked} images of the training part are in the validation or test part too: data.drop_duplicates=true "
            f"leaves them out of training; python src/check_data.py data={config.data.name} shows them."
        )
    by_part = count_classes(run.dataset, run.parts, run.classes)
    print_data(f"{name}: {len(run.dataset.labels):,} images of {shape}", by_part, run.classes)
    total, trainable = (count_parameters(run.classifier.net, only) for only in (False, True))
    print_layers(config.model.name, run.layers, total, trainable)
    if config.speed:
        print(f"speed=fast: {choose_precision(config)[1]}")
    if config.trainer.max_epochs:
        print(f"trainer.max_epochs={config.trainer.max_epochs} wins over model.epochs={config.model.epochs}")
