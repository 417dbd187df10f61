"""From a folder to its report.html."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.display.language import speaking
from lab.display.page import Sheet, render
from lab.errors import UserError
from lab.files import write_text
from lab.report import comparison, folds, reproduced, run, sweep
from lab.runs.folder import read_result

HERE = Path(__file__).parent
KINDS = ("result.json", "sweep.csv", "comparison*.json", "table.md")  # what a folder has that has a page
MOST = 8  # named, where a folder of folders was given
Describe = Callable[[Path, Path | None], tuple[dict[str, Any], Sheet | None]]


def write_report(folder: Path, language: str = "en", root: Path | None = None) -> None:
    """Write report.html into `folder`: of a run, folds, a sweep, a comparison or a reproduced table.

    From what was saved there. The data, for its images, lies in `root`, else where it lay, else in $LAB_DATA.
    """
    name, describe = _find_kind(folder)
    with speaking(language):
        content, sheet = describe(folder, root)
        script = (HERE / "report.js").read_text(encoding="utf-8") if "answers" in content else ""
        page = render(HERE / f"{name}.html", script, sheet, **content)
    write_text(page, folder / "report.html")
    print(f"Report: {folder}/report.html, {len(page.encode()) / 1e6:.1f} MB")


def _find_kind(folder: Path) -> tuple[str, Describe]:
    """The template and what fills it."""
    if not (folder / "config.yaml").exists():
        if list(folder.glob("comparison*.json")):
            return "comparison", comparison.describe
        if (folder / "table.md").exists():
            return "reproduced", reproduced.describe
        if (folder / "search.json").exists():  # its table would name the luckiest trial
            raise UserError(f"{folder}: a search has no page: verdict.json, confirmed.csv and its pictures say it all")
        if (folder / "sweep.csv").exists():
            return "sweep", sweep.describe
        if folder.is_dir():
            found = sorted(
                (path.parent for kind in KINDS for path in folder.glob(f"*/{kind}")),
                key=lambda place: -place.stat().st_mtime,
            )
            inside = (
                f": give one of those in it: {', '.join(dict.fromkeys(p.name for p in found[:MOST]))}" if found else ""
            )
            raise UserError(
                f"{folder}: neither a run's folder, nor one of folds, a sweep, a comparison or a table{inside}"
            )
    return ("folds", folds.describe) if "folds" in read_result(folder) else ("run", run.describe)
