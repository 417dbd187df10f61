"""Small data that the tests make, and the commands as a user types them."""

import csv
import functools
import json
import os
import runpy
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra._internal.hydra import Hydra
from PIL import Image

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side; torch is not imported yet
PROJECT = Path(__file__).parents[1]
REAL_DATA = os.environ.get("LAB_DATA")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("data") and not REAL_DATA:
            item.add_marker(pytest.mark.skip(reason="LAB_DATA does not name the real data sets"))


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """A folder with small data sets in the files of the real ones: classes are bright squares in different places."""
    root = tmp_path_factory.mktemp("data")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 300), ("t10k", 100)):
        images, labels = squares(count, 10, 28, 1)
        write_idx(raw / f"{part}-images-idx3-ubyte", images[..., 0])
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels)
    images, labels = squares(400, 4, 32, 3)
    np.save(root / "CIFAR4_X.npy", images)
    np.save(root / "CIFAR4_Y.npy", labels)
    parts = {key: squares(count, 2, 28, 1) for key, count in (("train", 60), ("val", 20), ("test", 20))}
    np.savez(
        root / "pneumoniamnist.npz",
        **{f"{key}_images": images[..., 0] for key, (images, _) in parts.items()},
        **{f"{key}_labels": labels[:, None] for key, (_, labels) in parts.items()},
    )
    return root


def squares(count, classes, side, channels):
    """Images uint8 [n, side, side, channels] of noise with a bright square whose place tells the label, and labels."""
    random = np.random.default_rng(count)
    labels = np.arange(count, dtype=np.uint8) % classes
    images = random.integers(0, 100, (count, side, side, channels), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 3 + 6 * (label // 4), 3 + 6 * (label % 4)
        image[row : row + 5, column : column + 5] = 255
    return images, labels


def write_idx(path, array):
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture
def train(tmp_path, data_root):
    """Run `train.py ARGUMENTS` on the small data: its process, and the run folder where it has one."""

    def run(*arguments, root=data_root, environment=None, threads="1"):
        command = [sys.executable, PROJECT / "src" / "train.py", *arguments]
        inherited = {k: v for k, v in os.environ.items() if k != "LAB_DATA"}
        given = {"LAB_DATA": str(root), "OMP_NUM_THREADS": threads, "COLUMNS": "120", "TORCH_HOME": str(tmp_path)}
        given |= {"XDG_CACHE_HOME": str(tmp_path / "cache")} | OFFLINE | (environment or {})
        return subprocess.run(command, cwd=tmp_path, env=inherited | given, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def here(monkeypatch, capfd, tmp_path, data_root):
    """`COMMAND.py ARGUMENTS` in this process, which has imported torch already: the command's output."""
    find_mode = Hydra.get_mode

    def get_mode(hydra, config_name, overrides):
        """Hydra composes each config twice: first for hydra.mode alone, which nothing but a sweep's preset sets."""
        is_preset = any("sweep=" in word for word in overrides)
        return find_mode(hydra, config_name, overrides) if is_preset else None

    monkeypatch.setattr(Hydra, "get_mode", get_mode)

    def run(command, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LAB_DATA", str(data_root))
        for name in ("PYTHONPATH", "PYTHONSAFEPATH"):  # a command that starts processes sets them
            monkeypatch.setenv(name, os.environ.get(name, ""))
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("COLUMNS", "120")
        for name, value in OFFLINE.items():
            monkeypatch.setenv(name, value)
        script = PROJECT / "src" / f"{command}.py"
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        runpy.run_path(str(script), run_name="__main__")
        return capfd.readouterr()

    return run


@pytest.fixture
def train_here(here):
    return functools.partial(here, "train")


@pytest.fixture
def refused(here, capfd):
    """The one line on stderr with which `train.py ARGUMENTS`, or another `command`, is refused."""

    def run(*arguments, command="train"):
        with pytest.raises(SystemExit) as refusal:
            here(command, *arguments)
        told = capfd.readouterr().err + str(refusal.value.code)
        assert told.startswith("error: ") and "\n" not in told, told
        return told

    return run


@pytest.fixture(autouse=True)
def blank_figures(request, monkeypatch):
    """matplotlib draws for half of the time of a small run: where a test looks at no figure its PNG is a blank page."""
    if "drawn" in request.fixturenames:
        return
    from matplotlib.figure import Figure

    save = Figure.savefig

    def save_blank(figure, path, **options):
        if options.get("format") != "png":
            return save(figure, path, **options)
        return Image.new("RGB", (1, 1)).save(path, "png")

    monkeypatch.setattr(Figure, "savefig", save_blank)


@pytest.fixture
def drawn(monkeypatch):
    """The figures drawn in this process by their files' names, as matplotlib has them."""
    from matplotlib.figure import Figure

    figures, save = {}, Figure.savefig

    def keep(figure, path, **options):
        save(figure, path, **options)
        figures[path.name.partition("-")[2]] = figure  # see atomic_write

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def texts(figure):
    """All that stands in it, in one line."""
    from matplotlib.text import Text

    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())


OFFLINE = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}
SMALL_MNIST = ("data=mnist", "data.source.md5=null", "data.validation=0.1")


def one_line(process):
    """The error of a refused command: one line, exit code not 0, no traceback."""
    assert process.returncode != 0, process.stdout
    lines = [line for line in process.stderr.strip().splitlines() if not line.startswith("import time:")]
    assert len(lines) == 1 and lines[0].startswith("error: "), process.stderr
    return lines[0]


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def read_result(folder):
    return json.loads((folder / "result.json").read_text())
