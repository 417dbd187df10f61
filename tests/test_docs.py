"""What README and docs tell people to type is what the commands take, and links lead somewhere."""

import re
import shlex

import numpy as np
import pytest
from conftest import PROJECT, read_csv
from scipy import stats
from statsmodels.stats.multitest import multipletests

import predict

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
COMMAND = re.compile(r"python3?\s+(?:src/)?(\w+)\.py((?: [^`|#\n]+)?)")
BY_HYDRA = ("train", "cross_validate", "benchmark", "reproduce")
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


@pytest.mark.parametrize(("section", "name"), [("Published figures", "published"), *LADDERS])
def test_each_accuracy_in_the_results_is_that_of_the_csv_file_beside_it(section, name):
    text = (PROJECT / "RESULTS.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    (head, *rows) = (line for line in text.splitlines() if line.startswith("| "))
    columns = [cell.strip() for cell in head.split("|")[1:-1]]
    known = {}
    for line in read_csv(PROJECT / "docs" / f"{name}.csv"):
        if line["accuracy"]:
            known.setdefault(line["row"], {}).setdefault(line["seed"], []).append(100 * float(line["accuracy"]))
    told = {}
    for row in rows:
        cells = dict(zip(columns, (cell.strip() for cell in row.split("|")[1:-1]), strict=False))
        told.setdefault(cells.get("row", cells.get("network")), cells.get("measured", cells.get("accuracy %", "-")))
    for row, scores in known.items():
        folds = max(map(len, scores.values()))
        means = [sum(of) / len(of) for of in scores.values() if len(of) == folds]
        assert told[row].partition(" ")[0] == f"{sum(means) / len(means):.2f}", row


@pytest.mark.parametrize(("section", "name"), LADDERS)
def test_what_a_rung_buys_is_judged_by_the_csv_file_beside_it_and_by_holm(section, name):
    text = (PROJECT / "RESULTS.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    scores = {}
    for line in read_csv(PROJECT / "docs" / f"{name}.csv"):
        scores.setdefault(line["row"], []).append(100 * float(line["accuracy"]))
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    rungs = {row[0]: (row[4], row[5]) for row in cells if row[4] in scores}
    differences = {row: np.subtract(scores[row], scores[against]) for row, (against, _) in rungs.items()}
    p_values = [stats.ttest_1samp(of, 0).pvalue for of in differences.values()]
    for row, p in zip(differences, multipletests(p_values, method="holm")[1], strict=True):
        told = re.fullmatch(r"(\S+) \((\S+) to (\S+), p = (\S+): (real|undecided)\)", rungs[row][1])
        assert told[1] == f"{differences[row].mean():+.2f}" and told[4] == f"{p:.2g}", row
        assert (told[5] == "real") == (p < 0.05) == (float(told[2]) * float(told[3]) > 0), row
