"""Which labels are probably wrong, and what correcting them buys: python src/check_labels.py outputs/folds_..."""

from pathlib import Path

from lab.cli.arguments import Parser, run_parser


def check_labels(folder: Path, corrections: Path | None, root: Path | None, lang: str) -> None:
    from lab.experiments.check_labels import find_wrong_labels, train_corrected  # scipy takes a second

    if corrections:
        train_corrected(folder, corrections, root)
    else:
        find_wrong_labels(folder, root, lang)


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDS", help="a finished folder of cross_validate.py")
    parser.add_argument(
        "--corrections", type=Path, metavar="FILE", help="train the folds again with the labels that the page has saved"
    )
    parser.add_shared("--root", "--lang")
    run_parser(parser, check_labels)
