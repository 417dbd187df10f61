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

Answers = tuple[
    npt.NDArray[np.float32], npt.NDArray[np.float32]
]  # probabilities [n, classes], strangeness [n, measures]
Runtime = Callable[[Tensor], Answers]  # of images uint8 [n, c, h, w]


def check_parity(deployed: nn.Module, files: Mapping[str, Path], images: Tensor) -> dict[str, Any]:
    """Of the files against `deployed`, on images uint8 [n, c, h, w]; UserError where they disagree."""
    wanted, strange = collect("network", torch_runtime(deployed), images)
    exact, exactly_strange = collect("network in float64", torch_runtime(copy.deepcopy(deployed).double()), images)
    own, own_strange = float(np.abs(wanted - exact).max()), np.abs(strange - exactly_strange).max(0)
    tolerance = max(TOLERANCE, 2 * own)  # two float32 runtimes, each as far from the exact answer
    limits = np.maximum(10 * TOLERANCE * np.abs(strange).max(0), 2 * own_strange)
    runtimes = {
        "TorchScript": torch_runtime(torch.jit.load(files["model.ts"])),
        "ONNX Runtime": onnx_runtime(files["model.onnx"]),
    }
    report = {"images": len(images), "rounding_of_the_network": own, "tolerance": tolerance, "runtimes": {}}
    for name, runtime in runtimes.items():
        found, strangeness = collect(name, runtime, images)
        difference = float(np.abs(found - wanted).max())
        apart = np.abs(strangeness - strange).max(0)
        other = count_other(found, wanted, tolerance)
        report["runtimes"][name] = {
            "largest_difference": difference,
            "other_predictions": other,
            "largest_differences_in_strangeness": apart.tolist(),
        }
        if not difference <= tolerance or other:
            raise UserError(
                f"{name} answers otherwise than the network that was trained: {other} of {len(images)} predictions "
                f"differ, the largest difference in a probability is {difference:.1e}: nothing was exported"
            )
        if not (apart <= limits).all():
            raise UserError(
                f"{name} finds images otherwise strange than the network does, by {apart.tolist()}, where at most "
                f"{limits.tolist()} is rounding: nothing was exported"
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


def collect(name: str, runtime: Runtime, images: Tensor) -> Answers:
    """The answers to all images uint8 [n, c, h, w], under a bar that has the name."""
    parts = []
    with make_bar(len(images), " images") as bar:
        bar.set_description(name)
        for part in images.split(BATCH):
            parts.append(runtime(part))
            bar.update(len(part))
    probabilities, strangeness = zip(*parts, strict=True)
    return np.concatenate(probabilities), np.concatenate(strangeness)


def torch_runtime(module: nn.Module) -> Runtime:
    """A Deployed, or a model.ts as torch loads it."""

    def run(images: Tensor) -> Answers:
        with torch.no_grad():
            probabilities, strangeness = module.answer(images)
            return probabilities.numpy(), strangeness.numpy()

    return run


def onnx_runtime(path: Path) -> Runtime:
    """A model.onnx, of any precision."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Answers:
        probabilities, strangeness = session.run(["probabilities", "strangeness"], {"images": images.float().numpy()})
        return probabilities, strangeness

    return run
