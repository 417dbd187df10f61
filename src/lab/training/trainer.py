"""Lightning's Trainer as this program uses it: logger, checkpoints, callbacks, and the options that a user gives."""

import contextlib
import inspect
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lab.config.instantiate import instantiate
from lab.errors import UserError
from lab.files import atomic_write
from lab.training.callbacks import Histograms, Kept, Patience

QUIET = {"enable_progress_bar": False, "enable_model_summary": False}  # ours say it
OURS = ("default_root_dir", "logger", "num_sanity_val_steps", "plugins")


def make_trainer(config: DictConfig, folder: Path, callbacks: list[Callback], keeps_best: bool) -> Trainer:
    """The Trainer that `config` describes, with checkpoints in `folder`, and `callbacks` and the user's."""
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
        # the last one is saved after it, and knows it
        checkpoints.insert(0, Kept(folder, "best", monitor="val_accuracy", mode="max"))
    others = [Histograms()] if config.histograms else []
    if config.early_stopping:
        others.append(Patience("val_loss", patience=config.early_stopping, check_on_train_epoch_end=False))
    if config.model.schedule:
        others.append(LearningRateMonitor("epoch"))
    try:
        return Trainer(
            **QUIET | options,
            logger=Events(folder),
            callbacks=[*callbacks, *checkpoints, *others, *users],
            plugins=[AtomicCheckpoints()],
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"trainer: {error}") from None


def trainer_options(config: DictConfig) -> dict[str, Any]:
    """What the Trainer is told, as plain values."""
    options = OmegaConf.to_container(config.trainer, resolve=True)
    return options | {"max_epochs": options["max_epochs"] or config.model.epochs}


class Events(TensorBoardLogger):
    """TensorBoard's files beside the others of the run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False)

    def save(self) -> None:
        """No hparams.yaml: config.yaml has it all."""
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        with contextlib.suppress(OSError):  # the folder is gone: whatever ended the run has said so
            super().finalize(status)


@contextlib.contextmanager
def quiet_threads() -> Iterator[None]:
    """Without the traceback of TensorBoard's thread on a full disk: its next call raises the same in the main one."""
    before = threading.excepthook

    def report(failure: threading.ExceptHookArgs) -> None:
        if not isinstance(failure.exc_value, OSError):
            before(failure)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = before


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent, and never in a folder that somebody has deleted meanwhile."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        content = io.BytesIO()  # torch's own writer has no plain word for a full disk
        torch.save(checkpoint, content)
        with atomic_write(Path(path)) as beside:
            beside.write_bytes(content.getbuffer())
