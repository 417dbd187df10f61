"""Options of Lightning's Trainer that count batches, and what comes out of them."""

import logging
from pathlib import Path

import pytest
import torch
from conftest import SMALL_MNIST, read_csv, read_result
from pytorch_lightning import Callback

from lab.errors import UserError


class Seen(Callback):
    """Writes the size of each batch."""

    def __init__(self, path):
        self.path = Path(path)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        with self.path.open("a") as file:
            file.write(f"{len(batch[1])} ")


FAST = (*SMALL_MNIST, "model=dropout", "model.epochs=2", "model.batch_size=50", "model.optimizer.lr=0.001")  # 6 batches


@pytest.fixture
def trained(train_here, tmp_path):
    """The result of a run with these options, its rows of metrics.csv, its weights."""

    def run(*options, name="run"):
        train_here(*FAST, *options, f"hydra.run.dir={name}")
        folder = tmp_path / name
        rows = read_csv(folder / "metrics.csv")
        return read_result(folder), rows, torch.load(folder / "last.ckpt", weights_only=True)

    return run


@pytest.mark.parametrize("schedule", [(), ("schedule=one_cycle",), ("schedule=plateau",), ("schedule=step",)])
def test_batch_by_batch_the_weights_have_the_same_bits_as_by_whole_epochs(trained, schedule):
    more = ("model.augment.shift=0.1", *schedule)
    result, rows, whole = trained(*more)
    single, others, batches = trained("trainer.limit_train_batches=1.0", *more, name="batches")
    assert all(torch.equal(whole["state_dict"][name], value) for name, value in batches["state_dict"].items())
    assert batches["global_step"] == whole["global_step"] == 12
    for one, other in zip(rows, others, strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
    assert single["test"] == result["test"]


def test_fast_dev_run_goes_through_and_keeps_nothing(train_here, tmp_path):
    told = train_here(*FAST, "+trainer.fast_dev_run=true").out
    assert "training, validation and test ran through; nothing is kept" in told
    assert not list(tmp_path.glob("outputs/*"))


def test_overfit_batches_trains_on_the_same_few_images(trained):
    quick = ("model=small_dense", "model.epochs=20", "model.optimizer.lr=0.01")
    result, rows, _ = trained("+trainer.overfit_batches=1", *quick)
    assert {row["train_images"] for row in rows} == {"50"}
    assert result["train"]["accuracy"] == 1


def test_gradients_of_two_batches_are_accumulated_into_a_step(trained):
    _, _, plain = trained("+trainer.accumulate_grad_batches=2")
    assert plain["global_step"] == 6


def test_max_steps_ends_a_run_in_the_middle_of_an_epoch(trained):
    result, rows, last = trained("+trainer.max_steps=8")
    assert last["global_step"] == 8 and [row["train_images"] for row in rows] == ["270", "100"]
    assert result["epochs"] == 2 and result["test"]["last"]["images"] == 100


def test_validation_several_times_an_epoch(trained):
    result, rows, _ = trained("+trainer.val_check_interval=0.5")
    assert all(row["val_loss"] for row in rows) and result["validation"]["last"]["images"] == 30


@pytest.mark.parametrize(
    ("limit", "images"),
    [("limit_train_batches=2", 100), ("limit_train_batches=0.5", 150), ("limit_val_batches=0", 270)],
)
def test_limits_of_batches(trained, limit, images):
    result, rows, _ = trained(f"trainer.{limit}")
    assert result["train"]["images"] == images
    assert bool(rows[0].get("val_loss")) == ("val" not in limit)


def test_a_limited_test_is_of_its_first_batches(trained):
    result, _, _ = trained("trainer.limit_test_batches=1")
    assert result["test"]["last"]["images"] == 100  # one batch holds all


def test_a_callback_of_the_users_sees_every_batch_and_is_not_kept(trained, train_here, tmp_path):
    seen = "+trainer.callbacks=[{_target_: test_trainer_options.Seen, path: seen}]"
    trained(seen)
    assert (tmp_path / "seen").read_text().split() == [*["50"] * 5, "20"] * 2
    assert "Seen" not in (tmp_path / "run" / "config.yaml").read_text()


def test_gradients_are_clipped_with_any_optimizer_and_precision(trained):
    for number, precision in enumerate(("32-true", "bf16-mixed")):
        options = ("trainer.gradient_clip_val=1e-9", f"trainer.precision={precision}", "model=baseline")
        _, _, clipped = trained(*options, "model.epochs=1", name=f"clipped{number}")
        assert max(state["momentum_buffer"].norm() for state in clipped["optimizer_states"][0]["state"].values()) < 1e-6


def test_an_optimizer_that_wants_a_closure_trains(trained):
    result, _, _ = trained("model.optimizer._target_=torch.optim.LBFGS", "~model.optimizer.eps", "model.epochs=1")
    assert result["test"]["last"]["images"] == 100


def test_the_profiler_prints_its_table(train_here, caplog):
    logging.getLogger("pytorch_lightning").addHandler(caplog.handler)
    train_here(*FAST, "trainer.profiler=simple", "+trainer.fast_dev_run=true")
    assert "run_training_batch" in caplog.text


def test_decay_of_the_users_adds_to_the_networks_own(train_here):
    from omegaconf import OmegaConf

    from lab import models
    from lab.models.build import build
    from lab.training.prepare import make_optimizer

    config = OmegaConf.create({"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.25})
    net = build(models.alexnet(4), (3, 32, 32), 255, "alexnet")[0]
    optimizer = make_optimizer(config, net)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.25, 0.251]
    with pytest.raises(UserError, match="the network's l2 needs one with weight_decay"):
        make_optimizer(OmegaConf.create({"_target_": "torch.optim.Rprop", "lr": 0.1}), net)


def test_patience_is_counted_in_epochs_also_where_few_of_them_are_validated(train_here, tmp_path):
    options = ("model=small_dense", "model.epochs=50", "model.optimizer.lr=0.1", "trainer.check_val_every_n_epoch=2")
    told = train_here(*SMALL_MNIST, *options, "early_stopping=2", "hydra.run.dir=run").out
    losses = [float(row["val_loss"] or "inf") for row in read_csv(tmp_path / "run" / "metrics.csv")]
    assert len(losses) == losses.index(min(losses)) + 3
    assert f"early_stopping=2: stopped after epoch {len(losses)} of 50" in told


def test_a_schedule_on_the_command_line_replaces_the_recipes(trained, tmp_path):
    trained("model=fast99", "schedule=cosine")
    schedule = (tmp_path / "run" / "config.yaml").read_text().partition("schedule:")[2].splitlines()[1]
    assert "CosineAnnealingLR" in schedule
    assert "pct_start" not in (tmp_path / "run" / "config.yaml").read_text()


def test_a_batch_that_processes_cannot_share_is_refused(refused):
    assert "2 processes cannot share it, 32 they can" in refused(*SMALL_MNIST, "trainer=ddp", "model.batch_size=33")
