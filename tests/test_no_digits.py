"""A digit network says that it does not know what is no digit, and hardly ever of digits."""

import os
from pathlib import Path

import numpy as np
import pytest
from digit_photos import pictures
from no_digits import KINDS, strangers

import predict


def read_mnist(data, part):
    images = (data / "MNIST" / "raw" / f"{part}-images-idx3-ubyte").read_bytes()[16:]
    labels = (data / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte").read_bytes()[8:]
    return np.frombuffer(images, np.uint8).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8)


def ask(model, picture):
    """What predict.py answers; None where it refuses the picture."""
    size = model.metadata["input"]
    try:
        fitted, done = predict.fit(predict.unpack(picture, size), size, False)
    except predict.UserError:
        return None
    (one,) = model.answers([predict.pixels(fitted)])
    return predict.decide(one, predict.doubted(done), model.metadata)


def judge(path, data, part, each):
    """Of each kind the percentage that is answered unknown or refused; of photographed digits unknown, then right."""
    model = predict.load(str(path), "cpu", predict.read_metadata(str(path)))
    digits, labels = read_mnist(data, "t10k" if part else "train")
    photos, unknown = np.load(data / "CIFAR4_X.npy", mmap_mode="r", allow_pickle=False), dict.fromkeys(KINDS, 0)
    for kind, picture in strangers(digits, photos, each, part):
        answer = ask(model, picture)
        unknown[kind] += answer is None or answer["unknown"]
    told = [
        (answer["unknown"], str(digit) in answer["set"], answer["class"] == str(digit))
        for _, picture, digit in pictures(digits, labels, max(1, each // 10), 20 + part)
        if (answer := ask(model, picture))
    ]
    shares = {kind: 100 * count / each for kind, count in unknown.items()}
    names = ("photographed digits unknown", "their class in the set", "their likeliest class right")
    return shares | dict(zip(names, (100 * np.mean(told, 0)).tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.data
def test_most_of_what_is_no_digit_is_unknown_and_few_digits_are(here, tmp_path):
    data = Path(os.environ["LAB_DATA"]).resolve()
    here("train", "model=best", "model.epochs=2", f"data.root={data}", "hydra.run.dir=run")
    here("export", tmp_path / "run")
    found = judge(tmp_path / "run" / "model.ts", data, part=1, each=300)
    print(found)
    assert min(found[kind] for kind in KINDS) >= 65 and found["photographed digits unknown"] <= 6


if __name__ == "__main__":  # python tests/test_no_digits.py MODEL.TS PART EACH, with LAB_DATA
    import sys

    for what, share in judge(sys.argv[1], Path(os.environ["LAB_DATA"]), int(sys.argv[2]), int(sys.argv[3])).items():
        print(f"{what:30s} {share:6.1f} %")
