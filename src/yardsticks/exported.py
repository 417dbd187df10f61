"""The project's answers, as a device gives them: exported.py MODEL.ts ARRAYS.npz PASSES"""

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from predict import load, read_metadata


def main(model, arrays, passes):
    with np.load(arrays, allow_pickle=False) as file:
        images = [image.tobytes() for image in file["images"].transpose(0, 3, 1, 2)]
    model = load(model, "cpu", read_metadata(model))
    for number in range(1, int(passes) + 1):
        for place in range(0, len(images), 32):
            model.probabilities(images[place : place + 32])
        print(f"pass {number}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
