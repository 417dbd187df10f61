"""Contenders in turn, each measurement a process of its own, several rounds: medians, least and most."""

import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import joblib

from lab import UserError
from lab.config import PROJECT, data_folder
from lab.files import whole, write_json
from lab.terminal import make_bar, print_table, warn

SRC = PROJECT / "src"
# steps a measurement: some seconds each
STEPS = {"deep": 200, "baseline": 400, "dense": 400, "conv": 80, "cnn": 80, "cnn_augmented": 80, "hog16": 200}
YARDSTICKS = {"plain": "plain PyTorch", "tutorial": "Lightning's tutorials", "keras_lab": "Keras"}
NEIGHBOURED = "baseline"
IMPORTS = "import torch, torchvision, pytorch_lightning"
MOST_BY_OTHERS = 0.1  # of the machine, for it to count as quiet


def run(recipes: Sequence[str], rounds: int, keras: str | None, root: str | None, folder: Path) -> None:
    """Measure, print a table, leave benchmark.md and benchmark.json in `folder`."""
    if unknown := set(recipes) - set(STEPS):
        raise UserError(f"recipes: {min(unknown)} is none of {', '.join(STEPS)}")
    if rounds < 1:
        raise UserError(f"rounds={rounds}: must be 1 or more")
    pythons = {"plain": sys.executable, "tutorial": sys.executable, "keras_lab": keras or sys.executable}
    if keras is None and find_spec("keras") is None:
        del pythons["keras_lab"]
    bench = _Bench(data_folder(root).absolute(), pythons)
    jobs = [(recipe, who) for recipe in recipes for who in ("lab", *pythons) if who == "lab" or recipe != "hog16"]
    jobs += [(NEIGHBOURED, f"{who} beside a busy process") for who in ("lab", "plain")]
    jobs += [("start", "lab"), ("start", "imports")]
    measured: dict[tuple[str, str], list[tuple[float, float]]] = {job: [] for job in jobs}
    with make_bar(rounds * len(jobs), " measurements") as bar:
        for _ in range(rounds):
            for job in jobs:
                bar.set_description(f"{job[0]}: {YARDSTICKS.get(job[1], job[1])}")
                measured[job].append(bench.measure(*job))
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


KERAS = "import keras, os; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'; print(keras.__version__)"


class _Bench:
    def __init__(self, root: Path, pythons: dict[str, str]) -> None:
        self.root, self.pythons = root, pythons
        self.others: list[float] = []  # share of the machine that others took before each measurement
        # what this program sets for itself is not the yardsticks'
        self.environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}

    def measure(self, what: str, who: str) -> tuple[float, float]:
        """Images/s, or of a start seconds, and peak memory in MB."""
        self.others.append(_taken())
        who, _, beside = who.partition(" ")
        with _busy() if beside else tempfile.TemporaryDirectory() as place:
            if what == "start":
                return self._start(who)
            if who != "lab":
                command = [self.pythons[who], SRC / "yardsticks" / f"{who}.py", what, self.root, STEPS[what]]
                told, megabytes = self.call(command)
                return float(told.split()[-1]), megabytes
            data = "cifar4" if what.startswith("cnn") else "mnist"
            options = [f"model={what}", f"data={data}", f"trainer.limit_train_batches={STEPS[what]}"]
            with tempfile.TemporaryDirectory() as place:
                command = [sys.executable, SRC / "train.py", *options, "model.epochs=2", f"hydra.run.dir={place}/run"]
                command.append("trainer.accelerator=cpu")  # as the yardsticks
                megabytes = self.call(command)[1]
                with (Path(place) / "run" / "metrics.csv").open() as file:
                    warm = list(csv.DictReader(file))[-1]
            return float(warm["train_images"]) / float(warm["seconds"]), megabytes

    def _start(self, who: str) -> tuple[float, float]:
        """From the command to the end of its first step; or what its imports alone take."""
        started = time.perf_counter()
        if who == "imports":
            megabytes = self.call([sys.executable, "-c", IMPORTS])[1]
            return time.perf_counter() - started, megabytes
        with tempfile.TemporaryDirectory() as place:
            options = ["trainer.limit_train_batches=1", "data.validation=0", "model.epochs=1"]
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
            return out.read(), usage.ru_maxrss / 1024


@contextmanager
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
    seconds = {who: median(s for s, _ in measured["start", who]) for who in ("lab", "imports")}
    lines = [
        f"Start to the end of the first step: {seconds['lab']:.1f} s, {seconds['lab'] / seconds['imports']:.2f} times "
        f"what importing torch, torchvision and pytorch_lightning takes ({seconds['imports']:.1f} s)."
    ]
    for who in ("lab", "plain"):
        if (NEIGHBOURED, who) in measured:
            places = f"{who}", f"{who} beside a busy process"
            alone, beside = (median(speed for speed, _ in measured[NEIGHBOURED, place]) for place in places)
            told = f"{beside / alone:.2f} of {alone:,.0f} images/s"
            lines.append(f"{NEIGHBOURED} beside a process that keeps a core busy, {who}: {told}.")
    return lines


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def _report(rows: Sequence[dict[str, str]], rest: Sequence[str], machine: dict[str, Any], folder: Path) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[row.get(name, "-") for name in columns] for row in rows]
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    table = [f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *cells]]
    with whole(folder / "benchmark.md") as beside:
        title = f"Medians of images/s in training, warm (least to most): {about}"
        beside.write_text("\n".join([title, "", *table, "", *rest, ""]))
    short = ["recipe", "images/s", *(f"x {title}" for title in YARDSTICKS.values())]
    lines = [[row.get(name, "-").partition(" (")[0] for name in short] for row in rows]
    print_table(
        "Images/s in training, and how many times those of ...", [name.removeprefix("x ") for name in short], lines
    )
    print("\n".join(rest))
