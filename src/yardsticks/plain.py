"""PyTorch as a student writes it: plain.py RECIPE ARRAYS.npz PASSES [inference]"""

import torch
from recipes import read_arguments
from torch import nn
from torchvision import transforms


def build(recipe, images):
    """The network for images [n, c, h, w]; the same in tuned.py and tutorial.py."""
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
    net = nn.Sequential(*layers, nn.LazyLinear(recipe["classes"]))
    net(images)
    return net


def make_optimizer(recipe, net, **more):
    name, rate = recipe["optimizer"]
    if name == "sgd":
        return torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, **more)
    return torch.optim.Adam(net.parameters(), lr=rate, eps=1e-7, **more)


def augmentation():
    """Lab E's, an image at a time."""
    changes = transforms.RandomAffine(15, translate=(0.1, 0.1)), transforms.RandomHorizontalFlip()
    return transforms.Compose([transforms.ToPILImage(), *changes, transforms.PILToTensor()])


def train(recipe, net, x, y, epochs):
    optimizer = make_optimizer(recipe, net)
    augment = augmentation() if recipe.get("augment") else None
    for epoch in range(1, epochs + 1):
        loss_sum, correct = 0.0, 0
        for chosen in torch.randperm(len(x)).split(recipe["batch"]):
            images, labels = x[chosen], y[chosen]
            if augment:
                images = torch.stack([augment(image.to(torch.uint8)) for image in images]).float()
            optimizer.zero_grad()
            logits = net(images)
            loss = nn.functional.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(labels)
            correct += (logits.argmax(1) == labels).sum().item()
        print(f"epoch {epoch}: loss {loss_sum / len(x):.4f}, accuracy {correct / len(x):.2%}", flush=True)


def answer(net, x, passes):
    net.eval()
    with torch.no_grad():
        for number in range(1, passes + 1):
            for images in x.split(32):
                net(images).softmax(1)
            print(f"pass {number}", flush=True)


def main(recipe, arrays, passes, task="training"):
    x = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).float().contiguous() / recipe["scale"]
    net = build(recipe, x[:1])
    if task == "inference":
        return answer(net, x, passes)
    train(recipe, net, x, torch.from_numpy(arrays["labels"]), passes)


if __name__ == "__main__":
    main(*read_arguments())
