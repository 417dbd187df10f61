"""Train one recipe on one data set: python src/train.py model=deep data=mnist"""

import contextlib
from pathlib import Path

from omegaconf import DictConfig

from lab.command import run_command
from lab.config import run_folder


def train(config: DictConfig) -> None:
    """Train a network of the labs"""
    if config.resume:
        from lab.fit import resume

        with contextlib.suppress(OSError):
            run_folder().rmdir()  # Hydra made a new one
        return resume(Path(config.resume))
    if config.tune:
        from lab.tune import suggest_learning_rate as task
    else:
        from lab.fit import fit as task  # torch takes seconds: --help and wrong options answer without it
    task(config, run_folder())


if __name__ == "__main__":
    run_command(train, "train")
