"""The arithmetic is Keras': its figures, by src/yardsticks/keras_steps.py with Keras 3.15.1, are in keras_steps.npz."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lab.models.normalisation import BatchNorm1d, BatchNorm2d
from lab.training import optimizers


@pytest.fixture(scope="module")
def keras():
    with np.load(Path(__file__).parent / "keras_steps.npz", allow_pickle=False) as figures:
        return dict(figures)


MADE = {
    "SGD": lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.9, fused=True),
    "Adam": lambda weights: optimizers.Adam(weights, lr=0.001, eps=1e-7, fused=True),
    "RMSprop": lambda weights: optimizers.RMSprop(weights, lr=0.001, alpha=0.9, eps=1e-7),
}


def follow(optimizer, weights):
    """The weights after each of 100 steps, with the gradients that keras_steps.py gives."""
    after = []
    for step in range(100):
        sizes = np.float32(10) ** np.arange(-8, 3, dtype=np.float32)
        weights.grad = torch.from_numpy(sizes * np.cos(step * np.arange(1, 12)).astype(np.float32))
        optimizer.step()
        after.append(weights.detach().numpy().copy())
    return np.array(after)


@pytest.mark.parametrize("name", MADE)
def test_an_optimizer_goes_keras_hundred_steps(keras, name):
    weights = torch.zeros(11, requires_grad=True)
    apart = np.abs(follow(MADE[name]([weights]), weights) - keras[name])
    assert (apart <= 1e-4 * np.abs(keras[name]).max(0)).all(), apart.max(0)


@pytest.mark.parametrize("name", ["Adam", "RMSprop"])
def test_torchs_own_epsilon_is_another(keras, name):
    weights = torch.zeros(11, requires_grad=True)
    more = {"alpha": 0.9} if name == "RMSprop" else {}
    torchs = getattr(torch.optim, name)([weights], lr=0.001, eps=1e-7, **more)
    assert (np.abs(follow(torchs, weights) - keras[name]) > 0.05 * np.abs(keras[name]).max(0)).any()


def test_a_checkpoint_keeps_where_adam_was(keras):
    weights = torch.zeros(11, requires_grad=True)
    first = MADE["Adam"]([weights])
    follow(first, weights)
    second = MADE["Adam"]([weights])
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["steps"] == 100


def test_the_running_variance_is_keras(keras):
    random = np.random.default_rng(1)
    for name, shape, layer in (("vector", (8, 3), BatchNorm1d), ("map", (8, 4, 5, 3), BatchNorm2d)):
        norm = layer(3, eps=1e-3, momentum=0.01)
        for batch in range(20):
            values = torch.from_numpy(random.normal(size=shape).astype(np.float32) * (batch + 1))
            norm(values.movedim(-1, 1))
        found = np.array([norm.running_mean.numpy(), norm.running_var.numpy()])
        assert found == pytest.approx(keras[name], rel=1e-5), name
