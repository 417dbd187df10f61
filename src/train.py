"""Train one recipe on one data set: python src/train.py model=deep data=mnist"""

import contextlib
from pathlib import Path

from omegaconf import DictConfig

from lab.cli.command import run_command
from lab.config.schema import run_folder


def train(config: DictConfig) -> None:
    """Train a network of the labs"""
    from lab.training.train import resume, train  # torch takes seconds: --help and wrong options answer without it

    if config.resume:
        with contextlib.suppress(OSError):
            run_folder().rmdir()  # Hydra made a new one
        resume(Path(config.resume))
    elif config.tune:
        from lab.training.tune import suggest_learning_rate

        suggest_learning_rate(config, run_folder())
    else:
        train(config, run_folder())


if __name__ == "__main__":
    run_command(train, "train")
