"""Train and score a recipe once a fold: python src/cross_validate.py model=baseline data=mnist"""

from omegaconf import DictConfig

from lab.cli.command import run_command
from lab.config.schema import run_folder


def cross_validate(config: DictConfig) -> None:
    """Train and score a recipe once a fold"""
    from lab.experiments.processes import count_workers, start_fork_server

    if (config.workers or count_workers(config.data.folds)) > 1:
        start_fork_server(threads=1)  # which imports torch while this process reads the data
    from lab.experiments.cross_validate import cross_validate  # matplotlib and scipy: --help answers without them

    cross_validate(config, run_folder())
    if config.report:
        from lab.report.report import write_report

        write_report(run_folder(), config.lang or "en")


if __name__ == "__main__":
    run_command(cross_validate, "cross_validate")
