"""The LightningModule: a network that turns images into logits, its loss, its optimizer, its metrics."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix
from torchmetrics.utilities import dim_zero_cat

from lab.datasets.batches import Batch
from lab.errors import UserError

MOST_LOSS = 1e6  # from which on training has diverged; with raw pixels it starts with hundreds
STEPS_UNWATCHED = 50  # between two looks at the loss on a GPU, each of which waits for the GPU


class Score(Metric):
    """Mean cross-entropy, accuracy as a fraction, and the number of images, over all processes of a distributed run.

    It keeps running sums: a tensor kept from each step would pin memory that torch has freed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """`loss` is the mean over the batch."""
        self.loss.add_(loss.detach(), alpha=len(labels))  # in place: a module's attributes are slow to set
        self.correct.add_((logits.argmax(1) == labels).sum())
        self.images.add_(len(labels))

    def compute(self) -> dict[str, Tensor]:
        return {"loss": self.loss / self.images, "accuracy": self.correct / self.images, "images": self.images.float()}


class ClassScore(Score):
    """A Score with balanced accuracy and macro F1: means over the classes for which recall, or F1, is defined."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("confusion", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        super().update(loss, logits, labels)
        predicted = logits.argmax(1)
        self.confusion.add_(multiclass_confusion_matrix(predicted, labels, self.classes, validate_args=False))

    def compute(self) -> dict[str, Tensor]:
        right, there, said = self.confusion.diag().float(), self.confusion.sum(1), self.confusion.sum(0)
        means = {"balanced_accuracy": (right / there).nanmean(), "macro_f1": (2 * right / (there + said)).nanmean()}
        return super().compute() | means


class Outputs(Metric):
    """Collects the logits [n, classes] for all images of a part, in the data set's order, and their indices [n]."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("indices", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, indices: Tensor) -> None:
        self.logits.append(logits.float())
        self.indices.append(indices)

    def compute(self) -> tuple[Tensor, Tensor]:
        indices, order = dim_zero_cat(self.indices).sort()
        return dim_zero_cat(self.logits)[order], indices


class Classifier(LightningModule):
    """Trains `net`, a Network that maps images uint8 or float [n, c, h, w] to logits [n, classes].

    `augment` changes the images to train on; `mix` changes them and their labels [n], into the classes' shares
    [n, classes]. The network trains by `train_loss`, of logits and labels or shares; validation and test are scored by
    plain cross-entropy. Where nothing changes the images a batch may hold their features, what the frozen layers make
    of them.

    Logs the Score of each part once an epoch, as train_loss, val_accuracy, ... Training metrics are of the weights as
    they were at each batch, with dropout, as Keras prints them. After a test `outputs` holds the test's Outputs.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Optimizer,
        classes: int,
        make_schedule: Callable[[Optimizer, int], dict[str, Any]] | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """`make_schedule` is given the optimizer and the number of steps, and gives Lightning's lr_scheduler."""
        super().__init__()
        self.net, self.optimizer, self.make_schedule, self.augment = net, optimizer, make_schedule, augment
        self.mix, self.classes, self.train_loss = mix, classes, nn.CrossEntropyLoss()
        self.train_score, self.val_score, self.test_score = Score(), ClassScore(classes), ClassScore(classes)
        self.test_outputs = Outputs()

    @property
    def changes_images(self) -> bool:
        """Whether it trains on other images than the data set's: their features are not known."""
        return self.augment is not None or self.mix is not None

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Batch, step: int) -> Tensor:
        """The loss of one batch, the `step`th of its epoch from 0 on."""
        images, labels, _ = batch
        images = self.augment(images) if self.augment else images
        images, targets = self.mix(images, labels) if self.mix else (images, labels)
        logits = self.net(images) if self.changes_images else self.net.head(images)
        loss = self.train_loss(logits, targets)
        self.train_score.update(loss, logits, targets.argmax(1) if self.mix else labels)
        if (loss.is_cpu or (step + 1) % STEPS_UNWATCHED == 0) and not loss.item() < MOST_LOSS:
            self.stop_diverged(f"loss is {loss.item():.3g} at step {step + 1}")
        return loss

    def stop_diverged(self, what: str) -> None:
        """UserError, always: what is wrong, at which epoch and learning rate, and what to try."""
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        raise UserError(
            f"the {what} of epoch {self.current_epoch + 1}, at a learning rate of {rate:g}: try a smaller "
            f"model.optimizer.lr, model.scale=255 for raw pixels, or trainer.gradient_clip_val=1"
        )

    def validation_step(self, batch: Batch, _: int) -> None:
        images, labels, _ = batch
        logits = self.net.head(images)
        self.val_score.update(F.cross_entropy(logits, labels), logits, labels)

    def test_step(self, batch: Batch, _: int) -> None:
        images, labels, indices = batch
        logits = self.net.head(images)
        self.test_score.update(F.cross_entropy(logits, labels), logits, labels)
        self.test_outputs.update(logits, indices)

    def on_fit_start(self) -> None:
        self.trainer.datamodule.compute_features()

    def on_train_start(self) -> None:
        """ValueError where a checkpoint's optimizer does not fit the parameters: a fused step would read beyond it."""
        for parameter, state in self.optimizer.state.items():
            shapes = {value.shape for value in state.values() if isinstance(value, Tensor)}
            if "fused" in self.optimizer.defaults and not shapes <= {parameter.shape, torch.Size()}:
                raise ValueError("its optimizer is of another network")

    def on_train_epoch_start(self) -> None:
        """Seed dropout and augmentation by seed, epoch and process alone, so that a resumed run has the same bits."""
        drawn_from = [self.trainer.datamodule.seed, self.current_epoch, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(drawn_from).generate_state(1)[0]))
        self.validated = False

    def on_train_epoch_end(self) -> None:
        self._log("train", self.train_score)
        for config in self.trainer.lr_scheduler_configs:  # here: Lightning would do it after the checkpoint is written
            if isinstance(config.scheduler, ReduceLROnPlateau) and self.validated:
                config.scheduler.step(self.trainer.callback_metrics["val_loss"])

    def on_validation_epoch_end(self) -> None:
        self.validated = True
        self._log("val", self.val_score)

    def on_test_epoch_end(self) -> None:
        self._log("test", self.test_score)
        logits, indices = self.test_outputs.compute()
        self.outputs = logits, indices.reshape(-1)  # torchmetrics makes a number of one
        self.test_outputs.reset()

    def _log(self, part: str, score: Score) -> None:
        for name, value in score.compute().items():
            # the test's metrics are no curve over the epochs
            self.log(f"{part}_{name}", value, logger=part != "test" and name != "images")
        score.reset()

    def configure_optimizers(self) -> Optimizer | dict[str, Any]:
        if self.make_schedule is None:
            return self.optimizer
        schedule = self.make_schedule(self.optimizer, self.count_steps())
        # Lightning demands a monitor, but lr_scheduler_step chooses itself
        monitor = {"monitor": "val_loss", "strict": False} if self.automatic_optimization else {}
        return {"optimizer": self.optimizer, "lr_scheduler": schedule | monitor}

    def count_steps(self) -> int:
        """How many steps the whole training has."""
        return self.trainer.estimated_stepping_batches

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any = None) -> None:
        """Step the schedule; ReduceLROnPlateau is stepped at the end of an epoch."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()


# the Trainer's options that count batches, look at each or change a step, with the values that leave them off
BATCH_BY_BATCH = {
    "accumulate_grad_batches": 1,
    "callbacks": None,
    "detect_anomaly": False,
    "fast_dev_run": False,
    "gradient_clip_val": None,
    "limit_train_batches": None,
    "max_steps": -1,
    "max_time": None,
    "min_steps": None,
    "overfit_batches": 0,
    "profiler": None,
    "val_check_interval": None,
}


def fits_whole_epochs(options: dict, trainer: Trainer, optimizer: Optimizer) -> bool:
    """Whether WholeEpochsClassifier can take the steps: no option, callback or optimizer wants Lightning's own loop.

    `options` are those that `trainer` was given.
    """
    given = any(options.get(key, off) != off for key, off in BATCH_BY_BATCH.items())
    given |= any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # after each step
    scales = getattr(trainer.precision_plugin, "scaler", None) is not None  # gradients of float16
    wants_closure = inspect.signature(optimizer.step).parameters["closure"].default is inspect.Parameter.empty  # LBFGS
    return not given and not scales and not wants_closure and trainer.world_size == 1


class WholeEpochsClassifier(Classifier):
    """A Classifier that gets all batches of an epoch as one item, and takes the steps itself.

    What Lightning does around a step takes as long as a step of a small network. The weights get the same bits as
    batch by batch, in Lightning's own loop. That is used where something counts batches or wants to see each: see
    fits_whole_epochs.
    """

    def __init__(self, classifier: Classifier) -> None:
        kept = ("net", "optimizer", "classes", "make_schedule", "augment", "mix")
        super().__init__(**{name: getattr(classifier, name) for name in kept})
        self.train_loss = classifier.train_loss
        self.example_input_array = classifier.example_input_array
        self.automatic_optimization = False

    def training_step(self, batches: Iterable[Batch], _: int) -> None:
        optimizer = self.optimizer  # Lightning's wrapper would take longer than it does
        schedules = [config.scheduler for config in self.trainer.lr_scheduler_configs if config.interval == "step"]
        for step, batch in enumerate(batches):
            loss = super().training_step(batch, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for schedule in schedules:
                schedule.step()
        self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total.completed += step + 1

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        for config in self.trainer.lr_scheduler_configs:
            if config.interval == "epoch":
                self.lr_scheduler_step(config.scheduler)

    def count_steps(self) -> int:
        return self.trainer.max_epochs * self.trainer.datamodule.train_dataloader().n_batches
