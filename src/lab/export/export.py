"""From a run to the files for the device."""

import tempfile
from pathlib import Path

import torch

from lab.export.formats import Deployed, describe, write_onnx, write_torchscript
from lab.export.parity import check_parity, print_parity
from lab.files import write_json
from lab.runs.folder import read_result
from lab.training.load import load

GOLDEN = 10  # test images that travel with the network,
GOLDEN_BYTES = 4_000_000  # or as many as take this


def export(folder: Path, weights: str, root: Path | None) -> None:
    """Write model.ts, model.onnx and parity.json into `folder`, once all runtimes agree on the whole test part."""
    run = load(folder, weights, root)
    deployed = Deployed(run.classifier.net).eval()
    images = torch.from_numpy(run.dataset.images[run.dataset.parts["test"]]).permute(0, 3, 1, 2)
    golden = images[: max(1, min(GOLDEN, GOLDEN_BYTES // images[0].numel()))].contiguous()
    with torch.no_grad():
        probabilities = deployed(golden)
    metadata = describe(run, read_result(folder), weights, golden.numpy(), probabilities)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as beside:
        files = {name: Path(beside) / name for name in ("model.ts", "model.onnx")}
        write_torchscript(deployed, golden, metadata, files["model.ts"])
        write_onnx(deployed, golden, metadata, files["model.onnx"])
        parity = check_parity(deployed, files, images)
        write_json(parity, folder / "parity.json")
        for name, path in files.items():
            path.replace(folder / name)
    print_parity(parity)
    print(f"model.ts and model.onnx in {folder}. On the device: python predict.py model.ts selftest")
