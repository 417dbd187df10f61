"""What README and docs tell people to type is what the commands take, and links lead somewhere."""

import functools
import json
import re
import shlex

import numpy as np
import pytest
from conftest import PROJECT, read_csv
from omegaconf import OmegaConf
from scipy import stats
from statsmodels.stats.multitest import multipletests

import predict
from lab.config.schema import CONF
from lab.evaluation.significance import corrected_t
from lab.experiments.earlier import read_runs
from lab.experiments.jobs import Job
from lab.experiments.keras_beside import read_scores
from lab.experiments.protocol import compare_all
from lab.experiments.reproduce import count_seeds
from lab.experiments.rows import Row, data_set
from lab.experiments.verdicts import report

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
COMMAND = re.compile(r"python3?\s+(?:src/)?(\w+)\.py((?: [^`|#\n]+)?)")
BY_HYDRA = ("train", "cross_validate", "benchmark", "reproduce")
LABS = OmegaConf.to_container(OmegaConf.load(CONF / "table" / "labs.yaml"))
PAIR = r"\{(\S+) minus ([^\s}]+)(?: (loss))?\}"  # a difference in a finding
LADDERS = [("Ladder", "ladder"), ("Ladder of photographs", "ladder_photos"), ("Precision", "precision")]
MINE = """
from torch.nn import Flatten, LazyLinear, Sequential


def mine(classes):
    return Sequential(Flatten(), LazyLinear(classes))
"""
# how a command is refused that lacks nothing but a file
LACKS = "no such|not a run's folder|cannot be read|cannot be downloaded"


def commands():
    found = {}
    for page in PAGES:
        for name, words in COMMAND.findall(page.read_text().replace("\\|", "|")):
            found.setdefault((name, " ".join(words.split("&&")[0].split())), page.name)
    return sorted(command for command in found if not command[1].startswith("-sc"))  # completes words in a shell


@pytest.mark.parametrize(("name", "words"), commands())
def test_each_command_of_the_pages_is_understood(here, capfd, tmp_path, monkeypatch, name, words):
    """Composed, or refused for the files alone that are not here."""
    monkeypatch.chdir(tmp_path)
    for place in [place for place in ("mine.py", "outputs/RUN/networks.py") if place in words]:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(MINE)
    words = shlex.split(words.replace("=PYTHON", "=python"))
    if name in BY_HYDRA or (name in ("show", "check_data") and words[0].startswith("data=")):
        words = [word for word in words if word not in ("-m", "--help", "ladder", "ladder_photos")]
        words = [re.sub(r"^([\w.]+=)(?:interval|choice)\((.*)\)$", r"\1\2", word) for word in words]
        words = [re.sub(r"^([\w.]+=)(?:glob\((\w+)_\*\)|([^\[\],]+),.*)$", _first, word) for word in words]
        told = here(name, *words, "--cfg=job").out
        assert "\nseed:" in told or "\ndata:" in told or "\nrows:" in told
    elif name == "predict":
        assert predict.main(words) == 1
        assert re.search(LACKS, capfd.readouterr().err)
    else:
        with pytest.raises(SystemExit) as ended:
            here(name, *words)
        assert re.search(LACKS, capfd.readouterr().err + str(ended.value.code))


def _first(several):
    """Of a sweep's values: small_pool of small_*."""
    return several[1] + (f"{several[2]}_pool" if several[2] else several[3])


def test_each_link_leads_to_a_file():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_readme_is_short_and_its_first_command_comes_first():
    lines = (PROJECT / "README.md").read_text().splitlines()
    assert len(lines) < 130
    assert next(line for line in lines if "python" in line).endswith("src/train.py model=deep data=mnist")


def test_the_readmes_run_is_the_one_whose_files_lie_in_docs():
    text, history = (PROJECT / "README.md").read_text(), read_csv(PROJECT / "docs" / "first_run.csv")
    result = json.loads((PROJECT / "docs" / "first_run.json").read_text())
    for row in history[-2:]:
        loss, accuracy, val_loss, val_accuracy = (
            float(row[key]) for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        )
        told = f"loss {loss:.4f}, accuracy {accuracy:.2%} | validation {val_loss:.4f}, {val_accuracy:.2%} | "
        assert f"epoch {row['epoch']:>2}/{result['epochs']}: {told}" in text
    for part in ("validation", "test"):
        for weights in ("best", "last"):
            of = result[part][weights]
            cells = [
                part,
                f"{weights} epoch, {of['epoch']}",
                f"{of['images']:,}",
                f"{of['loss']:.4f}",
                f"{of['accuracy']:.2%}",
            ]
            assert any(re.split(r"\s*│\s*", line.strip("│ ")) == cells for line in text.splitlines()), cells
    assert f"{result['seconds']:.1f} s, {result['images_per_second']:,.0f} images/s" in text


def results(section):
    """A section of RESULTS.md, and the cells of its tables' lines."""
    text = (PROJECT / "RESULTS.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return text, [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:2] == "| "]


def whole_rows():
    """The lines of published.csv of each row all of whose runs have finished."""
    lines = {}
    for line in read_csv(PROJECT / "docs" / "published.csv"):
        lines.setdefault(line["row"], []).append(line)
    return {row: of for row, of in lines.items() if all(line["accuracy"] for line in of)}


@pytest.mark.parametrize(("section", "name"), [("Published figures", "published"), *LADDERS])
def test_each_accuracy_in_the_results_is_that_of_the_csv_file_beside_it(section, name):
    (columns, *rows) = results(section)[1]
    known = {}
    for line in read_csv(PROJECT / "docs" / f"{name}.csv"):
        if line["accuracy"]:
            known.setdefault(line["row"], {}).setdefault(line["seed"], []).append(100 * float(line["accuracy"]))
    told = {}
    for row in rows:
        cells = dict(zip(columns, row, strict=False))
        told.setdefault(cells.get("row", cells.get("network")), cells.get("measured", cells.get("accuracy %", "-")))
    for row, scores in known.items():
        folds = max(map(len, scores.values()))
        means = [sum(of) / len(of) for of in scores.values() if len(of) == folds]
        assert told[row].partition(" ")[0] == f"{sum(means) / len(means):.2f}", row


def test_the_verdicts_in_the_results_follow_from_the_csv_file_by_the_protocol():
    known, measured = whole_rows(), {}
    for row, entry in LABS["rows"].items():
        lines = known.get(row, [])
        scores = {key: [float(line[key]) for line in lines] for key in ("loss", "accuracy")}
        tails = [float(line["tail"]) for line in lines if "tail" in entry]
        means = entry.get("folds", [0] * len(lines))
        accuracies = [100 * score - mean for score, mean in zip(scores["accuracy"], means, strict=bool(lines))]
        measured[row] = {"set": data_set(entry), **scores, "accuracy": accuracies, "tail": tails, "Keras": []}
    if (beside := PROJECT / "docs" / "keras.csv").exists():
        for line in read_csv(beside):
            measured[line["row"]]["Keras"].append(float(line["accuracy"]))
    compared = compare_all(measured, LABS["rows"], LABS["protocol"])
    text, cells = results("Published figures")
    kinds = {"test loss": "loss", "validation, last epochs": "tail", "test accuracy, Keras beside it": "Keras"}
    told = {(row[0], kinds.get(row[1], "accuracy")): row for row in cells}
    for one in compared:
        if one.verdict() != "not yet run":
            row = told[one.row, one.what]
            numbers = [one.value, *one.interval(0.9)]
            shown = [float(number) for number in re.findall(r"[-+][\d.]+", row[6 if one.what == "accuracy" else 4])]
            expected = 100 * np.expm1(numbers) if one.what == "loss" else numbers
            assert shown == pytest.approx(expected, abs=0.51 if one.what == "loss" else 0.0051), row
            assert row[7 if one.what == "accuracy" else 6].startswith(one.verdict()), row
    for word in ("equivalent", "different", "undecided", "not yet run"):
        counts = [
            sum((one.what == "accuracy") == is_main and one.verdict() == word for one in compared) for is_main in (1, 0)
        ]
        assert f"- **{counts[0]} {word}" in text and f"{counts[1]} {word}" in text.partition("judged the same way")[2]


def test_the_table_in_the_results_is_made_of_the_files_beside_it_alone(tmp_path):
    docs, content, rows = PROJECT / "docs", LABS | {"picture": "again"}, []
    for line in read_csv(docs / "published.csv"):
        if not rows or rows[-1].name != line["row"]:
            entry, scores = LABS["rows"][line["row"]], functools.partial(read_scores, docs, line["row"])
            tail = LABS["protocol"]["tail"] if "tail" in entry else 0
            rows.append(Row(line["row"], [], entry, count_seeds(entry, LABS["protocol"]), tail, scores))
        values = {"seed": line["seed"], "fold": line["fold"]}
        rows[-1].jobs.append(Job(line["run"].split(" "), values, tmp_path / line["folder"]))
        rows[-1].earlier = read_runs(docs / "published.csv")
    report(rows, content, tmp_path, None)
    assert (tmp_path / "again.csv").read_bytes() == (docs / "published.csv").read_bytes()
    section = (tmp_path / "table.md").read_text().replace("(again.png)", "(docs/published.png)")
    assert section.strip() == results("Published figures")[0].strip()


def test_the_differences_in_the_findings_follow_from_the_csv_file_by_holm():
    known, effects = whole_rows(), []
    asked = dict.fromkeys(re.findall(PAIR, " ".join(LABS["findings"])))
    for one, other, what in asked:
        pair = [
            {(line["seed"], line["fold"]): float(line[what or "accuracy"]) for line in known.get(row, [])}
            for row in (one, other)
        ]
        differences = [pair[0][key] - pair[1][key] for key in pair[0] if key in pair[1]]
        is_of_folds = "folds" in LABS["rows"][one]
        effects.append(corrected_t(differences, is_of_folds / 4) if differences else None)
    corrected = multipletests([effect.p if effect else 1 for effect in effects], method="holm")[1]
    text = results("Published figures")[0]
    told = dict(zip(asked, zip(effects, corrected, strict=True), strict=True))
    for finding in LABS["findings"]:
        named = {word for each in re.findall(r"\{([^}]+)\}", finding) for word in each.split()}
        if named & LABS["rows"].keys() <= known.keys():
            for one, other, what in re.findall(PAIR, finding):
                effect, p = told[one, other, what]
                value = f"{effect.value:+.4f}" if what else f"{100 * effect.value:+.2f}"
                verdict = re.escape(f"p = {p:.2g}: {'real' if p < 0.05 else 'undecided'})")
                assert re.search(rf"{re.escape(value)} \([^()]*, {verdict}", text), (one, other, what)


@pytest.mark.parametrize(("section", "name"), LADDERS)
def test_what_a_rung_buys_is_judged_by_the_csv_file_beside_it_and_by_holm(section, name):
    scores = {}
    for line in read_csv(PROJECT / "docs" / f"{name}.csv"):
        scores.setdefault(line["row"], []).append(100 * float(line["accuracy"]))
    rungs = {row[0]: (row[4], row[5]) for row in results(section)[1] if row[4] in scores}
    differences = {row: np.subtract(scores[row], scores[against]) for row, (against, _) in rungs.items()}
    p_values = [stats.ttest_1samp(of, 0).pvalue for of in differences.values()]
    for row, p in zip(differences, multipletests(p_values, method="holm")[1], strict=True):
        told = re.fullmatch(r"(\S+) \((\S+) to (\S+), p = (\S+): (real|undecided)\)", rungs[row][1])
        assert told[1] == f"{differences[row].mean():+.2f}" and told[4] == f"{p:.2g}", row
        assert (told[5] == "real") == (p < 0.05) == (float(told[2]) * float(told[3]) > 0), row
