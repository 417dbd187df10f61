"""Do all runtimes give the answers of the network that was trained?"""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor, nn

from lab.display.terminal import make_bar, print_table
from lab.errors import UserError

TOLERANCE = 1e-5  # in a probability; on raw pixels float32 itself rounds by more
BATCH = 256

Runtime = Callable[[Tensor], npt.NDArray[np.float32]]  # images uint8 [n, c, h, w] to probabilities [n, classes]


def check_parity(deployed: nn.Module, files: Mapping[str, Path], images: Tensor) -> dict[str, Any]:
    """Of the files against `deployed`, on images uint8 [n, c, h, w]; UserError where they disagree."""
    wanted = _probabilities("network", _torch(deployed), images)
    exact = _probabilities("network in float64", _torch(copy.deepcopy(deployed).double()), images)
    own = float(np.abs(wanted - exact).max())
    tolerance = max(TOLERANCE, 2 * own)  # two float32 runtimes, each as far from the exact answer
    runtimes = {
        "TorchScript": _torch(torch.jit.load(files["model.ts"])),
        "ONNX Runtime": _onnx(files["model.onnx"]),
    }
    report = {"images": len(images), "rounding_of_the_network": own, "tolerance": tolerance, "runtimes": {}}
    for name, runtime in runtimes.items():
        found = _probabilities(name, runtime, images)
        difference = float(np.abs(found - wanted).max())
        other = count_other(found, wanted, tolerance)
        report["runtimes"][name] = {"largest_difference": difference, "other_predictions": other}
        if not difference <= tolerance or other:
            raise UserError(
                f"{name} answers otherwise than the network that was trained: {other} of {len(images)} predictions "
                f"differ, the largest difference in a probability is {difference:.1e}: nothing was exported"
            )
    return report


def count_other(found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32], tolerance: float) -> int:
    """Images that get another class; not those where two classes are as probable, within the tolerance."""
    rows = np.arange(len(wanted))
    lost = wanted.max(1) - wanted[rows, found.argmax(1)]
    return int((lost > 2 * tolerance).sum())


def print_parity(parity: dict[str, Any]) -> None:
    """How far the runtimes agree with the network."""
    rows = [
        [name, str(found["other_predictions"]), f"{found['largest_difference']:.1e}"]
        for name, found in parity["runtimes"].items()
    ]
    title = f"Against the trained network, {parity['images']:,} test images, tolerance {parity['tolerance']:.1e}"
    print_table(title, ["runtime", "other predictions", "largest difference in a probability"], rows)


def _probabilities(name: str, runtime: Runtime, images: Tensor) -> npt.NDArray[np.float32]:
    parts = []
    with make_bar(len(images), " images") as bar:
        bar.set_description(name)
        for part in images.split(BATCH):
            parts.append(runtime(part))
            bar.update(len(part))
    return np.concatenate(parts)


def _torch(module: nn.Module) -> Runtime:
    def run(images: Tensor) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            return module(images).numpy()

    return run


def _onnx(path: Path) -> Runtime:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.float().numpy()})[0]
