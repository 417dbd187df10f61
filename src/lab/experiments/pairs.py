"""Two settings compared in pairs of jobs: of the same seed or fold, and on the same validation images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lab.evaluation.significance import CONFIDENCE, Estimate, corrected_t, crossed_t, mcnemar
from lab.experiments.jobs import Job
from lab.runs.predictions import load_predictions


def estimate_lead(
    pairs: Sequence[tuple[Job, Job]], metric: str, held_out: float = 0.0, confidence: float = CONFIDENCE
) -> tuple[Estimate, int] | None:
    """By how much the first of each pair exceeds the second in `metric`, on the validation part; of how many images.

    Other runs and other images may be drawn: both count, where the jobs of all pairs have kept their answers for the
    same images. Else, or with `held_out` images for each that was trained on, the runs alone do, and the images are 0.
    None for a single pair without answers.
    """
    answers = _find_answers(pairs) if metric == "accuracy" and not held_out else []
    images = len(answers[0][0]) if answers else 0
    if len(pairs) == 1:
        return (mcnemar(*answers[0], confidence), images) if answers else None
    if images > 1:
        return crossed_t([ours.astype(float) - theirs for ours, theirs in answers], confidence), images
    scores = [[job.result()["validation"]["last"][metric] for job in pair] for pair in pairs]
    return (corrected_t([ours - theirs for ours, theirs in scores], held_out, confidence), 0) if pairs else None


def _find_answers(pairs: Sequence[tuple[Job, Job]]) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Which images each job of a pair answers right; [] where scores are of others, or an older version kept none."""
    right, known = [], set()
    for job in (job for pair in pairs for job in pair):
        if not (job.folder / "predictions_validation.npz").exists():
            return []
        predictions = load_predictions(job.folder, "predictions_validation.npz")
        known.add((str(predictions.sha256), job.result()["validation"]["last"]["images"]))
        right.append(predictions.correct())
    if len(known) != 1 or {float(len(each)) for each in right} != {images for _, images in known}:
        return []
    return list(zip(right[::2], right[1::2], strict=True))
