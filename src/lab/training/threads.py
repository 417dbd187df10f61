"""How many threads train: as many as there are cores, or one where other processes take some of these."""

import copy
import itertools
import time

import torch
from torch.nn import functional as F

from lab.models.build import count_parameters
from lab.training.prepare import Run

ROUNDS, SECONDS = 2, 0.15  # of steps with each number of threads, in turn
GAIN = 1.3  # what one thread must gain: a quiet machine then gives the same bits each time
MOST_PARAMETERS = 20_000_000  # of a network that is tried


def choose_threads(run: Run) -> str:
    """Train with one thread where that is faster now, by some steps of this very network; say why, "" where it is not.

    Threads wait for one another at each layer: where a neighbour keeps a core busy, all of them wait for that core.
    """
    threads = torch.get_num_threads()
    on_gpu = run.config.trainer.accelerator != "cpu" and torch.accelerator.is_available()
    if run.config.threads or threads == 1 or on_gpu or count_parameters(run.classifier.net) > MOST_PARAMETERS:
        return ""
    indices = run.dataset.parts["train"][: run.config.model.batch_size]
    images = torch.from_numpy(run.dataset.images[indices]).permute(0, 3, 1, 2)
    labels, net = torch.from_numpy(run.dataset.labels[indices]), copy.deepcopy(run.classifier.net)
    steps = {threads: 0, 1: 0}
    with torch.random.fork_rng(devices=[]):
        for _, number in itertools.product(range(ROUNDS), steps):
            torch.set_num_threads(number)
            F.cross_entropy(net(images), labels).backward()  # the first one wakes the threads
            end = time.perf_counter() + SECONDS
            while time.perf_counter() < end:
                F.cross_entropy(net(images), labels).backward()
                steps[number] += 1
    torch.set_num_threads(1 if steps[1] > GAIN * steps[threads] else threads)
    if torch.get_num_threads() == threads:
        return ""
    faster = steps[1] / max(steps[threads], 1)
    return f"1 thread: others keep a core busy, with {threads} threads each step takes {faster:.1f} times as long"
