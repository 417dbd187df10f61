"""The LightningModule: a network that turns images into logits, its loss, its optimizer, its figures."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torchmetrics.functional.classification import multiclass_accuracy

Batch = tuple[Tensor, Tensor]  # images uint8 [n, c, h, w], labels int64 [n]


class Classifier(LightningModule):
    """`net` maps images uint8 or float [n, c, h, w] to logits [n, classes]; `augment` changes those it trains on.

    Logged once an epoch: {train,val,test}_loss, the mean cross-entropy, and _accuracy, a fraction. Those of training
    are of the weights as they were at each batch, with dropout, as Keras prints them. _images says of how many.
    """

    def __init__(
        self,
        net: nn.Module,
        classes: int,
        make_optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.net, self.classes, self.make_optimizer, self.augment = net, classes, make_optimizer, augment
        self.seen: dict[str, list[Batch]] = defaultdict(list)  # logits and labels: figures then cost no step

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        images, labels = batch
        logits = self.net(self.augment(images) if self.augment else images)
        self.seen["train"].append((logits.detach(), labels))
        return F.cross_entropy(logits, labels)

    def validation_step(self, batch: Batch, _: int) -> None:
        self.seen["val"].append((self.net(batch[0]), batch[1]))

    def test_step(self, batch: Batch, _: int) -> None:
        self.seen["test"].append((self.net(batch[0]), batch[1]))

    def figures(self, part: str, batches: int | None = None) -> dict[str, Tensor]:
        """Loss and accuracy of the last `batches` of this epoch, or of all."""
        logits, labels = map(torch.cat, zip(*self.seen[part][-(batches or 0) :], strict=True))
        return {
            f"{part}_loss": F.cross_entropy(logits.float(), labels),
            f"{part}_accuracy": multiclass_accuracy(logits, labels, self.classes, average="micro"),
        }

    def on_train_epoch_end(self) -> None:
        self._log_figures("train")

    def on_validation_epoch_end(self) -> None:
        self._log_figures("val")

    def on_test_epoch_end(self) -> None:
        self._log_figures("test")

    def _log_figures(self, part: str) -> None:
        images = sum(len(labels) for _, labels in self.seen[part])
        # weighted by the images of each process; the test figures belong to the end, not on a curve
        self.log_dict(self.figures(part), batch_size=images, sync_dist=True, logger=part != "test")
        self.log(f"{part}_images", float(images), reduce_fx="sum", sync_dist=True, logger=False)
        self.seen[part].clear()

    def configure_optimizers(self) -> Optimizer:
        """Keras' l2(x) adds x * w ** 2 to the loss: the same gradient as a weight decay of 2 x."""
        groups: dict[float, list[nn.Parameter]] = defaultdict(list)
        for module in self.net.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad:
                    groups[2 * getattr(module, "l2", 0.0) if name == "weight" else 0.0].append(parameter)
        return self.make_optimizer(
            [{"params": params} | ({"weight_decay": decay} if decay else {}) for decay, params in groups.items()]
        )
