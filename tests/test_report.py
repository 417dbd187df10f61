"""report.html: what it says of each kind of folder, in two languages, and that nothing in it becomes markup."""

import ast
import csv
import json
import re
import shlex
import shutil
import string
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from conftest import PROJECT, SMALL_MNIST, read_result
from jinja2 import Environment, nodes
from test_older import older  # noqa: F401

from lab.config.again import command_again
from lab.config.schema import CONF, CrossValidate
from lab.datasets.dataset import Dataset
from lab.display.labels import CALLED, label
from lab.display.language import FILES, LANGUAGES, number, retell, say, speaking
from lab.display.page import Sheet, render
from lab.experiments.knobs import DRAWS
from lab.experiments.ranking import HEADINGS
from lab.experiments.rows import Row
from lab.experiments.verdicts import _sum_up
from lab.report.answers import describe_answers
from lab.runs.folder import read_config
from lab.runs.predictions import Predictions, load_predictions

LAB = PROJECT / "src" / "lab"
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</style><script>alert(1)</script>",
    "\" onclick='x' y=\"",
    "]]>",
    "&lt;b&gt;",
]
HOSTILE += [
    "{{ 7*7 }}",
    "{% raw %}",
    "<!--",
    "javascript:alert(1)",
    "'><svg/onload=alert(1)>",
    "{label}",
    "</td></table>",
]


class Structure(HTMLParser):
    """The tags of a page with the names of their attributes, addresses, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses, self.text, self.policy = [], [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, *sorted(name for name, _ in attributes)))
        self.addresses += [value for name, value in attributes if name in ("href", "src")]
        if ("http-equiv", "Content-Security-Policy") in attributes:
            self.policy = dict(attributes)["content"]

    def handle_data(self, data):
        self.text.append(data)


def read_page(folder):
    return Structure((folder / "report.html").read_text(encoding="utf-8"))


def words_of_the_code():
    """Every text that `say` is given, in Python and in templates, and those that `translate` may be."""
    found = {*CALLED.values(), *HEADINGS.values()} - {"seconds"}
    for path in LAB.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "say":
                assert isinstance(call.args[0], ast.Constant), f"{path}: {ast.unparse(call)}: say takes a literal"
                found.add(call.args[0].value)
    for path in LAB.rglob("*.html"):
        for call in Environment().parse(path.read_text(encoding="utf-8")).find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name == "say":
                found.add(call.args[0].value)
    return found


def words_of_recipes():
    """What pages call the keys of conf/model and conf/schedule, what else a recipe shows, and what a sweep folds."""
    files = [path for folder in ("model", "schedule") for path in (CONF / folder).glob("*.yaml")]
    contents = [content for content in (yaml.safe_load(path.read_text()) for path in files) if content]
    groups = [value for content in contents for value in content.values() if isinstance(value, dict)]
    keys = {key for group in (*contents, *groups) for key in group} - {"defaults", "_target_"}
    return {label(key) for key in (*keys, "early_stopping", "speed", "monitor", *DRAWS)}


def test_every_language_has_every_text_with_its_fields():
    def fields(text):
        return {(name, form) for _, name, form, _ in string.Formatter().parse(text) if name}

    words = words_of_the_code()
    assert len(words) > 150 and ("en", *FILES) == LANGUAGES
    for language, path in FILES.items():
        known = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert not (words | words_of_recipes()) - known.keys(), f"{language} lacks these"
        for english, other in (known | known.pop("told")).items():
            assert fields(english) == fields(other), english


def test_french_numbers_have_a_comma_and_a_thin_space():
    with speaking("fr"):
        assert number(1234.5, ",.2f") == "1\u202f234,50" and number(0.98765, ".2%") == "98,77\u202f%"
        assert say("{sure:.1%} sure", sure=0.5) == "sûr à 50,0\u202f%"
    assert number(1234.5, ",.2f") == "1,234.50" and number(None) == "-"


def test_what_a_table_may_say_is_said_in_french():
    """Each state of a row, each verdict, each note; figures among them."""
    lines = [line.removeprefix("- ").replace("**", "") for line in _sum_up([], {})]
    said = [Row("A1", [], {"run": "model=deep", **published}).state() for published in ({}, {"published": 98.7})]
    tables = [yaml.safe_load(path.read_text()) for path in (PROJECT / "conf" / "table").glob("*.yaml")]
    said += [row["note"] for table in tables for row in table["rows"].values() if "note" in row]
    said += ["undecided; 12 seeds would decide", "not independent of E1", "+0.14 (-0.37 to +0.65, p = 0.03: real)"]
    with speaking("fr"):
        for part in {*lines, *(part for text in said for part in text.split("; "))}:
            assert retell(part) != part, part
        assert retell("-5 % (-20 to +13)") == "-5\u202f% (-20 à +13)" and retell("1,234.5") == "1\u202f234,5"
    assert retell("undecided") == "undecided"


def fake(names, images):
    """Predictions of noise, and their images, in files that are called as hostile as the classes."""
    random = np.random.default_rng(1)
    labels = np.arange(images) % len(names)
    logits = random.normal(size=(images, len(names))).astype(np.float32)
    pixels = random.integers(0, 256, (images, 8, 8, 1), dtype=np.uint8)
    dataset = Dataset(pixels, labels, {}, classes=list(names), name="x", parts={})
    dataset.files = [f"{names[number % len(names)]}.png" for number in range(images)]
    return Predictions(logits, labels, np.arange(images), np.array(names), np.array("")), dataset


@pytest.mark.slow
def test_none_of_500_hostile_names_becomes_markup(tmp_path):
    """The page has the tags of one with tame names, and the names as text."""
    template = tmp_path / "answers_alone.html"
    template.write_text('{% extends "page.html" %}{% block main %}{% include "answers.html" %}{% endblock %}')
    shutil.copy(LAB / "report" / "answers.html", tmp_path)
    hostile = [f"{HOSTILE[place % len(HOSTILE)]}{place}" for place in range(500)]
    pages = []
    for names in (
        hostile,
        [f"tame{place}" for place in range(500)],
        HOSTILE,
        [f"tame{n}" for n in range(len(HOSTILE))],
    ):
        predictions, dataset = fake(names, 500)
        sheet = Sheet((8, 8, 1))
        answers = describe_answers(predictions, dataset, sheet)
        pages.append(Structure(render(template, "0", sheet, title=names[0], answers=answers)))
    for page, tame, names in ((pages[0], pages[1], hostile), (pages[2], pages[3], HOSTILE)):
        assert page.tags == tame.tags
        assert set(names) <= set(page.text)
        assert all(address.startswith(("#", "data:image/")) for address in page.addresses)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    return tmp_path_factory.mktemp("reports") / "run"


@pytest.fixture
def run(trained, train_here):
    """A finished run whose command asked for its report."""
    if not trained.exists():
        options = ("model=small_pool", "model.epochs=1", "model.batch_size=50", "report=true")
        train_here(*SMALL_MNIST, *options, f"hydra.run.dir={trained}")
    return trained


def test_a_run_leaves_its_page_and_the_matrix_counts_what_it_predicted(run):
    page, predictions = read_page(run), load_predictions(run)
    text = " ".join("".join(page.text).split())
    accuracy = read_result(run)["test"]["last"]["accuracy"]
    assert f"small_pool on mnist: accuracy {accuracy:.2%}" in text
    assert "model=small_pool data=mnist model.epochs=1 model.batch_size=50" in text
    named = predictions.logits.argmax(1)
    for true, read_as in {*zip(predictions.labels.tolist(), named.tolist(), strict=True)}:
        times = int(((predictions.labels == true) & (named == read_as)).sum())
        if true != read_as:
            told = "once" if times == 1 else f"{times} times"
            assert f"{true} read as {read_as}: {told}" in text
    assert "Grad-CAM" in text and "default-src 'none'" in page.policy and "unsafe" not in page.policy
    assert all(address.startswith(("#", "data:image/")) for address in page.addresses)
    assert {f"#{name}" for name in re.findall(r'id="([\w-]+)"', (run / "report.html").read_text())} >= {
        address for address in page.addresses if address.startswith("#")
    }


def test_the_same_run_gives_the_same_bytes_and_speaks_french(run, here):
    before = (run / "report.html").read_bytes()
    here("report", run)
    assert (run / "report.html").read_bytes() == before
    assert "report.html" in here("report", run, "lang=fr").out
    text = "".join(read_page(run).text)
    assert "exactitude" in text and "La commande qui refait la même chose" in text and "Which class" not in text
    assert re.search(r"\d,\d\d\u202f%", text) and not re.search(r"\d\.\d\d ?%", text)


def test_folds_sweeps_and_comparisons_of_older_versions_have_their_pages(older, here, refused):  # noqa: F811
    here("report", older / "folds")
    text = "".join(read_page(older / "folds").text)
    assert f"over {len(read_result(older / 'folds')['folds'])} folds" in text and "read as" in text
    assert "where it looked: " in (older / "folds" / "report.html").read_text()
    here("report", older / "sweep", "--lang", "fr")
    assert "Meilleur réglage en validation" in "".join(read_page(older / "sweep").text)
    with (older / "sweep" / "sweep.csv").open() as file:
        runs = [older / "sweep" / row["folder"] for row in csv.DictReader(file)]
    here("compare", *(run.relative_to(older) for run in runs[:2]), "--out", "compared")
    sentence = json.loads((older / "compared" / "comparison.json").read_text())["pairs"][0]["sentence"]
    here("report", older / "compared")
    page = read_page(older / "compared")
    assert sentence in page.text and any(" right, " in text for text in page.text)
    place = older / "elsewhere"
    place.mkdir()
    for name in ("sweep", "compared"):  # moved together
        (older / name).rename(place / name)
    here("report", place / "compared")
    assert ": give one of those in it: compared" in refused(place, command="report")


def test_the_command_on_the_page_makes_the_same_run_again(older, here):  # noqa: F811
    python, script, *words = shlex.split(command_again(read_config(older / "run")))
    assert (python, script) == ("python", "src/train.py")
    here("train", *words, f"data.root={older / 'data'}", f"hydra.run.dir={older / 'again'}")
    before, again = read_result(older / "run"), read_result(older / "again")
    assert again["digest"] == before["digest"]
    assert again["test"]["last"]["loss"] == pytest.approx(before["test"]["last"]["loss"], abs=1e-4)
    folds = command_again(read_config(older / "folds", CrossValidate))
    assert folds.startswith("python src/cross_validate.py model=") and "workers" not in folds


def test_what_is_no_result_is_refused_in_a_line(run, older, refused, tmp_path):  # noqa: F811
    (tmp_path / "empty").mkdir()
    assert "neither a run's folder" in refused(tmp_path / "empty", command="report")
    assert "there is no such folder" in refused(tmp_path / "none", command="report")
    assert "has not finished" in refused(older / "unfinished", command="report")
    broken = shutil.copytree(run, tmp_path / "broken")
    (broken / "report.html").unlink()
    (broken / "predictions.npz").unlink()
    assert "evaluate.py writes it" in refused(broken, command="report")
    (older / "sweep" / "sweep.csv").write_text("folder\n../run\n")
    assert "none of its jobs" in refused(older / "sweep", command="report")
    assert not (broken / "report.html").exists()
