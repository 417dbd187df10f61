"""Lightning as its tutorials write it: tutorial.py RECIPE ARRAYS.npz EPOCHS training"""

import pytorch_lightning as pl
import torch
from plain import augmentation, build, make_optimizer
from recipes import read_arguments
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision import transforms


class Images(Dataset):
    def __init__(self, recipe, arrays):
        self.images, self.labels = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2), arrays["labels"]
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
        self.accuracy = MulticlassAccuracy(recipe["classes"])

    def training_step(self, batch, _):
        images, labels = batch
        logits = self.net(images)
        loss = nn.functional.cross_entropy(logits, labels)
        self.accuracy(logits, labels)
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_accuracy", self.accuracy, prog_bar=True)
        return loss

    def on_train_epoch_end(self):
        print(f"epoch {self.current_epoch + 1}", flush=True)

    def configure_optimizers(self):
        return make_optimizer(self.recipe, self)


def main(recipe, arrays, epochs, task):
    loader = DataLoader(Images(recipe, arrays), batch_size=recipe["batch"], shuffle=True)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=epochs, **quiet)
    trainer.fit(Model(recipe, next(iter(loader))[0]), loader)


if __name__ == "__main__":
    main(*read_arguments())
