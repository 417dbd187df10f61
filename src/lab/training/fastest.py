"""Tries what this machine trains a network fastest with, by timing some steps: how many threads, which precision."""

import contextlib
import copy
import functools
import itertools
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager

import torch
from omegaconf import DictConfig
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.nn import functional as F
from tqdm import tqdm

from lab.config.checks import is_on_one_device
from lab.models.build import count_parameters
from lab.training.prepare import Run
from lab.training.trainer import Epochs

ROUNDS, SECONDS = 2, 0.15  # each way is timed for so long, in turn
GAIN = 1.3  # that one thread must bring: a quiet machine then has the same number, and the same bits, each time
GAIN_OF_SHORT = 1.1  # that a shorter precision must bring
SLOWER = 1.5  # times the seconds of the quickest epoch: then a neighbour may have come
MOST_PARAMETERS = 20_000_000  # of a network with which threads are tried


def choose_threads(run: Run) -> str:
    """Set torch to one thread where that is faster now. Give a sentence that says why, "" where it is not.

    Threads wait for one another at each layer: where a neighbour keeps a core busy, all of them wait for that core.
    """
    threads = torch.get_num_threads()
    on_cpu = _find_device(run.config).type == "cpu"
    if run.config.threads or threads == 1 or not on_cpu or count_parameters(run.classifier.net) > MOST_PARAMETERS:
        return ""
    speeds = _measure_speeds(run, {number: lambda number=number: _with_threads(number) for number in (threads, 1)})
    if speeds[1] <= GAIN * speeds[threads]:
        return ""
    torch.set_num_threads(1)
    times = f"{speeds[1] / speeds[threads]:.1f} times as long"
    return f"1 thread: others keep a core busy, with {threads} threads each step takes {times}"


class Threads(Callback):
    """Chooses the number of threads at the start, and again after an epoch that took far longer than the quickest.

    metrics.csv has the number of each epoch: the bits depend on it.
    """

    def __init__(self, run: Run, epochs: Epochs) -> None:
        self.run, self.epochs = run, epochs

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        seconds = [row["seconds"] for row in self.epochs.rows]
        is_slow = not seconds or seconds[-1] > SLOWER * min(seconds)
        if is_slow and trainer.world_size == 1 and (said := choose_threads(self.run)):
            tqdm.write(said)


def choose_precision(run: Run) -> str:
    """For speed=fast: set the run's `config.trainer.precision` to the faster one. Give a sentence on what was measured.

    Weights, their updates, losses and batch normalisation stay in float32: only products are computed in less.
    """
    if not is_on_one_device(run.config):
        return "float32 as ever: several processes might measure, and choose, differently; trainer.precision chooses"
    device = _find_device(run.config)
    old_gpu = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    short = torch.float16 if old_gpu else torch.bfloat16
    # as Lightning has it: no cache of shortened weights, which here would serve all steps
    shorter = functools.partial(torch.autocast, device.type, short, cache_enabled=False)
    ways = {torch.float32: contextlib.nullcontext, short: shorter}
    speeds = _measure_speeds(run, ways)
    times, name = speeds[short] / speeds[torch.float32], str(short).removeprefix("torch.")
    if times > GAIN_OF_SHORT:
        run.config.trainer.precision = "16-mixed" if old_gpu else "bf16-mixed"
        return f"products in {name}, {times:.1f} times as fast as in float32 for this network on this machine"
    return f"float32 as ever: this network runs at {times:.1f} times the speed with products in {name} on this machine"


def _find_device(config: DictConfig) -> torch.device:
    """The first device that the Trainer will use."""
    on_gpu = config.trainer.accelerator != "cpu" and torch.accelerator.is_available()
    return torch.accelerator.current_accelerator() if on_gpu else torch.device("cpu")


@contextlib.contextmanager
def _with_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measure_speeds(run: Run, ways: Mapping[Hashable, Callable[[], AbstractContextManager]]) -> dict[Hashable, float]:
    """Steps a second, forward and backward, of a copy of the run's network, in each of the `ways`.

    Its frozen layers are left out where the features of the images are known.
    """
    device = _find_device(run.config)
    indices = torch.from_numpy(run.dataset.parts["train"][: run.config.model.batch_size])
    labels, net = torch.from_numpy(run.dataset.labels)[indices].to(device), copy.deepcopy(run.classifier.net).to(device)
    is_seen = run.features and bool(run.features.is_known[indices].all())
    images = torch.from_numpy(run.dataset.images)[indices]
    if is_seen:  # perhaps by shorter products than those of the weights
        images = run.features[indices].to(next(net.parameters()).dtype)
    images, answer = images.movedim(-1, 1).to(device), net.head if is_seen else net
    steps, seconds = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0.0)

    def step() -> None:
        F.cross_entropy(answer(images), labels).backward()
        if device.type != "cpu":
            torch.accelerator.synchronize()

    with torch.random.fork_rng(devices=[]):
        for _, (way, enter) in itertools.product(range(ROUNDS), ways.items()):
            with enter():
                step()  # wakes the threads, reserves memory
                begin = time.perf_counter()
                while time.perf_counter() < begin + SECONDS:
                    step()
                    steps[way] += 1
                seconds[way] += time.perf_counter() - begin
    return {way: steps[way] / seconds[way] for way in ways}
