"""Labels that are probably wrong, a page to judge them on, and what correcting them buys."""

import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from lab.config.again import command_again
from lab.config.overrides import quoted
from lab.config.schema import PROJECT, CrossValidate, data_folder, fingerprint, place_data
from lab.datasets.dataset import Dataset, load
from lab.display.language import number, say, speaking
from lab.display.page import Sheet, Table, render
from lab.display.terminal import print_table, warn
from lab.errors import UserError, printable
from lab.evaluation.confident import Suspects, find_suspects, probe
from lab.evaluation.images import load_answered
from lab.evaluation.significance import Estimate, corrected_t
from lab.files import write_csv, write_json, write_text
from lab.runs.folder import read_config, read_result
from lab.runs.predictions import Predictions, join, load_predictions

HERE = Path(__file__).parent
LEAST_LIFT = 10  # of a label that is surely wrong: how many times as often it is a suspect as any other
MOST_SHOWN = 2_000  # suspects, on the page
MOST_PAIRS = 10  # of classes, in the terminal


def find_wrong_labels(folder: Path, root: Path | None, language: str = "en") -> None:
    """Leave suspects.csv, suspects.json and suspects.html beside the folds in `folder`; nothing is trained."""
    config, parts = _read(folder)
    dataset = load_answered(config, root, ((folder / f"fold_{fold}", part) for fold, part in enumerate(parts)))
    predictions = join(parts)
    suspects = find_suspects(predictions.labels, predictions.probabilities())
    rows, pairs = _list(suspects, predictions, dataset), _count(suspects, predictions)
    expected = sum(pair["expected"] for pair in pairs)
    found, others = probe(predictions.labels, predictions.probabilities())
    is_poor = found < LEAST_LIFT * others
    about = {"images": len(predictions.labels), "expected": expected, "changed_found": found, "others_found": others}
    write_json(about | {"pairs": pairs}, folder / "suspects.json")
    if rows:
        write_csv(rows, folder / "suspects.csv")
        with speaking(language):
            page = _draw(_title(config, rows, dataset, predictions), is_poor, rows, pairs, dataset)
        write_text(page, folder / "suspects.html")
        columns = ["label", "thought to be", "expected", "suspects"]
        shown = [[pair["class"], pair["thought"], f"{pair['expected']:.0f}", f"{pair['suspects']:,}"] for pair in pairs]
        print_table(_title(config, rows, dataset, predictions), columns, shown[:MOST_PAIRS])
    print(f"Expected to be wrong: {expected:,.0f} of {len(predictions.labels):,} labels; suspects: {len(rows):,}")
    print(f"Of labels changed at random, to try it, {found:.0%} are suspects; of all the others {others:.1%}")
    if is_poor:
        warn(
            f"These networks are too poor to judge labels ({predictions.correct().mean():.2%} right), or very many "
            "labels are wrong: most suspects are the networks' own mistakes. A better network tells more."
        )
    if rows:
        print(f"Judge them: {folder}/suspects.html, by keyboard; a table: suspects.csv")


def train_corrected(folder: Path, corrections: Path, root: Path | None) -> None:
    """Train the folds of `folder` again with the labels that `corrections` names; say what that is worth.

    All of it is scored on the corrected labels of the images held out, the folds of before too.
    """
    config, before = _read(folder)
    if config.data.corrections:
        raise UserError(f"{folder}: its labels are corrected already: give the folds of before, and one table of all")
    _check_starts(folder, len(before))
    command = command_again(config)
    if command is None:
        raise UserError(
            f"{folder}: no command is found that gives these folds: type yours with data.corrections={corrections}"
        )
    place_data(config, root)
    config.data.corrections, config.data.corrections_sha256 = str(corrections), None
    dataset = load(config.data, untrusted=True)
    if not dataset.corrected.labels:
        raise UserError(f"{corrections}: it changes no label that these folds train on")
    out = folder.absolute().with_name(f"{folder.absolute().name}_corrected_{dataset.corrected.sha256[:8]}")
    ours = ("data.root=", "data.cache=", "data.corrections")  # a stranger's folder names no place that is written to
    words = [word for word in shlex.split(command)[2:] if not word.startswith(ours)]
    places = {"data.root": data_folder(config.data.root), "data.corrections": corrections, "hydra.run.dir": out}
    words += [quoted(key, str(place.absolute())) for key, place in places.items()]
    print(f"{dataset.corrected}; the folds again:", flush=True)
    script = PROJECT / "src" / "cross_validate.py"
    if subprocess.run([sys.executable, script, *words], check=False).returncode:
        raise UserError(f"{out}: the folds have not been trained: the line above says why; the same command goes on")
    after = [load_predictions(out / f"fold_{fold}") for fold in range(len(before))]
    estimate, scores = _compare(before, after)
    told = _sentence(dataset.corrected.labels, estimate)
    about = {"folds": str(folder), "corrections": asdict(dataset.corrected), **scores, "sentence": told}
    interval = [estimate.low, estimate.high]
    write_json(about | {"difference": estimate.value, "interval": interval, "p": estimate.p}, out / "corrected.json")
    print(told)
    print("Both were scored on the corrected labels of the same images held out (Nadeau and Bengio's corrected t).")


def _check_starts(folder: Path, folds: int) -> None:
    """UserError where the folds would start otherwise today, so that what differs is not of the labels alone."""
    for place in (folder / f"fold_{fold}" for fold in range(folds)):
        if read_result(place).get("digest") != fingerprint(read_config(place, builds=False)):
            raise UserError(
                f"{folder}: of an older version, whose folds start otherwise, which would count as the labels' doing: "
                "run cross_validate.py anew with the labels as they were, and give its folder"
            )


def _read(folder: Path) -> tuple[DictConfig, list[Predictions]]:
    """The config of a finished cross-validation, and what each fold said of the images that it held out."""
    config, result = read_config(folder, CrossValidate, builds=False), read_result(folder, "folds")
    return config, [load_predictions(folder / f"fold_{row['fold']}") for row in result["folds"]]


def _list(suspects: Suspects, predictions: Predictions, dataset: Dataset) -> list[dict[str, Any]]:
    """Of each suspect what suspects.csv says, the surest first."""
    probabilities, classes, rows = predictions.probabilities(), dataset.classes, []
    for rank, (row, suggested) in enumerate(zip(suspects.rows, suspects.suggested, strict=True), 1):
        image, label = int(predictions.indices[row]), int(predictions.labels[row])
        named = {"rank": rank, "image": image} | ({"file": dataset.files[image]} if dataset.files else {})
        shares = {"probability_of_class": label, "probability_of_suggested": suggested}
        rows.append(
            named
            | {"fingerprint": dataset.digests[image], "class": classes[label], "suggested": classes[suggested]}
            | {key: float(f"{probabilities[row, place]:.6g}") for key, place in shares.items()}
        )
    return rows


def _count(suspects: Suspects, predictions: Predictions) -> list[dict[str, Any]]:
    """Of each pair of classes how many labels are expected to be wrong, the most first, and how many are suspects."""
    found, names = np.zeros_like(suspects.expected, int), predictions.classes.tolist()
    np.add.at(found, (predictions.labels[suspects.rows], suspects.suggested), 1)
    pairs = [
        {"class": names[one], "thought": names[other], "expected": float(count), "suspects": int(found[one, other])}
        for (one, other), count in np.ndenumerate(suspects.expected)
        if one != other and (count or found[one, other])
    ]
    return sorted(pairs, key=lambda pair: -pair["expected"])


def _title(config: DictConfig, rows: list[dict[str, Any]], dataset: Dataset, predictions: Predictions) -> str:
    told = {"model": config.model.name, "data": dataset.name, "suspects": len(rows), "images": len(predictions.labels)}
    return say("{model} on {data}: {suspects:,} labels of {images:,} to look at", **told)


def _draw(title: str, is_poor: bool, rows: list[dict[str, Any]], pairs: list[dict[str, Any]], dataset: Dataset) -> str:
    """The page on which they are judged."""
    sheet, shown = Sheet(dataset.images.shape[1:]), rows[:MOST_SHOWN]
    tiles = [sheet.add(dataset.images[row["image"]]) for row in shown]
    names = [printable(row["file"]) if "file" in row else say("no. {row}", row=row["image"]) for row in shown]
    counts = [
        [p["class"], p["thought"], number(p["expected"], ",.0f"), number(p["suspects"])] for p in pairs if p["suspects"]
    ]
    return render(
        HERE / "suspects.html",
        (HERE / "suspects.js").read_text(encoding="utf-8"),
        sheet,
        title=title,
        is_poor=is_poor,
        suspects=[row | {"tile": tile, "name": name} for row, tile, name in zip(shown, tiles, names, strict=True)],
        total=len(rows),
        expected=sum(pair["expected"] for pair in pairs),
        pairs=Table([say("label"), say("thought to be"), say("expected"), say("suspects")], counts),
        classes=dataset.classes,
        sha256=dataset.sha256,
    )


def _compare(before: list[Predictions], after: list[Predictions]) -> tuple[Estimate, dict[str, list[float]]]:
    scores: dict[str, list[float]] = {"before": [], "after": []}
    for one, other in zip(before, after, strict=True):
        if not np.array_equal(one.indices, other.indices):
            raise UserError("the corrected folds hold out other images than those before: train both anew")
        scores["before"].append(float((one.logits.argmax(1) == other.labels).mean()))
        scores["after"].append(float(other.correct().mean()))
    differences = np.subtract(scores["after"], scores["before"])
    return corrected_t(differences.tolist(), 1 / (len(before) - 1)), scores


def _sentence(labels: int, estimate: Estimate) -> str:
    points, low, high = estimate.points()
    word = "label" if labels == 1 else "labels"
    chance = "" if estimate.p < 0.05 else f", which may be chance (p = {estimate.p:.2g})"
    return f"{labels:,} {word} corrected: {points:+.2f} points ({low:+.2f} to {high:+.2f}){chance}"
