"""Whether images are those that predictions were made for."""

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig

from lab.config.schema import data_folder, place_data
from lab.datasets.dataset import Dataset, load
from lab.errors import UserError
from lab.runs.predictions import Predictions


def load_answered(config: DictConfig, root: Path | None, answers: Iterable[tuple[Path, Predictions]]) -> Dataset:
    """The data set of `config`, in `root`, else where it lay. UserError where the run of a folder answered others."""
    place_data(config, root)
    dataset = load(config.data, untrusted=True)
    for folder, predictions in answers:
        check_images(predictions, dataset, folder, config)
    return dataset


def check_images(predictions: Predictions, dataset: Dataset, folder: Path, config: DictConfig) -> None:
    """UserError where the images of `dataset`, of `config`, are not those that the run of `folder` answered."""
    indices = predictions.indices
    known = not len(indices) or 0 <= indices.min() <= indices.max() < len(dataset.labels)
    if not known or dataset.fingerprint(indices) != str(predictions.sha256):
        place = data_folder(config.data.root)
        raise UserError(f"{folder}: the images in {place} are not those that it was tested on")
