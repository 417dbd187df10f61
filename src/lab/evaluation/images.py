"""Whether images are those that predictions were made for."""

from pathlib import Path

from lab.datasets.dataset import Dataset
from lab.errors import UserError
from lab.runs.predictions import Predictions


def check_images(predictions: Predictions, dataset: Dataset, folder: Path, place: Path) -> None:
    """UserError where the images of `dataset`, read from `place`, are not those that the run of `folder` answered."""
    indices = predictions.indices
    known = not len(indices) or 0 <= indices.min() <= indices.max() < len(dataset.labels)
    if not known or dataset.fingerprint(indices) != str(predictions.sha256):
        raise UserError(f"{folder}: the images in {place} are not those that it was tested on")
