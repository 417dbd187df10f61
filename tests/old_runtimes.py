"""Every network on the oldest runtimes that devices have, without anything of this project.

`python tests/old_runtimes.py [RECIPE ...]` prints the table of RESULTS.md; `pytest -m old` asks for less.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

# a Jetson Nano's last of each, in environments of Python 3.6
RUNTIMES = {
    "torch": ["torch==1.10.0", "typing_extensions==4.1.1", "dataclasses==0.8", "Pillow==8.4.0"],
    "onnxruntime": ["onnxruntime==1.10.0", "numpy==1.19.5", "flatbuffers", "protobuf==3.19.6", "Pillow==8.4.0"],
}
FILES = {"torch": "model.ts", "onnxruntime": "model.onnx"}
IMAGES = 1000
ASK = """
import json, sys, time
import predict
path, folder, started = sys.argv[1:]
model = predict.load(path, "cpu", predict.read_metadata(path))
content, wanted = open(folder + "/images", "rb").read(), json.load(open(folder + "/wanted.json"))
size = len(content) // len(wanted)
images = [content[place : place + size] for place in range(0, len(content), size)]
model.probabilities(images[:1])
told = {"seconds": time.time() - float(started), "memory": predict.peak_memory(), "difference": 0.0, "other": 0}
for n, part in ((1, images[:100]), (50, images)):
    for start in range(0, len(part), n):
        for found, row in zip(model.probabilities(part[start : start + n]), wanted[start:]):
            told["difference"] = max([told["difference"]] + [abs(a - b) for a, b in zip(found, row)])
            told["other"] += max(row) - row[found.index(max(found))] > 1e-4
print(json.dumps(told))
"""


def make_python(runtime, keep=None):
    """A Python 3.6 with this runtime alone; None where there is no Python 3.6. `keep` is a folder to leave it in."""
    found = [*Path.home().glob(".pyenv/versions/3.6.*/bin/python"), *filter(None, [shutil.which("python3.6")])]
    if not found:
        return None
    place = Path(keep or tempfile.mkdtemp(prefix="old-")) / runtime
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([found[0], "-m", "venv", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "pip==21.3.1"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *RUNTIMES[runtime]], check=True)
    return python


def real_images(shape):
    """Test images uint8 [1000, *shape] of MNIST or CIFAR4 where LAB_DATA names them, else noise."""
    data, (channels, side, _) = os.environ.get("LAB_DATA"), shape
    if data and shape == (1, 28, 28):
        raw = (Path(data) / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes()[16:]
        images = np.frombuffer(raw, np.uint8).reshape(-1, 1, 28, 28)[:IMAGES]
    elif data and shape == (3, 32, 32):
        images = np.load(Path(data) / "CIFAR4_X.npy")[-IMAGES:].transpose(0, 3, 1, 2)
    else:
        images = np.random.default_rng(1).integers(0, 64, (IMAGES, channels, side, side), dtype=np.uint8)
    return torch.from_numpy(np.array(images))


def lay_out(recipe, folder):
    """Both files of an untrained network, 1000 images and the probabilities that it gives them."""
    from test_predict import DIGIT, PHOTO, make_model, write_onnx, write_torchscript

    deployed, golden, metadata = make_model(recipe, DIGIT if recipe.startswith(("lenet5", "hog")) else PHOTO)
    write_torchscript(deployed, golden, metadata, folder / "model.ts")
    write_onnx(deployed, golden, metadata, folder / "model.onnx")
    images = real_images(tuple(golden.shape[1:]))
    (folder / "images").write_bytes(images.numpy().tobytes())
    with torch.no_grad():
        wanted = torch.cat([deployed(part) for part in images.split(50)])
    (folder / "wanted.json").write_text(json.dumps(wanted.tolist()))
    shutil.copy(Path(__file__).parents[1] / "src" / "predict.py", folder)


def ask(python, folder, runtime):
    """Seconds from the process's start to the first answer, its MB, the largest difference, other answers."""
    command = [python, "-c", ASK, FILES[runtime], ".", str(time.time())]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return json.loads(process.stdout)


def main(recipes):
    pythons = {runtime: make_python(runtime, os.environ.get("LAB_OLD")) for runtime in RUNTIMES}
    if None in pythons.values():
        sys.exit("there is no Python 3.6")
    print("| network | torch 1.10 | memory | largest difference | onnxruntime 1.10 | memory | largest difference |")
    print("|---|---|---|---|---|---|---|")
    for recipe in recipes:
        with tempfile.TemporaryDirectory() as folder:
            lay_out(recipe, Path(folder))
            cells = []
            for runtime, python in pythons.items():
                subprocess.run([python, "predict.py", FILES[runtime], "selftest"], cwd=folder, check=True, stdout=-3)
                asked = [ask(python, folder, runtime) for _ in range(3)]
                assert not any(told["other"] for told in asked), (recipe, runtime, asked)
                told, difference = min(asked, key=lambda told: told["seconds"]), max(one["difference"] for one in asked)
                cells += [f"{told['seconds']:.2f} s", f"{told['memory']:.0f} MB", f"{difference:.0e}"]
            print(f"| `{recipe}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
    from lab.config.schema import CONF

    main(sys.argv[1:] or sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
