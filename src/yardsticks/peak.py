"""What the machine can do, GFLOP/s of a large product in float32, and what a recipe asks: peak.py RECIPE"""

import json
import sys
import time

import torch
from plain import build
from recipes import RECIPES
from torch.utils.flop_counter import FlopCounterMode


def product(side=2048, times=12):
    """GFLOP/s, the best of some."""
    a, b, seconds = torch.randn(side, side), torch.randn(side, side), []
    for _ in range(times):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds) / 1e9


def work(recipe):
    """GFLOP of a training step, an image."""
    images = torch.zeros(8, *((3, 32, 32) if recipe["data"] == "cifar4" else (1, 28, 28)))
    net = build(recipe, images)
    with FlopCounterMode(display=False) as counter:
        net(images).sum().backward()
    return counter.get_total_flops() / len(images) / 1e9


if __name__ == "__main__":
    print(json.dumps({"peak_gflops": product(), "gflop": work(RECIPES[sys.argv[1]])}))
