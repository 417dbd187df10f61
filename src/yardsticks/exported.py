"""The project's answers, as a device gives them: exported.py MODEL.ts ARRAYS.npz PASSES"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[1]))
from predict import Model, read_metadata


def main(model, arrays, passes):
    with np.load(arrays, allow_pickle=False) as file:
        x = torch.from_numpy(file["images"]).permute(0, 3, 1, 2)
    model = Model(model, "cpu", read_metadata(model))
    for number in range(1, int(passes) + 1):
        for images in x.split(32):
            model.probabilities(images)
        print(f"pass {number}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
