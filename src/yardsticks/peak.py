"""What the machine can do, GFLOP/s of a large product, and what the recipes ask of it, FLOP an image."""

import json
import time

import torch
from plain import build
from recipes import RECIPES
from torch.utils.flop_counter import FlopCounterMode


def product(dtype, side=2048, times=12):
    """GFLOP/s, the best of some."""
    a, b, seconds = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype), []
    for _ in range(times):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds) / 1e9


def flop(recipe):
    images = torch.zeros(8, 3, 32, 32) if recipe["data"] == "cifar4" else torch.zeros(8, 1, 28, 28)
    net = build(recipe, images)
    with FlopCounterMode(display=False) as counter:
        net(images).sum().backward()
    return counter.get_total_flops() / len(images)


if __name__ == "__main__":
    peak = {str(dtype): product(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print(json.dumps({"peak": peak, "flop": {name: flop(recipe) for name, recipe in RECIPES.items()}}))
