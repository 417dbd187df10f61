"""PyTorch as an expert writes it, the same steps as in plain.py: tuned.py RECIPE ARRAYS.npz PASSES [inference]"""

import contextlib
import ctypes
import math

import torch
from plain import build, make_optimizer
from recipes import read_arguments
from torch.nn import functional as F


def keep_memory():
    """Let glibc give no memory back to the system between the steps."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(-4, 0)  # M_MMAP_MAX
        ctypes.CDLL(None).mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def scale(images, recipe):
    """uint8 [n, h, w, c] as the network takes it: float [n, c, h, w], channels last in memory."""
    images = images.permute(0, 3, 1, 2).float()
    return images.div_(recipe["scale"]) if recipe["scale"] != 1 else images


def augment(images):
    """Lab E's changes, another one for each image, all in one call."""
    angle, right, down = (torch.rand(3, len(images)) * 2 - 1).unbind()
    angle, mirror = angle * math.radians(15), torch.randint(0, 2, angle.shape) * 2 - 1
    cos, sin = angle.cos(), angle.sin()
    rows = [mirror * cos, -sin, right * 0.2, mirror * sin, cos, down * 0.2]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), images.shape, align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def train(recipe, net, x, y, epochs):
    optimizer = make_optimizer(recipe, net, fused=True)
    for epoch in range(1, epochs + 1):
        loss_sum, correct = torch.zeros(()), torch.zeros(())
        for chosen in torch.randperm(len(x)).split(recipe["batch"]):
            images, labels = scale(x[chosen], recipe), y[chosen]
            if recipe.get("augment"):
                images = augment(images)
            logits = net(images)
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad(set_to_none=False)  # a little quicker here
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(labels)
            correct += (logits.argmax(1) == labels).sum()
        print(f"epoch {epoch}: loss {loss_sum / len(x):.4f}, accuracy {correct / len(x):.2%}", flush=True)


def answer(recipe, net, x, passes):
    net.eval()
    with torch.inference_mode():
        for number in range(1, passes + 1):
            for images in x.split(32):
                net(scale(images, recipe)).softmax(1)
            print(f"pass {number}", flush=True)


def main(recipe, arrays, passes, task="training"):
    if any(word.startswith("conv") for word in recipe["layers"]):  # dense is quicker without
        keep_memory()
    torch.set_flush_denormal(True)
    x, y = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    net = build(recipe, scale(x[:1], recipe)).to(memory_format=torch.channels_last)
    if task == "inference":
        return answer(recipe, net, x, passes)
    train(recipe, net, x, y, passes)


if __name__ == "__main__":
    main(*read_arguments())
