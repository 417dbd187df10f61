"""Every figure that the labs published, measured again: python src/reproduce.py [rows=[A1,D4]] [seeds=3] [ladder]"""

import sys

from omegaconf import DictConfig

from lab.cli.command import run_command
from lab.config.schema import run_folder


def reproduce(config: DictConfig) -> None:
    """Measure the labs' published figures again"""
    from lab.experiments.reproduce import reproduce

    reproduce(config, run_folder())


if __name__ == "__main__":
    sys.argv = [f"table={word}" if word in ("ladder", "ladder_photos") else word for word in sys.argv]
    run_command(reproduce, "reproduce")
