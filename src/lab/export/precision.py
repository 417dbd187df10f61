"""Smaller files of fewer bits a number, and what they cost: the verdict on INT8 and half precision."""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from torch import Tensor

from lab.evaluation.significance import MARGIN, Estimate, mcnemar
from lab.export.formats import OPSET

CALIBRATION = 512  # training images that tell the range of every number within the network
IR_VERSION = 7  # the oldest that opset 13 is in
INT8_OPTIONS = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
INT8_OPTIONS |= {"OpTypesToExcludeOutputQuantization": ["MatMul"]}  # cosines, see Deployed.answer
BATCHES = (1, 32)
ROUNDS = 40


@dataclass
class Verdict:
    """A smaller file beside the float one, on the same images."""

    name: str
    accuracy: float
    float_accuracy: float
    difference: Estimate  # of the accuracies, the smaller file's less the float one's
    images: int
    other_answers: int
    speed: dict[int, float]  # of each batch size, how many times as fast
    milliseconds: dict[int, tuple[float, float]]  # a batch, of the smaller file and of the float one
    size: float  # of the float file's

    def __str__(self) -> str:
        points, low, high = self.difference.points()
        margin = f"{100 * MARGIN:g}"
        if self.difference.is_equivalent:
            held = f"equivalent within {margin}"
        else:
            held = "worse" if self.difference.is_worse else f"not shown to be within {margin} by {self.images:,} images"
        speeds = " and ".join(f"{speed:.1f} x as fast at batch {batch}" for batch, speed in self.speed.items())
        return (
            f"{self.name}: {points:+.2f} points ({low:+.2f} to {high:+.2f}), {held}; "
            f"{speeds} on this processor; {self.size:.2f} x the size"
        )

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "sentence": str(self),
            "accuracy": self.accuracy,
            "float_accuracy": self.float_accuracy,
            "difference": self.difference.value,
            "interval": [self.difference.low, self.difference.high],
            "p": self.difference.p,
            "images": self.images,
            "other_answers": self.other_answers,
            "milliseconds": {
                str(batch): {"this": ours, "float": theirs} for batch, (ours, theirs) in self.milliseconds.items()
            },
            "size": self.size,
        }


def to_int8(model: Path, images: Tensor, work: Path) -> onnx.ModelProto:
    """The float file `model` with weights and maps of 8 bits, their ranges as on `images` uint8 [n, c, h, w].

    QDQ, weights a scale per channel, all symmetric, biases in float: what TensorRT reads too. Weights have 7 bits, for
    processors without VNNI would overflow with 8. What makes probabilities and strangeness of the network's numbers
    stays in float, but for the typical features. `work` is a folder for what the quantiser leaves behind.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        batches: Iterator[Tensor] = iter(images.split(64))

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.float().numpy()}

    prepared, smaller = work / "prepared.onnx", work / "int8.onnx"
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it advises what was done
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quant_pre_process(model, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                smaller,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                reduce_range=True,
                nodes_to_exclude=_last_nodes(onnx.load(prepared)),
                extra_options=INT8_OPTIONS,
            )
    finally:
        logging.getLogger().setLevel(level)
    return _plain(onnx.load(smaller))


def to_fp16(model: Path) -> onnx.ModelProto:
    """The float file `model` in half precision; images and answers stay float, and so does what makes these."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    loaded = onnx.load(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights too small for it, which become its smallest
        half = convert_float_to_float16(loaded, keep_io_types=True, node_block_list=_last_nodes(loaded))
    once = {tuple(node.output): node for node in half.graph.node}  # logits are converted for each that takes them
    del half.graph.node[:]
    half.graph.node.extend(once.values())
    OnnxModel(half).topological_sort()  # the conversions of what comes in and goes out were appended
    return _plain(half)


def compare(
    name: str,
    answers: Mapping[str, npt.NDArray],
    labels: npt.NDArray[np.int64],
    files: Mapping[str, Path],
    images: Tensor,
) -> Verdict:
    """Of the smaller file, by its `answers` and its file under "this", against those under "float"."""
    predicted = {key: probabilities.argmax(1) for key, probabilities in answers.items()}
    right = {key: numbers == labels for key, numbers in predicted.items()}
    times = {batch: _time(files, images[:batch].float().numpy()) for batch in BATCHES if batch <= len(images)}
    return Verdict(
        name,
        float(right["this"].mean()),
        float(right["float"].mean()),
        mcnemar(right["this"], right["float"]),
        len(labels),
        int((predicted["this"] != predicted["float"]).sum()),
        {batch: both["float"] / both["this"] for batch, both in times.items()},
        {batch: (1000 * both["this"], 1000 * both["float"]) for batch, both in times.items()},
        files["this"].stat().st_size / files["float"].stat().st_size,
    )


def _plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """Of the opset and the format that old runtimes read, which these tools raise though they use nothing newer."""
    model.ir_version = IR_VERSION
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    return model


def _last_nodes(model: onnx.ModelProto) -> list[str]:
    """Those after the network, which make probabilities and strangeness: cheap, and too coarse in fewer bits.

    Not the product with the typical features, which are up to two thirds of a file.
    """
    nodes = [node for node in model.graph.node if node.op_type != "MatMul"]
    return [node.name for node in nodes if not node.name.startswith("/net.")]


def _time(files: Mapping[str, Path], images: npt.NDArray[np.float32]) -> dict[str, float]:
    """Median seconds of a call of each file, in turn, so that what slows the machine slows both."""
    provider = ["CPUExecutionProvider"]
    sessions = {key: onnxruntime.InferenceSession(path, providers=provider) for key, path in files.items()}
    seconds: dict[str, list[float]] = {key: [] for key in sessions}
    for number in range(ROUNDS + 3):  # three to warm up
        for key, session in sessions.items():
            started = time.perf_counter()
            session.run(None, {"images": images})
            if number >= 3:
                seconds[key].append(time.perf_counter() - started)
    return {key: float(np.median(each)) for key, each in seconds.items()}
