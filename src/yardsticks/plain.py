"""A bare PyTorch loop, written plainly: plain.py RECIPE DATA_FOLDER STEPS prints images/s of as many steps, warm.

With the word inference at the end: of answers, in batches of 32.
"""

import sys
import time

import torch
from recipes import RECIPES, classes, load
from torch import nn
from torchvision import transforms


def build(recipe, images):
    """The network for images [n, c, h, w]; the same in tutorial.py."""
    layers = []
    for word in recipe["layers"]:
        kind, _, units = word.partition(" ")
        if kind == "conv":
            layers += [nn.LazyConv2d(int(units), 3), nn.ReLU()]
        elif kind == "pool":
            layers.append(nn.MaxPool2d(2))
        elif kind == "flatten":
            layers.append(nn.Flatten())
        else:
            layers += [nn.LazyLinear(int(units)), nn.ReLU()]
    net = nn.Sequential(*layers, nn.LazyLinear(classes(recipe)))
    net(images)
    return net


def augmentation():
    """Lab E's, an image at a time."""
    changes = transforms.RandomAffine(15, translate=(0.1, 0.1)), transforms.RandomHorizontalFlip()
    return transforms.Compose([transforms.ToPILImage(), *changes, transforms.PILToTensor()])


def make_optimizer(recipe, net):
    name, rate = recipe["optimizer"]
    if name == "sgd":
        return torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    return torch.optim.Adam(net.parameters(), lr=rate, eps=1e-7)


def infer(net, x, steps):
    net.eval()
    with torch.no_grad():
        for _ in ("warm up", "measure"):
            started = time.perf_counter()
            for _ in range(steps):
                net(x).softmax(1)
    print(steps * 32 / (time.perf_counter() - started))


def main(name, root, steps, task="training"):
    recipe = RECIPES[name]
    images, labels = load(recipe, root)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous() / recipe["scale"]
    y = torch.from_numpy(labels)
    net = build(recipe, x[:1])
    if task == "inference":
        return infer(net, x[:32], steps)
    optimizer = make_optimizer(recipe, net)
    augment = augmentation() if recipe.get("augment") else None
    for _ in ("warm up", "measure"):
        order, total, seen, started = torch.randperm(len(x)), 0.0, 0, time.perf_counter()
        for step in range(steps):
            chosen = order[step * recipe["batch"] : (step + 1) * recipe["batch"]]
            batch = x[chosen]
            if augment:
                batch = torch.stack([augment(image.to(torch.uint8)) for image in batch]).float()
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(batch), y[chosen])
            loss.backward()
            optimizer.step()
            total, seen = total + loss.item(), seen + len(chosen)
        seconds = time.perf_counter() - started
    print(seen / seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
