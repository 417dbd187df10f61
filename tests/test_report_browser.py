"""report.html in a real browser: Chromium opens it from disk, with the mouse, with the keyboard, without JavaScript."""

import shutil

import numpy as np
import pytest

from lab.runs.predictions import load_predictions

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("browser")


@pytest.fixture
def run(place, train_here):
    """A run with a class that is called like markup, and its page."""
    folder = place / "run"
    if not folder.exists():
        random = np.random.default_rng(1)
        np.save(place / "X.npy", random.integers(0, 256, (200, 8, 8, 1), dtype=np.uint8))
        np.save(place / "Y.npy", random.integers(0, 3, 200))
        data = ("data=npy", "data.source.images=X.npy", "data.source.labels=Y.npy", f"data.root={place}")
        named = f"data.classes=['{EVIL}',four,nine]"
        options = ("data.validation=0.2", "data.test=0.4", "model=small_dense", "model.epochs=1", "report=true")
        train_here(*data, named, *options, f"hydra.run.dir={folder}")
    return folder


def open_page(browser, run, **options):
    """The page of `run`, and what it asked for or complained of."""
    page, told = browser.new_page(**options), []
    page.on("request", lambda request: None if request.url.startswith("data:") else told.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: told.append("a dialog"))
    page.goto((run / "report.html").as_uri())
    return page, told


def most_confused(run):
    """Of the mistake that is most frequent: the true class, the class named, how often."""
    predictions = load_predictions(run)
    pairs = np.stack([predictions.labels, predictions.logits.argmax(1)])[:, ~predictions.correct()].T
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    (label, read_as), times = kinds[counts.argmax()].tolist(), int(counts.max())
    return label, read_as, times


def test_a_cell_opens_its_images_and_nothing_leaves_the_page(browser, run):
    page, told = open_page(browser, run)
    label, read_as, times = most_confused(run)
    section = page.locator(f"#cell-{label}-{read_as}")
    assert not section.is_visible()
    page.click(f"a[href='#cell-{label}-{read_as}']")
    assert section.is_visible() and section.locator(".tile").count() == times
    assert page.locator(".cell:visible").count() == 1
    assert EVIL in page.locator(".matrix").inner_text() and page.locator("img[src='x']").count() == 0
    assert told == [(run / "report.html").as_uri()]


def test_the_keyboard_alone_does_it(browser, run):
    page, _ = open_page(browser, run)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.matrix td') !== null"):
            break
    first = page.evaluate("document.activeElement.hash")
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.hash")
    assert first.startswith("#cell-") and second.startswith("#cell-") and first != second
    page.keyboard.press("Enter")
    assert page.locator(second).is_visible()
    page.keyboard.press("Escape")
    assert not page.locator(second).is_visible() and page.evaluate("document.activeElement.hash") == second


def test_without_javascript_the_images_stand_below_the_matrix(browser, run):
    page, _ = open_page(browser, run, java_script_enabled=False)
    label, read_as, times = most_confused(run)
    assert page.locator(f"#cell-{label}-{read_as} .tile").count() == times
    assert page.locator(".cell").count() == page.locator(".cell:visible").count() > 1


def test_axe_finds_nothing_serious_and_a_phone_needs_no_sideways_scrolling(browser, run):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    context = browser.new_context(bypass_csp=True, viewport={"width": 390, "height": 800})  # axe is a script of its own
    page = context.new_page()
    page.goto((run / "report.html").as_uri())
    found = axe.Axe().run(page).response["violations"]
    assert not [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
