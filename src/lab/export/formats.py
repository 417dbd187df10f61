"""A trained network as one file: TorchScript that a Jetson's torch of 2021 reads, ONNX for TensorRT."""

import base64
import io
import json
import re
import struct
import subprocess
import warnings
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

import predict
from lab.config.schema import PROJECT
from lab.errors import UserError, first_line
from lab.files import atomic_write
from lab.models.build import Network
from lab.models.jetson import find_refused, trace
from lab.training.prepare import Run

FORMAT = 1
OPSET = 13  # TensorRT 8.2, the Nano's last, reads no newer one
MIN_ONNXRUNTIME = "1.6"  # the first that reads it
ALIGNMENT = 64
TINY = 1e-6
# what came later than torch 1.7, the newest first; everything else that a Jetson's torch loads is in 1.7
NEWER = {b"torch.mish(": "1.9", b"_convolution_mode": "1.9", b"torch.pixel_unshuffle(": "1.8"}
DEVICE_TOLERANCE = predict.TOLERANCE  # of its self-test, where the metadata asks for no larger one


class Deployed(nn.Module):
    """Pixels 0..255, uint8 or float [n, c, h, w], to class probabilities [n, classes].

    `typical` are features of unit length [k, d], see Deployed.answer; without them its second measure is left out.
    """

    def __init__(self, net: Network, typical: Tensor | None = None) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("typical", typical)

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(images)[0]

    def answer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The probabilities, and how strange the images are, [n, 1] or [n, 2].

        By the energy of their logits (Liu et al., 2020), and by the distance of their last features from the nearest
        of the `typical` ones: the cosine's, as Sun et al., 2022.
        """
        features = self.net.last_features(images.float())  # before torch 1.10 uint8 / 255 was a division of integers
        logits = self.net.order[-1](features)
        measures = [-logits.logsumexp(1, keepdim=True)]
        if self.typical is not None:
            features = features / (features.abs().amax(1, keepdim=True) + TINY)  # half precision has no larger squares
            length = features.square().sum(1, keepdim=True).sqrt()
            measures.append(1 - (features / (length + TINY)).matmul(self.typical.t()).amax(1, keepdim=True))
        return logits.softmax(1), torch.cat(measures, 1)


class _Answers(nn.Module):
    """`answer` as the only method, which is all that ONNX has."""

    def __init__(self, deployed: Deployed) -> None:
        super().__init__()
        self.deployed = deployed

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.deployed.answer(images)


def describe(
    run: Run, result: dict[str, Any], weights: str, golden: npt.NDArray[np.uint8], probabilities: Tensor
) -> dict[str, Any]:
    """What the device and its user should know, as plain values, without a path or a user's name.

    `golden` are images [n, c, h, w] with the `probabilities` [n, classes] that every runtime must find.
    """
    config = _without_folders(OmegaConf.to_container(run.config, resolve=True))
    config["data"].pop("root")
    channels, height, width = golden.shape[1:]
    part = "test" if "test" in result else "held_out"
    return {
        "format": FORMAT,
        "model": result["model"],
        "data": result["data"]["name"],
        "classes": run.dataset.classes,
        "input": {
            "channels": channels,
            "height": height,
            "width": width,
            "colour": {1: "grey", 3: "RGB"}.get(channels, "raw"),
            "picture": run.config.data.picture,
            # as pictures were fitted for training; without it a JPEG is unpacked whole, and cropped
            **({"fit": run.config.data.fit} if run.config.data.fit else {}),
        },
        "metrics": {"part": part.replace("_", "-"), **result[part][weights]},
        "parameters": result["parameters"],
        "config": config,
        "versions": result["versions"],
        "commit": _commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "golden": {
            "images": base64.b64encode(golden.tobytes()).decode(),
            "probabilities": [[float(f"{p:.9g}") for p in row] for row in probabilities.tolist()],
        },
    }


def write_torchscript(deployed: Deployed, images: Tensor, metadata: dict[str, Any], path: Path) -> None:
    """Trace on `images`, uint8, and write what an old torch reads; UserError names what it would refuse."""
    records = trace(deployed, images, ("forward", "answer"))
    if refused := find_refused(records):
        raise UserError(f"model={metadata['model']} cannot be exported: {refused}")
    top = next(iter(records)).partition("/")[0]
    code = b"".join(record for name, record in records.items() if name.endswith(".py"))
    min_torch = next((least for part, least in NEWER.items() if part in code), "1.7")
    content = json.dumps(metadata | {"min_torch": min_torch}, allow_nan=False)
    records[f"{top}/extra/metadata.json"] = content.encode()
    with atomic_write(path) as beside:
        _write_records(records, beside)


def write_onnx(deployed: Deployed, images: Tensor, metadata: dict[str, Any], path: Path) -> None:
    """Float pixels 0..255 in, for TensorRT of that age refuses uint8; any number of images."""
    try:
        model = _to_onnx(_Answers(deployed).eval(), images.float())
    except torch.onnx.errors.UnsupportedOperatorError as error:
        raise UserError(f"model={metadata['model']} cannot be exported to ONNX: {first_line(error)}") from None
    for node in model.graph.node:
        node.ClearField("doc_string")
    save_onnx(model, metadata, path)


def save_onnx(model: onnx.ModelProto, metadata: dict[str, Any], path: Path) -> None:
    """With the metadata in it; onnx's own error where it is not valid, UserError where predict.py would refuse it."""
    content = json.dumps(metadata | {"min_onnxruntime": MIN_ONNXRUNTIME}, allow_nan=False)
    onnx.helper.set_model_props(model, {"metadata.json": content})
    onnx.checker.check_model(model)
    with atomic_write(path) as beside:
        beside.write_bytes(model.SerializeToString())
        try:
            predict.read_onnx(str(beside))
        except predict.UserError as error:
            why = str(error).removeprefix(f"{beside}: ")
            raise UserError(f"model={metadata['model']} cannot be exported to ONNX: predict.py: {why}") from None


def _to_onnx(module: nn.Module, images: Tensor) -> onnx.ModelProto:
    """By the older exporter: what the newer one writes is of opset 18, and no converter brings it down to OPSET."""
    content = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        torch.onnx.export(
            module,
            (images,),
            content,
            input_names=["images"],
            output_names=["probabilities", "strangeness"],
            dynamic_axes={name: {0: "n"} for name in ("images", "probabilities", "strangeness")},
            opset_version=OPSET,
            dynamo=False,
        )
    return onnx.load_from_string(content.getvalue())


def _write_records(records: dict[str, bytes], path: Path) -> None:
    """A zip file as torch writes it: stored, each record at a multiple of 64 bytes, the same bytes at any time."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            entry = zipfile.ZipInfo(name)
            start = archive.fp.tell() + 30 + len(name.encode()) + 4
            padding = -start % ALIGNMENT
            entry.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding  # as torch pads
            archive.writestr(entry, content)


def _without_folders(node: Any) -> Any:
    """The same, with the last name alone of each path from the root or from home: others need not know whose it is."""
    if isinstance(node, dict):
        return {key: _without_folders(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_folders(value) for value in node]
    is_path = isinstance(node, str) and re.match(r"[/~\\]|[A-Za-z]:[\\/]", node)
    return re.split(r"[\\/]", node.rstrip("/\\"))[-1] if is_path else node


def _commit() -> str | None:
    """Of the project's repository; None outside of one."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    except OSError:
        return None
    return found.stdout.strip() or None
