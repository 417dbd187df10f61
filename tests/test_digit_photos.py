"""Digits are read off squared paper, in a shadow, on a table; what is not one digit is doubted."""

import os
from pathlib import Path

import numpy as np
import pytest
from digit_photos import CONDITIONS, FONTS, OTHERS, pictures, printed
from test_predict import DIGIT

import predict

LIT = [name for name in CONDITIONS if name not in ("thin", "thick", "turned", "touching", "blurred")]


def fit(picture):
    fitted, done = predict.fit(predict.unpack(picture, DIGIT), DIGIT, False)
    return np.asarray(fitted, float), predict.doubted(done)


@pytest.mark.parametrize("condition", LIT)
def test_paper_and_light_hardly_change_what_the_network_is_shown(condition):
    ink, seven = (
        printed(7, FONTS[0], 280),
        fit(CONDITIONS["clean"](printed(7, FONTS[0], 280), np.random.default_rng(0))),
    )
    for seed in range(3):
        image, doubts = fit(CONDITIONS[condition](ink, np.random.default_rng([3, seed])))
        assert np.corrcoef(image.ravel(), seven[0].ravel())[0, 1] > 0.6, seed  # a shadow fades a part of it
        assert not doubts


def test_what_is_not_one_digit_is_doubted_or_refused():
    for name, draw in OTHERS.items():
        doubted = 0
        for seed in range(10):
            try:
                doubted += bool(fit(draw(np.random.default_rng([3, seed])))[1])
            except predict.UserError as error:
                doubted += "blank" in str(error)
        assert doubted >= 8, name


@pytest.mark.slow
@pytest.mark.data
def test_photographs_of_digits_are_read_in_any_light(here, tmp_path):
    """100 pictures of each condition, of strokes that the network was neither trained nor chosen on."""
    data = Path(os.environ["LAB_DATA"]).resolve()
    here("train", "model=best", "model.epochs=2", f"data.root={data}", "hydra.run.dir=run")
    here("export", tmp_path / "run")
    path = tmp_path / "run" / "model.ts"
    model = predict.load(str(path), "cpu", predict.read_metadata(path))
    images = np.frombuffer((data / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(-1, 28, 28)
    labels = np.frombuffer((data / "MNIST/raw/t10k-labels-idx1-ubyte").read_bytes()[8:], np.uint8)
    right, wrong, sure = dict.fromkeys(CONDITIONS, 0), 0, 0
    for name, picture, digit in pictures(images, labels, 100, 9):
        fitted, done = predict.fit(predict.unpack(picture, DIGIT), DIGIT, False)
        probabilities = model.probabilities([predict.pixels(fitted)])[0]
        if probabilities.index(max(probabilities)) == digit:
            right[name] += 1
        else:
            wrong += 1
            sure += max(probabilities) > 0.9 and not predict.doubted(done)
    print(right, f"{wrong} wrong, {sure} of them sure")
    assert min(right.values()) >= 88, right
    assert 3 * sure <= max(wrong, 9)
