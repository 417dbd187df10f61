"""What a run tells while it trains: the progress bar, a line and a row of metrics.csv an epoch, histograms."""

import functools
import math
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from lab.classifier import MOST_LOSS, Score
from lab.files import write_csv
from lab.terminal import make_bar


def read_figures(trainer: Trainer) -> dict[str, float]:
    """What the module logged, to the seven digits that float32 holds; a count is an int."""
    logged = {name: float(f"{value.item():.7g}") for name, value in sorted(trainer.callback_metrics.items())}
    return {name: int(value) if name.endswith("_images") else value for name, value in logged.items()}


class Epochs(Checkpoint):  # Lightning calls a Checkpoint last, when the epoch's figures are all logged
    """`rows`: the figures of each epoch, kept in `path`, a CSV file, and given to `tell` as a line.

    `images` were trained on in `seconds`, validation apart.
    """

    def __init__(self, path: Path, tell: Callable[[str], None] | None = None) -> None:
        self.path, self.tell = path, tell
        self.rows: list[dict[str, float]] = []
        self.images, self.seconds, self.before = 0, 0.0, 0.0

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.begun = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.started, self.validated = time.perf_counter(), False

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, batch_index: int) -> None:
        self.epoch_seconds = time.perf_counter() - self.started  # before the validation that may follow

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        figures = read_figures(trainer)
        if not self.validated:  # Lightning still has an earlier epoch's
            figures = {name: value for name, value in figures.items() if not name.startswith("val_")}
        self.rows.append({"epoch": trainer.current_epoch + 1, **figures, "seconds": round(self.epoch_seconds, 3)})
        self.images, self.seconds = self.images + figures["train_images"], self.seconds + self.epoch_seconds
        if trainer.is_global_zero:
            write_csv(self.rows, self.path)
            if self.tell:
                self.tell(self._line(trainer.max_epochs))
        losses = figures["train_loss"], figures.get("val_loss", 0.0)
        finite = all(math.isfinite(loss) for loss in losses) and max(losses) < MOST_LOSS
        if not finite or not all(weight.isfinite().all() for weight in module.net.parameters()):
            module.stop_diverged("loss or a weight is no longer finite at the end")  # before this epoch's checkpoint

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "images": self.images, "seconds": self.seconds, "elapsed": self.elapsed()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.images, self.seconds = state["rows"], state["images"], state["seconds"]
        self.before = state["elapsed"]

    def elapsed(self) -> float:
        """Seconds of the whole training, those before an interruption too."""
        return self.before + time.perf_counter() - self.begun

    def _line(self, epochs: int) -> str:
        row = self.rows[-1]
        epoch = f"epoch {row['epoch']:{len(str(epochs))}}/{epochs}"
        told = [f"{epoch}: loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%}"]
        if "val_loss" in row:
            told.append(f"validation {row['val_loss']:.4f}, {row['val_accuracy']:.2%}")
        return " | ".join([*told, f"{row['train_images'] / row['seconds']:,.0f} images/s"])


class ProgressBar(Callback):
    """One bar over all epochs, on a terminal: images/s, time left, loss and accuracy of the epoch so far."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        images = trainer.max_epochs * trainer.train_dataloader.n_images
        self.bar = make_bar(images if images > 0 else None, " images", trainer.is_global_zero)
        module.on_step = functools.partial(self._step, trainer, module.train_score)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False)

    def _step(self, trainer: Trainer, score: Score, images: int) -> None:
        drawn = self.bar.update(images * trainer.world_size)
        if drawn:  # a few times a second; what is set here shows the next time
            loss, correct, images = score.loss, score.correct, score.images
            self.bar.set_postfix_str(f"loss {loss / images:.4f}, accuracy {correct / images:.2%}", refresh=False)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.bar.close()

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.bar = make_bar(
            len(trainer.test_dataloaders.indices) * trainer.world_size, " images", trainer.is_global_zero
        )
        self.bar.set_description("testing", refresh=False)

    def on_test_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, batch_index: int) -> None:
        self.bar.update(len(batch[1]) * trainer.world_size)

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.bar.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.close()


class Turns(Callback):
    """Asks at the other end of `connection` for each epoch's turn, and tells it of the images trained on.

    `waited` seconds in all for turns.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection, self.waited, self.told, self.images = connection, 0.0, 0.0, 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        images = trainer.max_epochs * trainer.train_dataloader.n_images
        self.connection.send(("total", images if images > 0 else None))
        module.on_step = self._step

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        started = time.perf_counter()
        self.connection.send(("epoch", trainer.current_epoch))
        self.connection.recv()
        self.waited += time.perf_counter() - started

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._tell()

    def _step(self, images: int) -> None:
        self.images += images
        if time.perf_counter() - self.told > 0.2:
            self._tell()

    def _tell(self) -> None:
        self.connection.send(("images", self.images))  # fails where nobody listens any more: then this ends too
        self.told, self.images = time.perf_counter(), 0


class Histograms(Callback):
    """Every weight and bias as a TensorBoard histogram, each epoch."""

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero:
            for name, parameter in module.net.named_parameters():
                trainer.logger.experiment.add_histogram(name, parameter, trainer.current_epoch)
