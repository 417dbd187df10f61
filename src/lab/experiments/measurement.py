"""A measurement of the benchmark: one stack does one task, in a process of its own."""

import contextlib
import ctypes
import functools
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from omegaconf import DictConfig

from lab.config.overrides import quoted
from lab.config.schema import PROJECT, data_folder
from lab.datasets.dataset import Dataset, load
from lab.errors import UserError
from lab.experiments.jobs import compose_train

SRC = PROJECT / "src"
YARDSTICKS = SRC / "yardsticks"
PASS = re.compile(r"(epoch|pass) +\d")  # how the line begins that each process prints after a pass over its images
KERAS_VERSIONS = (
    "import json, keras, tensorflow as t; print(json.dumps({'keras': keras.__version__, 'tensorflow': t.__version__}))"
)
STACKS = {  # its name in tables; its script in src/yardsticks, and what that is told after RECIPE ARRAYS PASSES TASK
    "lab": ["lab"],
    "plain": ["plain PyTorch", "plain.py"],
    "tuned": ["tuned PyTorch", "tuned.py"],
    "tutorial": ["Lightning's tutorials", "tutorial.py"],
    "keras": ["Keras as the labs write it", "keras_lab.py", "labs"],
    "keras_xla": ["tuned Keras, XLA", "keras_lab.py", "xla"],
    "keras_no_xla": ["tuned Keras, no XLA", "keras_lab.py", "no_xla"],
    "keras_two": ["Keras, two processes", "keras_lab.py", "labs", "2"],
}
KERAS, TUNED_KERAS = {"keras", "keras_xla", "keras_no_xla", "keras_two"}, {"keras_xla", "keras_no_xla"}
TASKS = {  # its name in tables, and which stacks do not do it
    "training": ("{}", {"keras_two"}),
    "inference": ("answers of {}", {"keras_two", "tutorial"}),
    "start": ("first step of {}", {"keras_two"}),
    "folds": ("five folds of {}", {"plain", "tuned", "tutorial", *TUNED_KERAS}),
}
EPOCHS = {"training": 2, "inference": 4, "start": 1, "folds": 1}
WARM = ("training", "inference")  # an epoch that is not timed comes first
WHOLE = ("start", "folds")  # what counts is their seconds, not images a second
NEIGHBOURS = {"quiet": "", "early": " beside a busy process", "late": " once a busy process has come"}
# of an epoch, which takes some seconds
IMAGES = {"deep": 12_800, "baseline": 25_600, "dense": 51_200, "conv": 12_800, "cnn": 16_800, "cnn_augmented": 8_000}
OWN = ("GOMP_SPINCOUNT", "HYDRA_FULL_ERROR")  # variables that this process has set for itself: other stacks lack them


class Job(NamedTuple):
    """One measurement, which is repeated in each round."""

    task: str
    recipe: str
    neighbour: str
    stack: str

    def name(self) -> str:
        return TASKS[self.task][0].format(self.recipe) + NEIGHBOURS[self.neighbour]


class Bench:
    """Measures processes; `place` is a folder for what they read and write."""

    def __init__(self, config: DictConfig, place: Path) -> None:
        self.config, self.place = config, place
        self.ours = os.environ | {"PYTHONUNBUFFERED": "1"}
        self.theirs = {name: value for name, value in self.ours.items() if name not in OWN}
        _adopt_orphans()

    def measure(self, job: Job, seed: int) -> dict[str, Any]:
        """Images, their seconds and rate; the cores kept busy, the share of the machine that others took, peak memory.

        A start lasts from the command to the end of the first step, folds to the end of the command; both count as one
        image. Peak memory is that of the largest process.
        """
        passes = (self.config.epochs or EPOCHS[job.task]) + (job.task in WARM)
        words, arrays, images = self.make_arrays(job.task, job.recipe)
        if job.stack == "lab":
            lines, run = self._run(self._our_command(job.task, words, arrays, passes, seed), self.ours, job.neighbour)
        else:
            script, *more = STACKS[job.stack][1:]
            command = [self._python(job.stack), YARDSTICKS / script, job.recipe, arrays, passes, job.task, *more]
            lines, run = self._run(command, self.theirs, job.neighbour)
        ended = [second for second, line in lines if PASS.match(line)]
        if job.task == "start":
            run["seconds"] = ended[0]
        elif job.task in WARM:
            run["seconds"] = ended[-1] - ended[0]
        images = 1 if job.task in WHOLE else images * (len(ended) - 1)
        return {"images": images, "rate": images / run["seconds"]} | run

    def measure_peak(self, recipe: str) -> dict[str, float]:
        """What the processor can do, GFLOP/s, and what the recipe takes, GFLOP an image."""
        return self._ask([sys.executable, YARDSTICKS / "peak.py", recipe])

    def describe(self, stacks: set[str]) -> dict[str, Any]:
        """The machine, and the versions of what runs on it."""
        packages = {name: version(name) for name in ("torch", "pytorch-lightning")}
        if stacks & KERAS:
            packages |= self._ask([self._python("keras"), "-Pc", KERAS_VERSIONS])
        machine = {"cpu": _cpu_name(), "cores": joblib.cpu_count(), "python": platform.python_version()}
        return {"date": f"{datetime.now(UTC):%Y-%m-%d}", **machine, **packages, "rounds": self.config.rounds}

    def _python(self, stack: str) -> str:
        return self.config.keras if stack in KERAS and self.config.keras else sys.executable

    def _ask(self, command: Sequence[Any]) -> dict[str, Any]:
        lines = self._run(command, self.theirs)[0]
        try:
            return json.loads(lines[-1][1])
        except (IndexError, ValueError):
            raise UserError(f"{command[0]}: does not answer as Python does, with what it is asked") from None

    def _our_command(self, task: str, words: list[str], arrays: Path, passes: int, seed: int) -> list[Any]:
        folder = Path(tempfile.mkdtemp(dir=self.place)) / "run"
        words = [*words, f"seed={seed}", "trainer.accelerator=cpu", quoted("hydra.run.dir", str(folder))]
        if task == "folds":
            return [sys.executable, SRC / "cross_validate.py", *words, f"model.epochs={passes}"]
        short = ["trainer.limit_val_batches=0", "trainer.limit_test_batches=1"]
        train = [sys.executable, SRC / "train.py", *words, *short]
        if task != "inference":
            return [*train, f"model.epochs={passes}"]
        self._run([*train, "model.epochs=1"], self.ours)
        self._run([sys.executable, SRC / "export.py", folder], self.ours)
        return [sys.executable, YARDSTICKS / "exported.py", folder / "model.ts", arrays, passes]

    @functools.cache  # noqa: B019, it lives as long as the benchmark
    def make_arrays(self, task: str, recipe: str) -> tuple[list[str], Path, int]:
        """What train.py is told; a file with the very images that it then trains on; how many these are.

        For an epoch shorter than the recipe's more images are held out, which keeps all classes in it.
        """
        data = "cifar4" if recipe.startswith("cnn") else "mnist"
        words = [f"model={recipe}", f"data={data}", quoted("data.root", str(data_folder(self.config.root).absolute()))]
        config, dataset = _load([*words, "data.folds=5"] if task == "folds" else words)
        parts, folds = dataset.parts, {}
        if task == "folds":
            chosen = np.sort(np.concatenate([parts["train"], parts["validation"]]))
            held_out = [np.isin(chosen, fold["validation"]) for fold in dataset.folds]
            folds = {"folds": np.argmax(held_out, axis=0)}
        else:
            wanted = config.model.batch_size if task == "start" else self.config.images or IMAGES[recipe]
            own_test = 0 if config.data.test or dataset.is_sample else len(parts["test"])
            held_out = len(parts["validation"]) + max(len(parts["train"]) - wanted, 0)
            words.append(f"data.validation={held_out / (len(dataset.labels) - own_test)}")
            chosen = _load(words)[1].parts["train"]
        path = self.place / f"{recipe}_{task}.npz"
        np.savez(path, images=dataset.images[chosen], labels=dataset.labels[chosen], **folds)
        return words, path, len(chosen)

    def _run(
        self, command: Sequence[Any], environment: dict[str, str], neighbour: str = "quiet"
    ) -> tuple[list[tuple[float, str]], dict[str, float]]:
        """The lines that a process prints, each with its time in seconds; the process's seconds and what it used."""
        lines, started, busy = [], time.perf_counter(), _busy_seconds()
        with contextlib.ExitStack() as stack:
            if neighbour == "early":
                stack.enter_context(_busy_process())
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            command = list(map(str, command))
            pipes = {"stdout": subprocess.PIPE, "stderr": errors, "text": True}
            process = stack.enter_context(subprocess.Popen(command, env=environment, process_group=0, **pipes))
            stack.callback(process.kill)  # where this process is interrupted
            for line in process.stdout:
                lines.append((time.perf_counter() - started, line))
                if neighbour == "late" and PASS.match(line):
                    stack.enter_context(_busy_process())
                    neighbour = "here"
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode, seconds = os.waitstatus_to_exitcode(status), time.perf_counter() - started
            usages = [usage, *_usages_of_group(process.pid)]
            errors.seek(0)
            if process.returncode:
                last = (errors.read().strip() or "no message").splitlines()[-1]
                raise UserError(f"{command[0]} {Path(command[1]).name}: {last}")
        own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        others = max(_busy_seconds() - busy - own, 0) / seconds / (os.cpu_count() or 1)
        memory = max(usage.ru_maxrss for usage in usages) / (2**20 if sys.platform == "darwin" else 2**10)
        used = {"cores": round(own / seconds, 2), "others": round(others, 3), "memory_mb": round(memory)}
        return lines, {"seconds": seconds} | used


def _load(words: list[str]) -> tuple[DictConfig, Dataset]:
    """The config that train.py makes of `words`, and the data set that it then reads."""
    name = words[1].removeprefix("data=")
    config = compose_train([*words, f"data.name={name}"])[0]
    return config, load(config.data)


def _adopt_orphans() -> None:
    """Become the parent of processes whose own has ended, on Linux: a fork server and its folds."""
    if sys.platform == "linux":
        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _usages_of_group(group: int) -> list[Any]:
    """What the processes used that the leader of `group` has left behind, once they have ended."""
    usages = []
    with contextlib.suppress(ChildProcessError):
        while True:
            usages.append(os.wait4(-group, 0)[2])
    return usages


@contextlib.contextmanager
def _busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-Pc", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _busy_seconds() -> float:
    """How long all cores together were busy since the machine started; 0 where the system does not tell."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, *more = map(int, stat.read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(more)) / os.sysconf("SC_CLK_TCK")


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
