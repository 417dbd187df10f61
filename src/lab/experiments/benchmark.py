"""Stacks side by side: each measurement a process of its own, in rounds, so that those of a round give ratios."""

import contextlib
import itertools
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import joblib
import numpy as np
from omegaconf import DictConfig, OmegaConf

from lab.config.overrides import quoted
from lab.config.schema import PROJECT, data_folder
from lab.datasets.dataset import Dataset, load
from lab.display.markdown import table
from lab.display.terminal import make_bar, print_table, warn
from lab.errors import UserError
from lab.evaluation.significance import median_interval
from lab.experiments.jobs import compose_train
from lab.files import write_csv, write_json, write_text

SRC = PROJECT / "src"
YARDSTICKS = SRC / "yardsticks"
PASS = re.compile(r"(epoch|pass) +\d")  # how the line begins that each prints after a pass over its images
KERAS_VERSIONS = (
    "import json, keras, tensorflow as t; print(json.dumps({'keras': keras.__version__, 'tensorflow': t.__version__}))"
)
STACKS = {  # in the tables; its script in src/yardsticks, and the words behind RECIPE ARRAYS PASSES TASK
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
TASKS = {  # of a recipe, and which stacks have none
    "training": ("{}", {"keras_two"}),
    "inference": ("answers of {}", {"keras_two", "tutorial"}),
    "start": ("first step of {}", {"keras_two"}),
    "folds": ("five folds of {}", {"plain", "tuned", "tutorial", *TUNED_KERAS}),
}
EPOCHS = {"training": 2, "inference": 4, "start": 1, "folds": 1}
WARM = ("training", "inference")  # one more epoch comes first, whose time is not taken
NEIGHBOURS = {"quiet": "", "early": " beside a busy process", "late": " once a busy process has come"}
# an epoch's, some seconds
IMAGES = {"deep": 12_800, "baseline": 25_600, "dense": 51_200, "conv": 12_800, "cnn": 16_800, "cnn_augmented": 8_000}
OWN = ("GOMP_SPINCOUNT", "HYDRA_FULL_ERROR")  # set by this process for itself: a yardstick starts without
LEAST_ROUNDS = 5  # for a claim: with five the median lies between the least and the most in 94 %
MOST_BY_OTHERS = 0.1  # of the machine, for it to count as quiet


class Job(NamedTuple):
    """What is measured once a round."""

    task: str
    recipe: str
    neighbour: str
    stack: str

    def name(self) -> str:
        return TASKS[self.task][0].format(self.recipe) + NEIGHBOURS[self.neighbour]


def benchmark(config: DictConfig, folder: Path) -> None:
    """Measure what `config`, a Benchmark, names; print a table; leave benchmark.csv, .json and .md in `folder`."""
    blocks, rows = _list_blocks(config), []
    with (
        tempfile.TemporaryDirectory() as place,
        make_bar(config.rounds * sum(map(len, blocks)), " measurements") as bar,
    ):
        bench = _Bench(config, Path(place))
        about = bench.describe({job.stack for block in blocks for job in block})
        for seed, block in itertools.product(range(1, config.rounds + 1), blocks):
            peak = bench.measure_peak(block[0].recipe)  # of now: it drifts on a virtual machine
            order = random.Random(f"{config.seed} {seed} {block[0].name()}")
            for job in order.sample(block, len(block)):
                bar.set_description(f"{job.name()}: {STACKS[job.stack][0]}")
                rows.append({"round": seed, **job._asdict(), **bench.measure(job, seed), **peak})
                write_csv(rows, folder / "benchmark.csv")  # what there is, should the next one fail
                bar.update()
    lines = [line for block in blocks for line in _compare(block, rows)]
    content = {"about": about, "options": OmegaConf.to_container(config), "table": lines, "measured": rows}
    write_json(content, folder / "benchmark.json")
    _report(lines, about, folder)
    if (most := max((row["others"] for row in rows if row["neighbour"] == "quiet"), default=0)) > MOST_BY_OTHERS:
        warn(f"The machine was not quiet: other processes took up to {most:.0%} of it.")


def _list_blocks(config: DictConfig) -> list[list[Job]]:
    """The jobs that are compared with one another: those of a task, a recipe and a neighbour."""
    for key, known in (("tasks", TASKS), ("recipes", IMAGES), ("neighbours", NEIGHBOURS), ("stacks", STACKS)):
        if unknown := set(config[key]) - known.keys():
            raise UserError(f"{key}: {min(unknown)} is none of {', '.join(known)}")
        if not config[key]:
            raise UserError(f"{key}=[]: nothing is left to measure")
    stacks = [stack for stack in STACKS if stack in config.stacks]
    if config.keras is None and find_spec("keras") is None and KERAS & set(stacks):
        warn("Keras is not measured: this Python has none. keras=PYTHON names one that has.")
        stacks = [stack for stack in stacks if stack not in KERAS]
    blocks = itertools.product(config.tasks, config.recipes, config.neighbours)
    return [[Job(*block, stack) for stack in stacks if stack not in TASKS[block[0]][1]] for block in blocks]


class _Bench:
    """Measures processes. What they read lies in `place`."""

    def __init__(self, config: DictConfig, place: Path) -> None:
        self.config, self.place = config, place
        self.made: dict[tuple[str, str], tuple[list[str], Path, int]] = {}
        self.ours = os.environ | {"PYTHONUNBUFFERED": "1"}
        self.theirs = {name: value for name, value in self.ours.items() if name not in OWN}

    def measure(self, job: Job, seed: int) -> dict[str, Any]:
        """Images and the seconds that they took, peak memory, what others took of the machine.

        Of a start and of folds, the seconds from the command to the end of the first step and to the end.
        """
        passes = (self.config.epochs or EPOCHS[job.task]) + (job.task in WARM)
        if (job.task, job.recipe) not in self.made:
            self.made[job.task, job.recipe] = self._make_arrays(job.task, job.recipe)
        words, arrays, images = self.made[job.task, job.recipe]
        if job.stack == "lab":
            lines, run = self._run(self._our_command(job.task, words, arrays, passes, seed), self.ours, job.neighbour)
        else:
            script, *more = STACKS[job.stack][1:]
            command = [self._python(job.stack), YARDSTICKS / script, job.recipe, arrays, passes, job.task, *more]
            lines, run = self._run(command, self.theirs, job.neighbour)
        if job.task == "folds":
            return {"images": None} | run
        ended = [seconds for seconds, line in lines if PASS.match(line)]
        if job.task == "start":
            return {"images": None} | run | {"seconds": ended[0]}
        return {"images": images * (len(ended) - 1)} | run | {"seconds": ended[-1] - ended[0]}

    def measure_peak(self, recipe: str) -> dict[str, float]:
        """What the processor can do, GFLOP/s, and what the recipe asks of it, GFLOP an image."""
        return self._ask([sys.executable, YARDSTICKS / "peak.py", recipe])

    def describe(self, stacks: set[str]) -> dict[str, Any]:
        """The machine, and the versions of what runs on it."""
        packages = {name: version(name) for name in ("torch", "pytorch-lightning")}
        if stacks & KERAS:
            packages |= self._ask([self._python("keras"), "-c", KERAS_VERSIONS])
        machine = {"cpu": _cpu_name(), "cores": joblib.cpu_count(), "python": platform.python_version()}
        return {"date": f"{datetime.now(UTC):%Y-%m-%d}", **machine, **packages, "rounds": self.config.rounds}

    def _python(self, stack: str) -> str:
        return self.config.keras if stack in KERAS and self.config.keras else sys.executable

    def _ask(self, command: Sequence[Any]) -> dict[str, Any]:
        return json.loads(self._run(command, self.theirs)[0][-1][1])

    def _our_command(self, task: str, words: list[str], arrays: Path, passes: int, seed: int) -> list[Any]:
        folder = Path(tempfile.mkdtemp(dir=self.place)) / "run"
        words = [*words, f"seed={seed}", "trainer.accelerator=cpu", quoted("hydra.run.dir", str(folder))]
        if task == "folds":
            return [sys.executable, SRC / "cross_validate.py", *words, f"model.epochs={passes}"]
        train = [
            sys.executable,
            SRC / "train.py",
            *words,
            "trainer.limit_val_batches=0",
            "trainer.limit_test_batches=1",
        ]
        if task != "inference":
            return [*train, f"model.epochs={passes}"]
        self._run([*train, "model.epochs=1"], self.ours)
        self._run([sys.executable, SRC / "export.py", folder], self.ours)
        return [sys.executable, YARDSTICKS / "exported.py", folder / "model.ts", arrays, passes]

    def _make_arrays(self, task: str, recipe: str) -> tuple[list[str], Path, int]:
        """What train.py is told; a file with the very images that it then trains on; how many these are.

        Where an epoch is shorter than the recipe's, more images are held out, so that all classes stay in it.
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
            more = max(len(parts["train"]) - wanted, 0) / len(parts["validation"])
            words.append(f"data.validation={config.data.validation * (1 + more)}")
            chosen = _load(words)[1].parts["train"]
        path = self.place / f"{recipe}_{task}.npz"
        np.savez(path, images=dataset.images[chosen], labels=dataset.labels[chosen], **folds)
        return words, path, len(chosen)

    def _run(
        self, command: Sequence[Any], environment: dict[str, str], neighbour: str = "quiet"
    ) -> tuple[list[tuple[float, str]], dict[str, float]]:
        """The lines that a process prints, with the second of each; its seconds, peak memory, what others took."""
        lines, started, busy = [], time.perf_counter(), _busy_seconds()
        with contextlib.ExitStack() as stack:
            if neighbour == "early":
                stack.enter_context(_busy_process())
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            command = list(map(str, command))
            process = stack.enter_context(
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
            )
            stack.callback(process.kill)  # where this process is interrupted
            for line in process.stdout:
                lines.append((time.perf_counter() - started, line))
                if neighbour == "late" and PASS.match(line):
                    neighbour = stack.enter_context(_busy_process())
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            errors.seek(0)
            if process.returncode:
                last = (errors.read().strip() or "no message").splitlines()[-1]
                raise UserError(f"{' '.join(command[1:4])}: {last}")
        seconds = time.perf_counter() - started
        others = (_busy_seconds() - busy - usage.ru_utime - usage.ru_stime) / (seconds * (os.cpu_count() or 1))
        memory = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        return lines, {"seconds": seconds, "memory_mb": round(memory), "others": round(max(others, 0), 3)}


def _load(words: list[str]) -> tuple[DictConfig, Dataset]:
    """The config that train.py makes of `words`, and the data set that it then reads."""
    name = words[1].removeprefix("data=")
    config = compose_train([*words, f"data.name={name}"])[0]
    return config, load(config.data)


@contextlib.contextmanager
def _busy_process() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield "here"
    finally:
        process.kill()
        process.wait()


def _busy_seconds() -> float:
    """Of all cores since the machine's start; 0 where the system does not tell."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, *more = map(int, stat.read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(more)) / os.sysconf("SC_CLK_TCK")


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _compare(block: Sequence[Job], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line of the table for each stack; of tuned Keras for the quicker one."""

    def of(job: Job) -> list[dict[str, Any]]:
        return [row for row in rows if job._asdict().items() <= row.items()]

    def rates(job: Job) -> list[float]:
        return [(row["images"] or 1) / row["seconds"] for row in of(job)]

    tuned = sorted((job for job in block if job.stack in TUNED_KERAS), key=lambda job: median(rates(job)))
    lines = []
    for job in block:
        if job in tuned[:-1]:
            continue
        measured = of(job)
        line = {"what": job.name(), "stack": STACKS[job.stack][0]}
        unit = "seconds" if measured[0]["images"] is None else "images_per_second"
        line[unit] = [row["seconds"] for row in measured] if unit == "seconds" else rates(job)
        base = job._replace(neighbour="quiet") if job.stack == "lab" else job._replace(stack="lab")
        if base != job and (ours := rates(base)):
            pairs = [ours, rates(job)] if job.stack != "lab" else [rates(job), ours]
            line["ratios"] = [first / second for first, second in zip(*pairs, strict=True)]
        line["memory_mb"] = median(row["memory_mb"] for row in measured)
        if job.task == "training":
            shares = [rate * row["gflop"] / row["peak_gflops"] for rate, row in zip(rates(job), measured, strict=True)]
            line["share_of_peak"] = median(shares)
        lines.append(line)
    return lines


def tell_ratio(ratios: Sequence[float]) -> str:
    """The median with its interval, and no claim where there is none."""
    value, low, high = median_interval(ratios)
    if len(ratios) < LEAST_ROUNDS:
        return f"{value:.2f} ({low:.2f} to {high:.2f}, too few rounds)"
    return f"{value:.2f} ({low:.2f} to {high:.2f}{', no difference shown' if low <= 1 <= high else ''})"


def _report(lines: Sequence[dict[str, Any]], about: dict[str, Any], folder: Path) -> None:
    columns = [
        "what",
        "stack",
        "median (least to most)",
        "lab is so many times as fast",
        "peak memory MB",
        "of the peak",
    ]
    cells = []
    for line in lines:
        ratio = tell_ratio(line["ratios"]) if "ratios" in line else "-"
        if line["stack"] == "lab" and ratio != "-":
            ratio = f"{ratio} of quiet"
        share = f"{line['share_of_peak']:.0%}" if "share_of_peak" in line else "-"
        cells.append([line["what"], line["stack"], _spread(line), ratio, f"{line['memory_mb']:,.0f}", share])
    print_table("The lab and others", columns, cells)
    said = ", ".join(f"{name} {value}" for name, value in about.items())
    write_text(f"{said}\n\n{table(columns, cells)}\n", folder / "benchmark.md")
    print(f"Tables: {folder}/benchmark.md")


def _spread(line: dict[str, Any]) -> str:
    if "seconds" in line:
        return "{:.1f} s ({:.1f} to {:.1f})".format(*(each(line["seconds"]) for each in (median, min, max)))
    rates = line["images_per_second"]
    return f"{median(rates):,.0f} images/s ({min(rates):,.0f} to {max(rates):,.0f})"
