"""Lightning as its tutorials write it: tutorial.py RECIPE DATA_FOLDER STEPS prints images/s of as many steps, warm."""

import sys
import time

import pytorch_lightning as pl
import torch
from plain import augmentation, build, make_optimizer
from recipes import RECIPES, classes, load
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision import transforms


class Images(Dataset):
    def __init__(self, images, labels, recipe):
        self.images, self.labels = torch.from_numpy(images).permute(0, 3, 1, 2), labels
        changes = [augmentation()] if recipe.get("augment") else []
        scale = transforms.Lambda(lambda image: image * (255 / recipe["scale"]))
        self.transform = transforms.Compose([*changes, transforms.ToPILImage(), transforms.ToTensor(), scale])

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(self.images[index]), int(self.labels[index])


class Model(pl.LightningModule):
    def __init__(self, recipe, images):
        super().__init__()
        self.recipe, self.net = recipe, build(recipe, images)
        self.accuracy = MulticlassAccuracy(classes(recipe))

    def training_step(self, batch, _):
        images, labels = batch
        logits = self.net(images)
        loss = nn.functional.cross_entropy(logits, labels)
        self.accuracy(logits, labels)
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_accuracy", self.accuracy, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return make_optimizer(self.recipe, self)


class Clock(pl.Callback):
    def on_train_epoch_start(self, trainer, module):
        self.started = time.perf_counter()

    def on_train_batch_end(self, *_):
        self.seconds = time.perf_counter() - self.started


def main(name, root, steps):
    recipe, clock = RECIPES[name], Clock()
    data = Images(*load(recipe, root), recipe)
    loader = DataLoader(data, batch_size=recipe["batch"], shuffle=True)
    quiet = {"logger": False, "enable_checkpointing": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=2, limit_train_batches=steps, callbacks=[clock], **quiet)
    trainer.fit(Model(recipe, next(iter(loader))[0]), loader)
    print(steps * recipe["batch"] / clock.seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
