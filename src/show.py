"""What the data looks like, or what a run sees: python src/show.py data=mnist, python src/show.py RUN"""

import sys
from pathlib import Path

from omegaconf import DictConfig

from lab.cli.arguments import Parser, run_parser
from lab.cli.command import run_command
from lab.config.schema import run_folder


def show_data(config: DictConfig) -> None:
    """Show a data set, or what a run sees (show.py RUN [--image N] [--root FOLDER])"""
    from lab.training.show import show_data  # torch takes seconds

    show_data(config.data, run_folder())


def show_run(folder: Path, image: int, root: Path | None) -> None:
    from lab.training.show import show_run

    show_run(folder, image, root)


def main() -> None:
    words = sys.argv[1:]
    if all("=" in word or word.startswith("-") for word in words) and not any(Path(word).exists() for word in words):
        run_command(show_data, "show")
        return
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder, or one fold's")
    parser.add_argument("--image", type=int, default=0, help="number of the image in the data set")
    parser.add_shared("--root", "--networks")
    run_parser(parser, show_run)


if __name__ == "__main__":
    main()
