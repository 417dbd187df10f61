"""The page to hand in: report.html of a run, folds, a sweep, a comparison, a table: python src/report.py outputs/RUN"""

from pathlib import Path

from lab.cli.arguments import Parser, run_parser


def report(folder: Path, lang: str, root: Path | None) -> None:
    from lab.report.report import write_report  # matplotlib takes a second: --help answers without it

    write_report(folder, lang, root)


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="of train.py, cross_validate.py, compare.py, reproduce.py"
    )
    parser.add_shared("--lang", "--root", "--networks")
    run_parser(parser, report)
