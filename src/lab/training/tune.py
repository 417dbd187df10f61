"""tune=lr: which learning rate a recipe might take."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.tuner import Tuner, lr_finder
from torch.optim import Optimizer
from tqdm import tqdm

from lab.config.overrides import command_line
from lab.display.figures import learning_rates
from lab.errors import UserError
from lab.files import write_csv
from lab.runs.folder import claim
from lab.training.prepare import prepare
from lab.training.trainer import make_trainer

RANGE = {"min_lr": 1e-6, "max_lr": 1.0, "num_training": 200}
SKIPPED = 10  # first steps, before the smoothing of the loss has settled


def suggest_learning_rate(config: DictConfig, folder: Path) -> None:
    """Lightning's range test: the rate grows from step to step, and is best where the loss falls fastest."""
    run = prepare(config)
    run.classifier.make_schedule = None
    changes = {"trainer": {"max_epochs": -1}, "model": {"average": None}}  # on a small data set the steps take many
    endless = OmegaConf.merge(config, changes)
    trainer = make_trainer(endless, folder, [], keeps_best=False)
    claim(folder, config)
    shares = [group["lr"] / config.model.optimizer.lr for group in run.classifier.optimizer.param_groups]

    def share_out(optimizer: Optimizer, *_: object) -> None:  # Lightning gives all layers the same rate
        rate = optimizer.param_groups[0]["lr"]
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = rate * share

    def stop(_: str) -> None:
        trainer.should_stop = True

    run.classifier.stop_diverged = stop  # that is how the test ends
    run.classifier.optimizer.register_step_pre_hook(share_out)
    lr_finder.tqdm = functools.partial(tqdm, disable=None, leave=False)  # Lightning's fills a file with its steps
    try:
        found = Tuner(trainer).lr_find(run.classifier, datamodule=run.data(), update_attr=False, **RANGE)
    except SystemExit:  # Lightning makes it of Ctrl-C, and says nothing
        raise KeyboardInterrupt from None
    is_finite = np.isfinite(found.results["loss"])
    rates, losses = (np.array(found.results[key])[is_finite].tolist() for key in ("lr", "loss"))
    rate = _steepest(rates, losses)
    rows = [{"learning_rate": lr, "loss": loss} for lr, loss in zip(rates, losses, strict=True)]
    write_csv(rows, folder / "learning_rates.csv")
    title = f"{config.model.name} on {run.dataset.name}: loss while the learning rate grows"
    learning_rates(rates[SKIPPED:], losses[SKIPPED:], rate, title, folder / "learning_rate.png")
    print(f"Suggested learning rate: {rate:.2g} (the recipe's is {config.model.optimizer.lr:g})")
    print(f"Train with it: {command_line(HydraConfig.get().overrides.task, f'model.optimizer.lr={rate:.2g}')}")
    print(f"Curve: {folder}/learning_rate.png")


def _steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate where the loss falls fastest along a logarithmic axis; UserError where the loss rises too soon.

    Lightning's own suggestion goes along a linear axis, where noise at the smallest rates wins.
    """
    if len(rates) < SKIPPED + 10:
        raise UserError("tune=lr: the loss rises too soon for a curve: is model.scale right?")
    slopes = np.gradient(np.asarray(losses), np.log(rates))
    return float(rates[SKIPPED + int(np.argmin(slopes[SKIPPED:]))])
