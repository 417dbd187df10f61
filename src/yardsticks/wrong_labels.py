"""MNIST with labels changed on purpose, and how many of them were found.

wrong_labels.py make MNIST OUT SHARE SEED [4 9]     a copy of a folder with MNIST/raw; OUT/changed.csv tells the truth
wrong_labels.py judge OUT FOLDS                     of FOLDS/suspects.csv; FOLDS/corrections.csv as a careful reader's
wrong_labels.py price OUT CLEAN NOISY CORRECTED ... what the noise cost, what correcting bought back; three a seed
"""

import csv
import gzip
import sys
from pathlib import Path

import numpy as np

RAW, LABELS = Path("MNIST") / "raw", "train-labels-idx1-ubyte"
HEAD = 8  # bytes before an IDX file's labels
CLASSES = 10
DRAWS = 2_000  # of the bootstrap


def make(root, out, share, seed, *pair):
    """Change a share of the training labels: at random to any other class, or between the two of `pair`."""
    raw, out = Path(root) / RAW, Path(out)
    (out / RAW).mkdir(parents=True)
    for path in [*raw.glob("*-ubyte.gz"), *raw.glob("*-ubyte")]:  # as they were downloaded, or unpacked
        unpack = gzip.decompress if path.suffix == ".gz" else bytes
        (out / RAW / path.name.removesuffix(".gz")).write_bytes(unpack(path.read_bytes()))
    content = (out / RAW / LABELS).read_bytes()
    labels, random = np.frombuffer(content, np.uint8, offset=HEAD).copy(), np.random.default_rng(int(seed))
    chosen = np.flatnonzero(np.isin(labels, [int(one) for one in pair])) if pair else np.arange(len(labels))
    chosen = np.sort(random.choice(chosen, round(float(share) * len(labels)), replace=False))
    true = labels[chosen]
    if pair:
        labels[chosen] = sum(map(int, pair)) - true
    else:
        labels[chosen] = (true + random.integers(1, CLASSES, len(chosen))) % CLASSES
    (out / RAW / LABELS).write_bytes(content[:HEAD] + labels.tobytes())
    with (out / "changed.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "true", "label"])
        writer.writerows(zip(chosen.tolist(), true.tolist(), labels[chosen].tolist(), strict=True))
    print(f"{len(chosen)} of {len(labels)} labels changed")


def judge(out, folds):
    """Of the changed labels, how many are suspects; of the suspects, how many are innocent."""
    true = read_truth(out)
    with (Path(folds) / "suspects.csv").open(newline="") as file:
        suspects = list(csv.DictReader(file))
    found = [row for row in suspects if int(row["image"]) in true]
    named = sum(row["suggested"] == str(true[int(row["image"])]) for row in found)
    print(f"{len(found)} of {len(true)} changed labels are suspects: {len(found) / len(true):.1%}")
    innocent = len(suspects) - len(found)
    print(f"{innocent} of {len(suspects)} suspects are innocent: {innocent / len(suspects):.1%}")
    print(f"{named} of the {len(found)} found have the true class suggested: {named / len(found):.1%}")
    with (Path(folds) / "corrections.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fingerprint", "class"])
        writer.writerows([row["fingerprint"], true[int(row["image"])]] for row in found)


def price(out, *folds):
    """Accuracy on the images held out, all by the true labels; 95 % intervals by bootstrap of seeds and images."""
    true = read_truth(out)
    clean, noisy, corrected = (np.stack([read_right(one, true) for one in folds[kind::3]]) for kind in range(3))
    for name, one in (("clean", clean), ("noisy", noisy), ("corrected", corrected)):
        print(f"{name}: {one.mean():.3%} of {one.shape[1]} images, mean of {len(one)} seeds")
    differences = 100 * (np.stack([clean, corrected]).astype(np.float32) - noisy)  # [2, seeds, images], in points
    (cost, bought), draws = differences.mean((1, 2)), draw(differences)
    (low, high), (least, most) = np.quantile(draws, [0.025, 0.975], axis=0).T
    told = f"The noise cost {cost:.3f} points ({low:.3f} to {high:.3f}); correcting bought {bought:.3f} "
    told += f"({least:.3f} to {most:.3f})"
    if low > 0:
        share = np.quantile(draws[:, 1] / draws[:, 0], [0.025, 0.975])
        print(f"{told}: {bought / cost:.0%} of it ({share[0]:.0%} to {share[1]:.0%}).")
    else:
        print(f"{told}. The cost may be nothing: what share of it came back cannot be told.")


def draw(differences):
    """[DRAWS, 2], the means of `differences` [2, seeds, images] over seeds and images that are drawn anew."""
    random, (_, seeds, images) = np.random.default_rng(1), differences.shape
    means = []
    for _ in range(DRAWS):
        some = differences[:, random.integers(seeds, size=seeds)].mean(1)
        means.append(some[:, random.integers(images, size=images)].mean(1))
    return np.stack(means)


def read_truth(out):
    """{image: its true class}, of those that were changed."""
    with (Path(out) / "changed.csv").open(newline="") as file:
        return {int(row["image"]): int(row["true"]) for row in csv.DictReader(file)}


def read_right(folds, true):
    """[n] in the data set's order: whether the network that had not seen the image says its true class."""
    right = {}
    for path in sorted(Path(folds).glob("fold_*/predictions.npz")):
        with np.load(path, allow_pickle=False) as file:
            images, answers, labels = file["indices"], file["logits"].argmax(1), file["labels"]
        for image, answer, label in zip(images.tolist(), answers.tolist(), labels.tolist(), strict=True):
            right[image] = answer == true.get(image, label)
    return np.array([right[image] for image in sorted(right)])


if __name__ == "__main__":
    {"make": make, "judge": judge, "price": price}[sys.argv[1]](*sys.argv[2:])
