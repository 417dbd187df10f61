"""Cross-validation: which folds are still to train, and what all of them add up to."""

import csv
import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from lab import UserError
from lab.config import CrossValidate
from lab.evaluation import evaluate
from lab.files import write_csv, write_json
from lab.fit import make_trainer, print_start
from lab.folder import claim, read_config, read_result
from lab.plots import box_plot, confusion, curves
from lab.predictions import fingerprint, join, load_predictions
from lab.run import folds_of, prepare, runs_on_gpu, with_precision
from lab.statistics import corrected_t
from lab.terminal import make_bar, print_confused
from lab.workers import train_folds

KEPT = ("model", "data", "seed", "batch_size", "optimizer", "parameters")
KEPT += ("threads", "precision", "machine", "versions", "epochs")


def cross_validate(config: DictConfig, folder: Path) -> None:
    """Train and score the folds that `folder` lacks, each with the same bits in any company; sum up all of them."""
    kept = with_precision(config)
    _finished(kept, folder)  # refuses what is in the way before anything is read
    run = prepare(config)
    folds = [parts["validation"] for parts in folds_of(run.dataset, config.data)]
    prints = [fingerprint(run.dataset, fold) for fold in folds]
    make_trainer(config, folder, [], keeps_best=False)  # refuses its options before the folder is claimed
    try:
        with FileLock(folder / ".lock", blocking=False):
            finished = _finished(kept, folder)
            _check_images(folder, prints, finished)
            if not (folder / "config.yaml").exists():
                claim(folder, kept)
            shown = {f"fold {number}": fold for number, fold in enumerate(folds)} | {"not used": run.parts["test"]}
            print_start(dataclasses.replace(run, parts=shown))
            places = sorted((int(image), number) for number, fold in enumerate(folds) for image in fold)
            write_csv([{"image": image, "fold": number} for image, number in places], folder / "folds.csv")
            del run  # the workers have their own
            for number in finished:
                print(_line(number, folder))
            if missing := sorted(set(range(len(folds))) - set(finished)):
                _train(config, missing, folder)
                _check_images(folder, prints, missing)
            _sum_up(folder, len(folds))
    except Timeout:
        raise UserError(f"{folder}: another process is at this cross-validation") from None


def _finished(config: DictConfig, folder: Path) -> list[int]:
    """The folds that `folder` has already, where it is of the same cross-validation."""
    if not (folder / "config.yaml").exists():
        return []
    if _decisive(read_config(folder, CrossValidate)) != _decisive(config):
        raise UserError(f"{folder} holds another run: choose another hydra.run.dir")
    there = [number for number in range(config.data.folds) if (folder / f"fold_{number}").exists()]
    for number in there:
        if not (folder / f"fold_{number}" / "result.json").exists():
            raise UserError(f"{folder}/fold_{number} has no result.json: delete it, and it is trained anew")
    return there


def _decisive(config: DictConfig) -> dict[str, Any]:
    """What decides the scores: neither the number of workers nor where the files lie."""
    content = OmegaConf.to_container(config, resolve=True)
    return content | {"workers": None, "data": content["data"] | {"root": None}}


def _check_images(folder: Path, prints: Sequence[str], numbers: Sequence[int]) -> None:
    for number in numbers:
        if str(load_predictions(folder / f"fold_{number}").sha256) != prints[number]:
            raise UserError(f"{folder}/fold_{number} is of other images: choose another hydra.run.dir")


def _train(config: DictConfig, missing: Sequence[int], folder: Path) -> None:
    for left_over in folder.glob(".fold_*"):
        shutil.rmtree(left_over, ignore_errors=True)
    workers = min(config.workers or (1 if runs_on_gpu(config) else joblib.cpu_count()), len(missing))
    print(f"{len(missing)} folds to train, {workers} at a time, a thread each. Each one's score is its last epoch's.")
    content = OmegaConf.to_container(config, resolve=True)
    del content["workers"]
    configs = {number: content | {"data": content["data"] | {"fold": number}} for number in missing}
    started = time.perf_counter()
    with make_bar(None, " images") as bar:
        train_folds(configs, folder, workers, bar, lambda number: bar.write(_line(number, folder)))
    print(f"{time.perf_counter() - started:.0f} s")


def _line(number: int, folder: Path) -> str:
    result = read_result(folder / f"fold_{number}", "held_out")
    figures = result["held_out"]["last"]
    return (
        f"> {figures['accuracy'] * 100:.3f}   fold {number}: {figures['images']:,} images held out, "
        f"loss {figures['loss']:.4f}, {result['seconds']:.0f} s"
    )


def _sum_up(folder: Path, n_folds: int) -> None:
    """Files and last lines."""
    folders = [folder / f"fold_{number}" for number in range(n_folds)]
    results = [read_result(fold, "held_out") for fold in folders]
    predictions = [load_predictions(fold) for fold in folders]
    rows = [
        {"fold": number, **result["held_out"]["last"], "seconds": result["seconds"]}
        for number, result in enumerate(results)
    ]
    scores = [row["accuracy"] * 100 for row in rows]
    # std as the labs print it, numpy's; the interval has its own
    mean, std, interval = np.mean(scores), np.std(scores), corrected_t(scores, 1 / (n_folds - 1))
    evaluation = evaluate(join(predictions))
    result = {key: results[0][key] for key in KEPT}
    del result["data"]["images"], result["data"]["split"]["fold"]  # the first fold's
    result |= {
        "seconds": round(sum(row["seconds"] for row in rows), 3),
        "folds": rows,
        "accuracy": {"mean": mean / 100, "std": std / 100, "interval": [interval.low / 100, interval.high / 100]},
        "held_out": evaluation,
    }
    title = f"{result['model']} on {result['data']['name']}: {mean:.2f} ± {std:.2f} % over {n_folds} folds"
    curves([_history(fold) for fold in folders], title, folder / "curves.png")
    box_plot({result["model"]: scores}, "accuracy on the held-out fold (%)", title, folder / "boxplot.png")
    confusion(evaluation["confusion"], result["data"]["classes"], title, folder / "confusion.png")
    write_csv(rows, folder / "scores.csv")
    write_json(result, folder / "result.json")
    print(f"Accuracy: mean={mean:.3f} std={std:.3f}, n={n_folds}")
    print(
        f"95 % interval of the mean: {interval.low:.3f} to {interval.high:.3f} (folds share images to train on: wider)"
    )
    print_confused(evaluation)
    print(f"Folder: {folder}")


def _history(fold: Path) -> list[dict[str, float]]:
    path = fold / "metrics.csv"
    try:
        with path.open() as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except (ValueError, TypeError):
        raise UserError(f"{path}: damaged: delete {fold}, and it is trained anew") from None
