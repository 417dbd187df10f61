"""From a run to the files for the device."""

import copy
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lab.datasets.pitfalls import name_some
from lab.display.terminal import make_bar, print_notes, print_table
from lab.errors import UserError
from lab.evaluation.abstention import Abstention, find_typical, images_needed, judge, set_abstention
from lab.export.formats import DEVICE_TOLERANCE, Deployed, describe, save_onnx, write_onnx, write_torchscript
from lab.export.parity import BATCH, Runtime, check_parity, collect, onnx_runtime, print_parity, torch_runtime
from lab.export.precision import CALIBRATION, Verdict, compare, to_fp16, to_int8
from lab.files import write_json
from lab.runs.folder import read_result
from lab.training.load import load
from lab.training.prepare import Run

GOLDEN = 10  # test images that travel with the network,
GOLDEN_BYTES = 4_000_000  # or as many as take this
LEARNT_FROM = 10_000  # training images, at most, that tell which features are typical
COARSE = 0.05  # of a golden probability, between devices that compute a smaller file: they round as they like
PRECISIONS = {"int8": "INT8", "fp16": "FP16"}


def export(folder: Path, weights: str, root: Path | None, coverage: float, precisions: list[str], force: bool) -> None:
    """Write model.ts, model.onnx and parity.json into `folder`, once all runtimes agree on the whole test part.

    Answers are sets of classes that hold the right one for a share of `coverage`, as set on the validation part. Each
    of `precisions` gets a file of its own and a JSON; one that is worse than the float file only by `force`.
    """
    run = load(folder, weights, root)
    deployed = Deployed(run.classifier.net, _find_typical(run)).eval()
    images = _images(run, run.dataset.parts["test"])
    golden = images[: max(1, min(GOLDEN, GOLDEN_BYTES // images[0].numel()))].contiguous()
    with torch.no_grad():
        probabilities = deployed(golden)
    metadata = describe(run, read_result(folder), weights, golden.numpy(), probabilities)
    abstention = _set_abstention(run, torch_runtime(deployed), coverage)
    if abstention:
        metadata["abstention"] = asdict(abstention)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as beside:
        files = _write_float(deployed, golden, metadata, Path(beside))
        parity = check_parity(deployed, files, images)
        if parity["tolerance"] > DEVICE_TOLERANCE:  # it rounds as much there, too
            metadata["tolerance"] = parity["tolerance"]
            files = _write_float(deployed, golden, metadata, Path(beside))
        if abstention:
            _tell_abstention(run, abstention, parity, collect("test part", onnx_runtime(files["model.onnx"]), images))
        print_parity(parity)
        _remove_smaller(folder)
        for name, path in files.items():
            path.replace(folder / name)
        write_json(parity, folder / "parity.json")
        smaller, refused = _write_smaller(run, precisions, metadata, coverage, force, folder, Path(beside))
    *others, last = [*files, *smaller]
    print(f"{', '.join(others)} and {last} in {folder}. On the device: python predict.py model.ts selftest")
    if refused:
        raise UserError("; ".join(refused))


def _write_float(deployed: Deployed, images: Tensor, metadata: dict[str, Any], folder: Path) -> dict[str, Path]:
    """The two files in `folder`, by their names; traced on `images`."""
    files = {name: folder / name for name in ("model.ts", "model.onnx")}
    write_torchscript(deployed, images, metadata, files["model.ts"])
    write_onnx(deployed, images, metadata, files["model.onnx"])
    return files


def _remove_smaller(folder: Path) -> None:
    """Remove the smaller files of an earlier export, and their verdicts: their weights or thresholds may be others."""
    for precision in PRECISIONS:
        (folder / f"precision_{precision}.json").unlink(missing_ok=True)
        if (older := folder / f"model_{precision}.onnx").exists():
            older.unlink()
            print(f"{older.name} of an earlier export is removed")


def _images(run: Run, indices: npt.NDArray[np.int64]) -> Tensor:
    """uint8 [n, c, h, w]"""
    return torch.from_numpy(run.dataset.images[indices]).permute(0, 3, 1, 2)


def _find_typical(run: Run) -> Tensor | None:
    """Features [k, d] of images that it was trained on; None of a network that ends otherwise than dense."""
    net, train = run.classifier.net, run.dataset.parts["train"]
    if not isinstance(net.order[-1], nn.Linear):
        return None
    some = np.random.default_rng(run.config.seed).permutation(train)[:LEARNT_FROM]
    features = []
    with make_bar(len(some), " images") as bar, torch.no_grad():
        bar.set_description("training part")
        for indices in np.split(some, range(BATCH, len(some), BATCH)):
            images = _images(run, indices)
            features.append(net.last_features(images).float().numpy())
            bar.update(len(images))
    return torch.from_numpy(find_typical(np.concatenate(features), run.dataset.labels[some], run.config.seed))


def _set_abstention(run: Run, runtime: Runtime, coverage: float) -> Abstention | None:
    """On the validation part alone; None where there is none."""
    indices = run.dataset.parts["validation"]
    if not len(indices):
        print_notes(["without a validation part nothing says when it does not know: it always names one class"])
        return None
    probabilities, strangeness = collect("validation part", runtime, _images(run, indices))
    counts, notes = run.dataset.counts()["validation"], []
    fewest = int(counts[2 * counts >= np.median(counts[counts > 0])].min())  # of a class that is not rare
    if fewest < images_needed(coverage):
        possible = fewest / (fewest + 1)
        notes.append(
            f"a coverage of {coverage:g} needs {images_needed(coverage):,} validation images of each class, "
            f"the fewest are {fewest}: {possible:.4g} is what they can promise"
        )
        coverage = possible
    if (rare := np.flatnonzero(counts < images_needed(coverage))).size:
        named = name_some(rare, run.dataset.classes)
        notes.append(f"too few validation images of {named} for a coverage of {coverage:.4g}: in every set of classes")
    print_notes(notes)
    return set_abstention(probabilities, strangeness, run.dataset.labels[indices], coverage)


def _tell_abstention(
    run: Run, abstention: Abstention, report: dict[str, Any], answers: tuple[npt.NDArray, npt.NDArray]
) -> None:
    """What came of it on the test part, into `report` too."""
    found = judge(abstention, *answers, run.dataset.labels[run.dataset.parts["test"]])
    report["abstention"] = asdict(abstention) | {"test": found}
    rows = [
        ["sets that hold the right class", f"{found['coverage_of_sets']:.2%}, {abstention.coverage:.2%} was asked"],
        ["of the class with the fewest", f"{found['least_coverage_of_a_class']:.2%}"],
        ["classes in a set", f"{found['classes_in_a_set']:.3f}"],
        ["answered unknown", f"{found['unknown']:.2%}"],
        [
            "expected calibration error",
            f"{found['calibration_error']['after']:.2%}, {found['calibration_error']['before']:.2%} before",
        ],
    ]
    title = f"When it does not know: set on the validation part, seen on {found['images']:,} test images"
    print_table(title, ["", "test part"], rows)


def _write_smaller(
    run: Run,
    precisions: list[str],
    metadata: dict[str, Any],
    coverage: float,
    force: bool,
    folder: Path,
    work: Path,
) -> tuple[list[str], list[str]]:
    """The names of the smaller files that are in `folder` now, beside model.onnx, and why others are not."""
    written, refused = [], []
    for precision in precisions:
        try:
            file, verdict = _write_precision(run, precision, folder / "model.onnx", metadata, coverage, work)
            print(verdict)
            write_json(verdict.as_plain(), folder / f"precision_{precision}.json")
            if verdict.difference.is_worse and not force:
                raise UserError(f"model_{precision}.onnx is not written, for it is worse: --force writes it")
            file.replace(folder / file.name)
            written.append(file.name)
        except UserError as error:  # the other files are right nevertheless
            refused.append(str(error))
    return written, refused


def _write_precision(
    run: Run, precision: str, model: Path, metadata: dict[str, Any], coverage: float, folder: Path
) -> tuple[Path, Verdict]:
    """The smaller file in `folder`, and what it costs on the test part, beside the float file `model`."""
    path, name = folder / f"model_{precision}.onnx", PRECISIONS[precision]
    train, test = (run.dataset.parts[part] for part in ("train", "test"))
    if precision == "int8":
        some = np.random.default_rng(run.config.seed).permutation(train)[:CALIBRATION]
        smaller = to_int8(model, _images(run, some), folder)
    else:
        smaller = to_fp16(model)
    save_onnx(smaller, metadata, path)  # to be asked
    files, images, metadata = {"this": path, "float": model}, _images(run, test), copy.deepcopy(metadata)
    runtimes = {key: onnx_runtime(file) for key, file in files.items()}
    found = {key: collect(f"{key} file", runtime, images) for key, runtime in runtimes.items()}
    if not np.isfinite(found["this"][0]).all():
        raise UserError(f"{name}: its answers are not finite: this network's numbers are too large for it")
    metadata |= {"precision": precision, "tolerance": COARSE}
    accuracy = float((found["this"][0].argmax(1) == run.dataset.labels[test]).mean())
    kept = ("part", "epoch", "images")  # all else was measured on the float network
    metadata["metrics"] = {key: metadata["metrics"][key] for key in kept if key in metadata["metrics"]}
    metadata["metrics"]["accuracy"] = accuracy
    count = len(metadata["golden"]["probabilities"])
    metadata["golden"]["probabilities"] = found["this"][0][:count].astype(float).round(9).tolist()
    if "abstention" in metadata:
        metadata["abstention"] = asdict(_set_abstention(run, runtimes["this"], coverage))
    save_onnx(smaller, metadata, path)
    probabilities = {key: answers[0] for key, answers in found.items()}
    return path, compare(name, probabilities, run.dataset.labels[test], files, images)
