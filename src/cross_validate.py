"""Train and score a recipe once a fold: python src/cross_validate.py model=baseline data=mnist"""

from omegaconf import DictConfig

from lab.command import run_command
from lab.config import run_folder


def cross_validate(config: DictConfig) -> None:
    """Train and score a recipe once a fold"""
    from lab.workers import start_importing

    start_importing()  # torch, elsewhere, while this process imports its own
    from lab.folds import cross_validate

    cross_validate(config, run_folder())


if __name__ == "__main__":
    run_command(cross_validate, "cross_validate")
