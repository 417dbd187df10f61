"""The LightningModule: a network that turns images into logits, its loss, its optimizer, its figures."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lab import UserError
from lab.data import Batch

MOST_LOSS = 1e6  # raw pixels start with hundreds
STEPS_UNWATCHED = 50  # on a GPU, where looking at the loss waits for it


class Score(Metric):
    """Mean cross-entropy, accuracy as a fraction, and the number of images they are of.

    Running sums, and of all processes of a distributed run: a kept tensor a step would pin torch's freed memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """`loss` is the mean over the batch."""
        self.loss.add_(loss.detach() * len(labels))  # in place: a module's attributes are slow to set
        self.correct.add_((logits.argmax(1) == labels).sum())
        self.images.add_(len(labels))

    def compute(self) -> dict[str, Tensor]:
        return {"loss": self.loss / self.images, "accuracy": self.correct / self.images, "images": self.images.float()}


class Outputs(Metric):
    """The logits [n, classes] of every image of a part, in the data set's order, and the images' indices [n]."""

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
    """`net` maps images uint8 or float [n, c, h, w] to logits [n, classes]; `augment` changes those it trains on.

    Logs the Score of each part once an epoch, as train_loss, val_accuracy, ... Training figures are of the weights as
    they were at each batch, with dropout, as Keras prints them. After a test `outputs` holds the test's Outputs.
    """

    def __init__(
        self,
        net: nn.Module,
        make_optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        make_schedule: Callable[[Optimizer, int], dict[str, Any]] | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """`make_schedule` is told the optimizer and the number of steps, and gives Lightning's lr_scheduler."""
        super().__init__()
        self.net, self.make_optimizer, self.make_schedule, self.augment = net, make_optimizer, make_schedule, augment
        self.train_score, self.val_score, self.test_score = Score(), Score(), Score()
        self.test_outputs = Outputs()
        self.automatic_optimization = False  # training_step takes the steps
        self.on_step: Callable[[int], None] = lambda images: None  # told of each
        self.backward_is_plain = False  # for one process without a gradient scaler: Lightning's hooks take 0.3 ms
        self.clip_value: float | None = None
        self.clip_algorithm: str | None = None

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batches: Iterable[Batch], item: int) -> Tensor | None:
        """All steps of an epoch, of a distributed run one; the learning-rate test steps itself, by the loss."""
        optimizer, schedules = self.optimizers(), self._schedules("step")
        for step, (images, labels, _) in enumerate(batches, item + 1):
            loss = self._score(self.net(self.augment(images) if self.augment else images), labels, self.train_score)
            if self.automatic_optimization:
                return loss
            if (step % STEPS_UNWATCHED == 0 or loss.is_cpu) and not loss.item() < MOST_LOSS:
                self.stop_diverged(f"loss is {loss.item():.3g} at step {step}")
            optimizer.zero_grad()
            if self.backward_is_plain:
                loss.backward()
            else:
                self.manual_backward(loss)
            if self.clip_value:
                clip = clip_grad_value_ if str(self.clip_algorithm).lower() == "value" else clip_grad_norm_
                clip(self.parameters(), self.clip_value)  # Lightning refuses it for fused optimizers in bfloat16
            optimizer.step()
            for schedule in schedules:
                schedule.step()
            self.on_step(len(labels))
        return None

    def stop_diverged(self, what: str) -> None:
        """UserError, always: what is wrong, at which epoch and learning rate, and what to try."""
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        raise UserError(
            f"the {what} of epoch {self.current_epoch + 1}, at a learning rate of {rate:g}: try a smaller "
            f"model.optimizer.lr, model.scale=255 for raw pixels, or trainer.gradient_clip_val=1"
        )

    def validation_step(self, batch: Batch, _: int) -> None:
        images, labels, _ = batch
        self._score(self.net(images), labels, self.val_score)

    def test_step(self, batch: Batch, _: int) -> None:
        images, labels, indices = batch
        logits = self.net(images)
        self._score(logits, labels, self.test_score)
        self.test_outputs.update(logits, indices)

    def _score(self, logits: Tensor, labels: Tensor, score: Score) -> Tensor:
        loss = F.cross_entropy(logits, labels)
        score.update(loss, logits, labels)
        return loss

    def on_train_epoch_end(self) -> None:
        self._log("train", self.train_score)
        for schedule in self._schedules("epoch"):
            if not isinstance(schedule, ReduceLROnPlateau):
                schedule.step()
            elif self.validated:
                schedule.step(self.trainer.callback_metrics["val_loss"])

    def _schedules(self, interval: str) -> list[LRScheduler]:
        return [config.scheduler for config in self.trainer.lr_scheduler_configs if config.interval == interval]

    def on_train_epoch_start(self) -> None:
        """Dropout and augmentation depend on seed, epoch and process alone: so a resumed run has the same bits."""
        drawn_from = [self.trainer.datamodule.seed, self.current_epoch, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(drawn_from).generate_state(1)[0]))
        self.validated = False

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
            # the test figures belong to the end, not on a curve
            self.log(f"{part}_{name}", value, logger=part != "test" and name != "images")
        score.reset()

    def configure_optimizers(self) -> Optimizer | dict[str, Any]:
        optimizer = self.build_optimizer()
        if self.make_schedule is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": self.make_schedule(optimizer, self.trainer.max_epochs * self.trainer.datamodule.steps),
        }

    def build_optimizer(self) -> Optimizer:
        """Keras' l2(x) adds x * w ** 2 to the loss: the same gradient as a weight decay of 2 x."""
        groups: dict[float, list[nn.Parameter]] = defaultdict(list)
        for module in self.net.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad:
                    groups[2 * getattr(module, "l2", 0.0) if name == "weight" else 0.0].append(parameter)
        return self.make_optimizer(
            [{"params": params} | ({"weight_decay": decay} if decay else {}) for decay, params in groups.items()]
        )
