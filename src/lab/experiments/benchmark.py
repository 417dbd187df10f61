"""Contenders in turn, each measurement a process of its own, several rounds: medians, least and most."""

import contextlib
import csv
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from typing import Any

import joblib
from omegaconf import DictConfig, OmegaConf

from lab.config.schema import CONF, PROJECT, data_folder
from lab.display.markdown import table
from lab.display.terminal import make_bar, print_table, warn
from lab.errors import UserError
from lab.files import write_json, write_text

SRC = PROJECT / "src"
# steps a measurement: some seconds each
STEPS = {"deep": 200, "baseline": 400, "dense": 400, "conv": 80, "cnn": 80, "cnn_augmented": 80, "hog16": 200}
YARDSTICKS = {"plain": "plain PyTorch", "tutorial": "Lightning's tutorials", "keras_lab": "Keras"}
ALSO = ("start", "neighbour", "inference", "folds", "fast99")
NEIGHBOURED = "baseline"
BOTH = ("baseline", "deep")
FOLD_EPOCHS = 1
NOT_FROM_HERE = "import sys; sys.path.pop(0); "  # where -c looks first: in the current directory
IMPORTS = f"{NOT_FROM_HERE}import torch, torchvision, pytorch_lightning"
MOST_BY_OTHERS = 0.1  # of the machine, for it to count as quiet


def benchmark(config: DictConfig, folder: Path) -> None:
    """Measure what `config`, a Benchmark, names; print a table, leave benchmark.md and benchmark.json in `folder`."""
    recipes, also, rounds, keras = list(config.recipes), list(config.also), config.rounds, config.keras
    for key, given, known in (("recipes", recipes, STEPS), ("also", also, ALSO)):
        if unknown := set(given) - set(known):
            raise UserError(f"{key}: {min(unknown)} is none of {', '.join(known)}")
    if not recipes and not also:
        raise UserError("recipes=[] also=[]: nothing is left to measure")
    pythons = {"plain": sys.executable, "tutorial": sys.executable, "keras_lab": keras or sys.executable}
    if keras is None and find_spec("keras") is None:
        del pythons["keras_lab"]
    bench = _Bench(data_folder(config.root).absolute(), pythons)
    jobs = [(recipe, who) for recipe in recipes for who in ("lab", *pythons) if who == "lab" or recipe != "hog16"]
    both = [who for who in ("lab", "plain", "keras_lab") if who == "lab" or who in pythons]
    extra = {
        "start": [("start", "lab"), ("start", "imports")],
        "neighbour": [("neighbour", who) for who in ("lab", "lab alone", "plain", "plain alone")],
        "inference": [(f"inference of {recipe}", who) for recipe in BOTH for who in both],
        "folds": [(f"folds of {recipe}", who) for recipe in BOTH for who in both if who != "plain"],
        "fast99": [("fast99", "lab")],
    }
    jobs += [job for name in also for job in extra[name]]
    measured: dict[tuple[str, str], list[tuple[float, float]]] = {job: [] for job in jobs}
    with make_bar(rounds * len(jobs), " measurements") as bar:
        for seed, job in itertools.product(range(1, rounds + 1), jobs):
            bar.set_description(f"{job[0]}: {YARDSTICKS.get(job[1], job[1])}")
            measured[job].append(bench.measure(*job, seed))
            bar.update()
    about = json.loads(bench.call([sys.executable, SRC / "yardsticks" / "peak.py"])[0])
    machine = {
        "cpu": _cpu_name(),
        "cores": joblib.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "pytorch-lightning")},
        **({"keras": bench.call([pythons["keras_lab"], "-c", KERAS])[0].strip()} if "keras_lab" in pythons else {}),
        "peak_gflops": {name.removeprefix("torch."): round(value) for name, value in about["peak"].items()},
        "most_taken_by_others": round(max(bench.others), 2),
        "rounds": rounds,
    }
    rows = [_row(recipe, measured, about) for recipe in recipes]
    rest = _rest(measured)
    _report(rows, rest, machine, folder)
    figures = [{"what": what, "who": who, "measured": values} for (what, who), values in measured.items()]
    write_json({"machine": machine, "measurements": figures}, folder / "benchmark.json")
    if max(bench.others) > MOST_BY_OTHERS:
        warn(f"The machine was not quiet: other processes took up to {max(bench.others):.0%} of it.")
    print(f"Tables: {folder}/benchmark.md")


KERAS = f"{NOT_FROM_HERE}import keras; print(keras.__version__)"


class _Bench:
    def __init__(self, root: Path, pythons: dict[str, str]) -> None:
        self.root, self.pythons = root, pythons
        self.others: list[float] = []  # share of the machine that others took before each measurement
        # what this program sets for itself is not the yardsticks'; what else its user sets is everybody's
        own = {("GOMP_SPINCOUNT", "10000")}
        self.environment = {name: value for name, value in os.environ.items() if (name, value) not in own}

    def measure(self, what: str, who: str, seed: int) -> tuple[float, float]:
        """Images/s and peak memory in MB; of a start and of folds seconds; of fast99 seconds and the test accuracy."""
        self.others.append(_taken())
        kind, _, recipe = what.rpartition(" of ")
        if what == "neighbour":
            with contextlib.nullcontext() if who.endswith("alone") else _busy():
                return self._train(NEIGHBOURED, who.partition(" ")[0])
        if what == "start":
            return self._start(who)
        if what == "fast99":
            result = self._lab("train.py", "model=fast99", "data.validation=0", f"seed={seed}")[0]
            return result["seconds"], result["test"]["last"]["accuracy"]
        if kind == "folds":
            return self._folds(recipe, who)
        return self._infer(recipe, who) if kind else self._train(recipe, who)

    def _yardstick(self, who: str, *words: Any) -> tuple[float, float]:
        told, megabytes = self.call([self.pythons[who], SRC / "yardsticks" / f"{who}.py", *words])
        return float(told.split()[-1]), megabytes

    def _lab(self, command: str, *options: str) -> tuple[dict[str, Any], list[dict[str, str]], float]:
        """A run's result, its rows of metrics.csv, the peak memory."""
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "run"
            words = [sys.executable, SRC / command, *options, f"hydra.run.dir={folder}", "trainer.accelerator=cpu"]
            megabytes = self.call(words)[1]
            result = json.loads((folder / "result.json").read_text())
            if not (folder / "metrics.csv").exists():
                return result, [], megabytes
            with (folder / "metrics.csv").open() as file:
                return result, list(csv.DictReader(file)), megabytes

    def _train(self, recipe: str, who: str) -> tuple[float, float]:
        if who != "lab":
            return self._yardstick(who, recipe, self.root, STEPS[recipe])
        data, images, test = ("cifar4", 24_000, 0.15) if recipe.startswith("cnn") else ("mnist", 60_000, 0.0)
        share = STEPS[recipe] * OmegaConf.load(CONF / "model" / f"{recipe}.yaml").batch_size / images
        small = [f"data.validation={1 - test - share:.5f}", "trainer.limit_val_batches=0", "model.epochs=2"]
        _, rows, megabytes = self._lab("train.py", f"model={recipe}", f"data={data}", *small)
        return float(rows[-1]["train_images"]) / float(rows[-1]["seconds"]), megabytes

    def _folds(self, recipe: str, who: str) -> tuple[float, float]:
        started = time.perf_counter()
        if who == "lab":
            megabytes = self._lab("cross_validate.py", f"model={recipe}", f"model.epochs={FOLD_EPOCHS}")[2]
        else:
            megabytes = self._yardstick(who, recipe, self.root, FOLD_EPOCHS, "folds")[1]
        return time.perf_counter() - started, megabytes

    def _infer(self, recipe: str, who: str) -> tuple[float, float]:
        if who != "lab":
            return self._yardstick(who, recipe, self.root, 300, "inference")
        with tempfile.TemporaryDirectory() as place:
            options = ["model.epochs=1", "trainer.limit_train_batches=1", "trainer.accelerator=cpu"]
            self.call([sys.executable, SRC / "train.py", f"model={recipe}", *options, f"hydra.run.dir={place}/run"])
            self.call([sys.executable, SRC / "export.py", f"{place}/run"])
            words = [sys.executable, SRC / "predict.py", f"{place}/run/model.ts", "bench", "--batch", "32"]
            told, megabytes = self.call(words)
        return max(float(n.replace(",", "")) for n in re.findall(r"batch +32:.*?([\d,.]+) images/s", told)), megabytes

    def _start(self, who: str) -> tuple[float, float]:
        """From the command to the end of its first step; or what its imports alone take."""
        started = time.perf_counter()
        if who == "imports":
            megabytes = self.call([sys.executable, "-c", IMPORTS])[1]
            return time.perf_counter() - started, megabytes
        with tempfile.TemporaryDirectory() as place:
            options = [
                "trainer.limit_train_batches=1",
                "data.validation=0",
                "model.epochs=1",
                "trainer.accelerator=cpu",
            ]
            command = [sys.executable, SRC / "train.py", *options, f"hydra.run.dir={place}/run"]
            process = subprocess.Popen(list(map(str, command)), env=self._env(), stdout=subprocess.DEVNULL)
            while not (Path(place) / "run" / "metrics.csv").exists() and process.poll() is None:
                time.sleep(0.01)
            seconds = time.perf_counter() - started
            if process.wait():
                raise UserError("train.py failed: try the same recipe alone")
            return seconds, 0.0

    def _env(self) -> dict[str, str]:
        return self.environment | {"LAB_DATA": str(self.root)}

    def call(self, command: Sequence[Any]) -> tuple[str, float]:
        """What it prints, and its peak memory in MB."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(list(map(str, command)), env=self._env(), stdout=out, stderr=err)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0), err.seek(0)
            if process.returncode:
                last = (err.read().strip() or "no message").splitlines()[-1]
                raise UserError(f"{' '.join(map(str, command[:3]))}: {last}")
            return out.read(), usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def _taken(seconds: float = 0.5) -> float:
    """The share of the machine that others use while this process waits."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0

    def times() -> tuple[int, int]:
        numbers = list(map(int, stat.read_text().splitlines()[0].split()[1:9]))
        return numbers[3] + numbers[4], sum(numbers)

    (idle, total), _, (idle_then, total_then) = times(), time.sleep(seconds), times()
    return 1 - (idle_then - idle) / max(total_then - total, 1)


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _row(recipe: str, measured: dict[tuple[str, str], list], about: dict[str, Any]) -> dict[str, str]:
    speeds = {who: [speed for speed, _ in values] for (what, who), values in measured.items() if what == recipe}
    ours = median(speeds["lab"])
    row = {"recipe": recipe, "images/s": _spread(speeds["lab"])}
    for who, title in YARDSTICKS.items():
        if (recipe, who) in measured:
            row |= {title: _spread(speeds[who]), f"x {title}": f"{ours / median(speeds[who]):.2f}"}
    processes = [measured[recipe, who] for who in ("lab", *YARDSTICKS) if who in speeds]
    memory = [median(megabytes for _, megabytes in values) for values in processes]
    row["peak memory MB"] = " / ".join(f"{megabytes:,.0f}" for megabytes in memory)
    if recipe in about["flop"]:
        row["share of float32 peak"] = f"{ours * about['flop'][recipe] / about['peak']['torch.float32'] / 1e9:.0%}"
    return row


def _rest(measured: dict[tuple[str, str], list]) -> list[str]:
    """What is no table's, a line each."""
    medians = {job: median(value for value, _ in values) for job, values in measured.items()}
    lines = []
    if ("start", "lab") in medians:
        ours, imports = medians["start", "lab"], medians["start", "imports"]
        lines.append(
            f"Start to the end of the first step: {ours:.1f} s, {ours / imports:.2f} times what importing torch, "
            f"torchvision and pytorch_lightning takes ({imports:.1f} s)."
        )
    for who in ("lab", "plain"):
        if ("neighbour", who) in medians:
            beside, alone = medians["neighbour", who], medians["neighbour", f"{who} alone"]
            told = f"{beside / alone:.2f} of {alone:,.0f} images/s"
            lines.append(f"{NEIGHBOURED} beside a process that keeps a core busy, {who}: {told}.")
    for what in dict.fromkeys(what for what, _ in measured if " of " in what):
        ours, unit = medians[what, "lab"], "s" if what.startswith("folds") else "images/s"
        told = [f"{ours:,.0f} {unit}"]
        for who, title in YARDSTICKS.items():
            if (what, who) in medians:
                ratio = medians[what, who] / ours if unit == "s" else ours / medians[what, who]
                told.append(f"{title} {medians[what, who]:,.0f} {unit}: x {ratio:.2f}")
        how = f", {FOLD_EPOCHS} epoch each, start to end" if unit == "s" else ", batches of 32"
        lines.append(f"{what[0].upper()}{what[1:]}{how}: {', '.join(told)}.")
    if runs := measured.get(("fast99", "lab")):
        seconds, accuracies = zip(*runs, strict=True)
        lines.append(
            f"fast99, MNIST's 60,000 images, {len(runs)} seeds: test accuracy {mean(accuracies):.2%} "
            f"({min(accuracies):.2%} to {max(accuracies):.2%}) after {_spread(seconds)} s of training."
        )
    return lines


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def _report(rows: Sequence[dict[str, str]], rest: Sequence[str], machine: dict[str, Any], folder: Path) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[row.get(name, "-") for name in columns] for row in rows]
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    lines = [f"Medians of images/s in training, warm (least to most): {about}", table(columns, cells) if rows else ""]
    write_text("\n\n".join([*lines, *rest]) + "\n", folder / "benchmark.md")
    if rows:
        short = ["recipe", "images/s", *(f"x {title}" for title in YARDSTICKS.values())]
        print_table(
            "Images/s in training, and how many times those of ...",
            [name.removeprefix("x ") for name in short],
            [[row.get(name, "-").partition(" (")[0] for name in short] for row in rows],
        )
    print("\n".join(rest))
