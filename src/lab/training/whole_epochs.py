"""An epoch as one item: what an ordinary run trains with.

What Lightning does around a step takes as long as a step of a small network. So the data module hands over all batches
of an epoch as one item, and this module takes the steps itself. The weights have the same bits as batch by batch.
Where something counts batches or wants to see each, the run goes batch by batch, by Lightning's own loop.
"""

import inspect
from collections.abc import Iterable

from pytorch_lightning import Trainer
from torch.optim import Optimizer

from lab.datasets.batches import Batch
from lab.training.classifier import Classifier

# the options of the Trainer that count batches, look at each or change a step, and the values that leave them off
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
    """Whether `options`, those of `trainer` that were given, and the optimizer leave the steps to this module."""
    given = any(options.get(key, off) != off for key, off in BATCH_BY_BATCH.items())
    scales = getattr(trainer.precision_plugin, "scaler", None) is not None  # gradients of float16
    wants_closure = inspect.signature(optimizer.step).parameters["closure"].default is inspect.Parameter.empty  # LBFGS
    return not given and not scales and not wants_closure and trainer.world_size == 1


class WholeEpochsClassifier(Classifier):
    """A Classifier that is given an epoch's batches as one item, and takes the steps."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier.net, classifier.optimizer, classifier.make_schedule, classifier.augment)
        self.example_input_array = classifier.example_input_array
        self.automatic_optimization = False

    def training_step(self, batches: Iterable[Batch], _: int) -> None:
        optimizer = self.optimizers()
        schedules = [config.scheduler for config in self.trainer.lr_scheduler_configs if config.interval == "step"]
        for step, batch in enumerate(batches):
            loss = super().training_step(batch, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for schedule in schedules:
                schedule.step()

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        for config in self.trainer.lr_scheduler_configs:
            if config.interval == "epoch":
                self.lr_scheduler_step(config.scheduler)

    def count_steps(self) -> int:
        return self.trainer.max_epochs * self.trainer.datamodule.train_dataloader().n_batches
