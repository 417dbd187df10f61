"""MNIST with labels changed on purpose, and how many of them were found.

wrong_labels.py make MNIST OUT SHARE SEED [4 9]     a copy of a folder with MNIST/raw; OUT/changed.csv tells the truth
wrong_labels.py judge OUT FOLDS                     of FOLDS/suspects.csv; FOLDS/corrections.csv as a careful reader's
wrong_labels.py price CLEAN NOISY CORRECTED OUT     what the noise cost and the corrections bought, on true labels
"""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np

RAW, LABELS = Path("MNIST") / "raw", "train-labels-idx1-ubyte"
HEAD = 8  # bytes before an IDX file's labels
CLASSES = 10
DRAWS = 10_000  # of the bootstrap


def make(root, out, share, seed, *pair):
    """Change a share of the training labels: at random to any other class, or between the two of `pair`."""
    raw, out = Path(root) / RAW, Path(out)
    (out / RAW).mkdir(parents=True)
    for path in raw.glob("*-ubyte"):
        shutil.copyfile(path, out / RAW / path.name)
    content = (raw / LABELS).read_bytes()
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


def price(clean, noisy, corrected, out):
    """Accuracy on the images held out, all by the true labels; intervals by bootstrap of the images, 95 %."""
    right = [read_right(folds, read_truth(out)) for folds in (clean, noisy, corrected)]
    for name, one in zip(("clean", "noisy", "corrected"), right, strict=True):
        print(f"{name}: {one.mean():.3%} of {len(one)} images")
    cost, bought = (one.astype(int) - right[1] for one in (right[0], right[2]))
    # each pair of differences by how often it is drawn: 9 numbers a draw in place of 60,000
    pairs, counts = np.unique(np.stack([cost, bought]), axis=1, return_counts=True)
    draws = np.random.default_rng(1).multinomial(len(cost), counts / len(cost), DRAWS) @ pairs.T / len(cost)
    for name, one, drawn in (("the noise cost", cost, draws[:, 0]), ("correcting bought", bought, draws[:, 1])):
        print(f"{name} {one.mean() * 100:.3f} points ({' to '.join(f'{x * 100:.3f}' for x in quantiles(drawn))})")
    shares = quantiles(draws[:, 1] / draws[:, 0])
    print(f"bought back: {bought.mean() / cost.mean():.0%} ({' to '.join(f'{share:.0%}' for share in shares)})")


def quantiles(drawn):
    return np.quantile(drawn, [0.025, 0.975])


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
