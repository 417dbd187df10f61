"""Lightning's Trainer as this program uses it: the options that a user gives, logger, checkpoints, callbacks.

Average, Epochs, Kept and Patience are keys in checkpoints: renamed, they would not be found again on resume.
"""

import contextlib
import inspect
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, LearningRateMonitor, ModelCheckpoint, WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from tqdm import tqdm

from lab.config.instantiate import instantiate
from lab.config.schema import MOST_THREADS
from lab.display.terminal import make_bar
from lab.errors import UserError, explain, first_line
from lab.files import write_csv
from lab.models.build import all_finite
from lab.training.checkpoint import AtomicCheckpoints
from lab.training.classifier import MOST_LOSS

QUIET = {"enable_progress_bar": False, "enable_model_summary": False}  # we have our own
CHARTS = {name: [f"{name}/{part}" for part in ("train", "val")] for name in ("loss", "accuracy")}
TURN = 0.1  # seconds between two looks whether a place is free
OURS = ("default_root_dir", "logger", "num_sanity_val_steps", "plugins")  # options that no user gives


def make_trainer(config: DictConfig, folder: Path, callbacks: list[Callback], keeps_best: bool) -> Trainer:
    """The Trainer that `config` describes, with checkpoints in `folder`, with `callbacks` and the user's."""
    options = trainer_options(config)
    users = [instantiate("trainer.callbacks", each, Callback) for each in config.trainer.get("callbacks") or ()]
    options.pop("callbacks", None)
    known = set(inspect.signature(Trainer.__init__).parameters)
    for key in options:
        if key not in known:
            raise UserError(f"trainer.{key}: Lightning's Trainer has no such option")
        if key in OURS:
            raise UserError(f"trainer.{key}: is this program's own")
    checkpoints = [Kept(folder, "last")]
    if keeps_best and options["limit_val_batches"] != 0:
        # first: "last" is saved after "best", and its state knows of it
        checkpoints.insert(0, Kept(folder, "best", monitor=f"val_{config.monitor or 'accuracy'}", mode="max"))
    others = [Histograms()] if config.histograms else []
    if config.model.average:
        others.append(Average(config.model.average))
    if config.early_stopping:
        validations = math.ceil(config.early_stopping / config.trainer.check_val_every_n_epoch)
        others.append(Patience("val_loss", patience=validations, check_on_train_epoch_end=False))
    if config.model.schedule:
        others.append(LearningRateMonitor("epoch"))
    try:
        return Trainer(
            **QUIET | options,
            default_root_dir=folder,
            logger=Events(folder),
            callbacks=[*callbacks, *checkpoints, *others, *users],
            plugins=[AtomicCheckpoints()],
            num_sanity_val_steps=0,
        )
    except Exception as error:  # whatever a plugin or a library says of an option's value
        raise UserError(explain(error) or f"trainer: {first_line(error)}") from None


def trainer_options(config: DictConfig) -> dict[str, Any]:
    """The Trainer's options, as plain values."""
    options = OmegaConf.to_container(config.trainer, resolve=True)
    return options | {"max_epochs": options["max_epochs"] or config.model.epochs}


class Events(TensorBoardLogger):
    """TensorBoard's files beside the others of the run, under names that nobody has planted a link under."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False, filename_suffix=f".{token_hex(8)}")
        self.has_layout = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Show training and validation in one chart, as loss/train and loss/val, by the epoch, from 1 on."""
        if not self.has_layout:
            self.experiment.add_custom_scalars(
                {"epochs": {name: ["Multiline", lines] for name, lines in CHARTS.items()}}
            )
            self.has_layout = True
        named = {re.sub(r"^(train|val)_(\w+)$", r"\2/\1", name): metrics[name] for name in metrics if name != "epoch"}
        super().log_metrics(named, int(metrics["epoch"]) + 1 if "epoch" in metrics else step)

    def save(self) -> None:
        """Write no hparams.yaml: config.yaml has it all."""
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        with contextlib.suppress(OSError):  # the folder is gone: whatever ended the run has said so
            super().finalize(status)


@contextlib.contextmanager
def quiet_threads() -> Iterator[None]:
    """Hide the traceback of TensorBoard's thread on a full disk: its next call raises the error in the main thread."""
    before = threading.excepthook

    def report(failure: threading.ExceptHookArgs) -> None:
        if not isinstance(failure.exc_value, OSError):
            before(failure)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = before


def read_metrics(trainer: Trainer) -> dict[str, float]:
    """What the module logged, to the seven digits that float32 has; counts as ints."""
    logged = {name: float(f"{value.item():.7g}") for name, value in sorted(trainer.callback_metrics.items())}
    return {name: int(value) if name.endswith("_images") else value for name, value in logged.items()}


class Turns(Callback):
    """Lets only so many as `places` of the processes that share `folder` train at a time: each an epoch, in turn."""

    def __init__(self, folder: Path, places: int) -> None:
        self.locks = [FileLock(folder / f".turn_{place}") for place in range(places)]

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        time.sleep(2 * TURN if trainer.current_epoch else 0)  # those who wait are first
        while True:
            for lock in self.locks:
                with contextlib.suppress(Timeout):
                    lock.acquire(blocking=False)
                    return
            time.sleep(TURN)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        for lock in self.locks:
            lock.release()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self.on_train_epoch_end(trainer, module)


class Epochs(Checkpoint):  # Lightning calls a Checkpoint last, when the epoch's metrics are all logged
    """Keeps the metrics of each epoch, `rows`, in the CSV file `path`, and prints a line of each.

    `images` were trained on in `seconds`, without validation. Training ends once the rows are `enough`.
    """

    def __init__(self, path: Path, enough: Callable[[list[dict[str, float]]], bool]) -> None:
        self.path, self.enough = path, enough
        self.rows: list[dict[str, float]] = []
        self.images, self.seconds, self.before = 0, 0.0, 0.0
        self.total: float | None = None  # once training has ended

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.begun = time.perf_counter()

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.total = self.elapsed()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.enough(self.rows)  # killed while it was tested

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.started, self.validating = time.perf_counter(), 0.0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, batch_index: int) -> None:
        self.epoch_seconds = time.perf_counter() - self.started - self.validating

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.validation_started = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.validating += time.perf_counter() - self.validation_started

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        metrics = read_metrics(trainer)
        if not module.validated:  # Lightning still has an earlier epoch's
            metrics = {name: value for name, value in metrics.items() if not name.startswith("val_")}
        spent = {"seconds": round(self.epoch_seconds, 3), "threads": torch.get_num_threads()}
        self.rows.append({"epoch": trainer.current_epoch + 1, **metrics, **spent})
        self.images, self.seconds = self.images + metrics["train_images"], self.seconds + self.epoch_seconds
        if trainer.is_global_zero and not trainer.fast_dev_run:
            write_csv(self.rows, self.path)
        if trainer.is_global_zero:
            tqdm.write(self._line(trainer.max_epochs))
        losses = metrics["train_loss"], metrics.get("val_loss", 0.0)
        if not all(loss < MOST_LOSS for loss in losses) or not all_finite(module.net):  # of NaN nothing is less
            module.stop_diverged("loss or a weight is no longer finite at the end")  # before this epoch's checkpoint
        trainer.should_stop = trainer.should_stop or self.enough(self.rows)

    def state_dict(self) -> dict[str, Any]:
        totals = {"images": self.images, "seconds": self.seconds, "elapsed": self.elapsed()}
        return {"rows": self.rows, "threads": torch.get_num_threads()} | totals

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """ValueError, KeyError or TypeError where `state` is not what state_dict gives: it may be a stranger's."""
        if self.total is not None:  # a test, for which Lightning restores callbacks too
            return
        threads = state.get("threads", torch.get_num_threads())
        numbers = [row[key] for row in state["rows"] for key in row]
        numbers += [state[key] for key in ("images", "seconds", "elapsed")]
        if not 1 <= threads <= MOST_THREADS or not all(map(math.isfinite, numbers)):
            raise ValueError("its epochs are no numbers")
        self.rows, self.images, self.seconds = state["rows"], state["images"], state["seconds"]
        self.before = state["elapsed"]
        torch.set_num_threads(threads)  # the bits depend on it

    def elapsed(self) -> float:
        """Seconds of the whole training, also before an interruption."""
        return self.before + time.perf_counter() - self.begun if self.total is None else self.total

    def _line(self, epochs: int) -> str:
        row = self.rows[-1]
        epoch = f"epoch {row['epoch']:{len(str(epochs))}}/{epochs}"
        parts = [f"{epoch}: loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%}"]
        if "val_loss" in row:
            parts.append(f"validation {row['val_loss']:.4f}, {row['val_accuracy']:.2%}")
        return " | ".join([*parts, f"{row['train_images'] / self.epoch_seconds:,.0f} images/s"])


class ProgressBar(Callback):
    """One bar over all epochs, on a terminal: images/s, time left, loss and accuracy of the epoch so far."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        batches = trainer.train_dataloader
        epoch = round(batches.n_images * trainer.num_training_batches / len(batches))
        total = epoch * trainer.max_epochs if trainer.max_epochs > 0 else None
        self.bar = make_bar(total, " images", trainer.is_global_zero, done=epoch * trainer.current_epoch)
        self.score, self.world_size = module.train_score, trainer.world_size
        batches.advance = self._advance

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False)

    def _advance(self, images: int) -> None:
        drawn = self.bar.update(images * self.world_size)
        if drawn and self.score.images:  # a few times a second; what is set here shows the next time
            loss, correct, images = self.score.loss, self.score.correct, self.score.images
            self.bar.set_postfix_str(f"loss {loss / images:.4f}, accuracy {correct / images:.2%}", refresh=False)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.bar.close()

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        batches = trainer.test_dataloaders
        self.bar = make_bar(len(batches.indices), " images", trainer.is_global_zero)
        self.bar.set_description("testing", refresh=False)
        batches.advance = self.bar.update

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.bar.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.close()


class Kept(ModelCheckpoint):
    """Keeps the checkpoint of one epoch, the last or the best. A resumed run finds it where its folder is now."""

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        super().__init__(folder, name, enable_version_counter=False, save_on_train_epoch_end=True, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        path = str(Path(self.dirpath) / f"{self.filename}.ckpt")
        best = {path: state_dict["best_model_score"]} if state_dict["best_k_models"] else {}
        places = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path, "best_k_models": best}
        super().load_state_dict(state_dict | places)


class Patience(EarlyStopping):
    """Early stopping that also stops a resumed run which had stopped before, and was killed while it was tested."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.stopped_epoch > 0


class Average(WeightAveraging):
    """Validates, tests, saves and exports an exponential moving average of the weights.

    The average keeps `decay` of itself a step; at first less, (1 + steps) / (10 + steps), as TensorFlow's: else a short
    run's would consist of its first weights. Batch normalisation's running statistics are averaged too.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=self._average)
        self.decay = decay

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device  # the module is not there yet
        super().setup(trainer, module, stage)

    def _average(self, averages: list[Tensor], weights: list[Tensor], _: Any) -> None:
        steps = self._latest_update_step
        kept = min(self.decay, (1 + steps) / (10 + steps))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, weights, 1 - kept)
        else:  # counts
            torch._foreach_copy_(averages, weights)

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore only to go on with training: in a test Lightning would take the trained weights, not the average."""
        if trainer.training:
            super().on_load_checkpoint(trainer, module, checkpoint)


class Histograms(Callback):
    """Writes every weight and bias as a TensorBoard histogram, each epoch."""

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero:
            for name, parameter in module.net.named_parameters():
                trainer.logger.experiment.add_histogram(name, parameter, trainer.current_epoch)
