"""Train one recipe on one data set: python src/train.py model=deep data=mnist"""

import contextlib
from pathlib import Path

from omegaconf import DictConfig

from lab.cli.command import run_command
from lab.config.schema import run_folder


def train(config: DictConfig) -> None:
    """Train a network of the labs"""
    from pytorch_lightning.utilities import rank_zero_only

    from lab.training.train import resume, train  # torch takes seconds: --help and wrong options answer without it

    folder = run_folder()
    if config.resume:
        with contextlib.suppress(OSError):
            folder.rmdir()  # Hydra made a new one
        folder = Path(config.resume).expanduser()
        config = resume(folder)
    elif config.tune:
        from lab.training.tune import suggest_learning_rate

        suggest_learning_rate(config, folder)
        return
    else:
        train(config, folder)
    if config.report and rank_zero_only.rank == 0 and (folder / "result.json").exists():  # not of fast_dev_run
        from lab.report.report import write_report

        write_report(folder, config.lang or "en")


if __name__ == "__main__":
    run_command(train, "train")
