"""The networks are the labs': parameter counts, Keras' defaults, HOG; each YAML builds."""

import functools
import hashlib
import math
import threading
from copy import deepcopy
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from skimage.feature import hog as reference_hog
from torch import nn

import lab.models.layers
from lab import models
from lab.config.schema import CONF
from lab.datasets.augment import augment
from lab.errors import UserError
from lab.models.build import all_finite, build, count_parameters
from lab.models.layers import Hog
from lab.training import optimizers
from lab.training.prepare import make_optimizer

MNIST, LENET, CIFAR = (1, 28, 28), (1, 32, 32), (3, 32, 32)
# name: image shape, classes, total and trainable parameters as Keras' summary() counts them
COUNTS = {
    "baseline": (MNIST, 10, 542_230, 542_230),
    "batchnorm": (MNIST, 10, 542_758, 542_494),
    "deep": (MNIST, 10, 159_254, 159_254),
    "dropout": (MNIST, 10, 693_962, 693_962),
    "lenet5": (LENET, 10, 81_194, 81_194),
    "alexnet_224": (CIFAR, 4, 147_432_196, 147_429_444),
    "dense": (MNIST, 10, 328_810, 328_810),
    "conv": (MNIST, 10, 2_770_634, 2_770_634),
    "conv_pool": (MNIST, 10, 693_962, 693_962),
    "small_dense": (MNIST, 10, 104_938, 104_938),
    "small_conv": (MNIST, 10, 1_185_482, 1_185_482),
    "small_pool": (MNIST, 10, 57_034, 57_034),
    "small_batchnorm": (MNIST, 10, 57_770, 57_402),
    "sigmoid": (MNIST, 10, 407_050, 407_050),
    "sigmoid_dropout": (MNIST, 10, 407_050, 407_050),
    "sigmoid_deep": (MNIST, 10, 535_818, 535_818),
    "hog8": (MNIST, 10, 25_802, 25_802),
    "hog16": (MNIST, 10, 50_890, 50_890),
    "hog16_wide": (MNIST, 10, 101_770, 101_770),
    "conv2x2": (MNIST, 10, 410_538, 410_538),
    "conv2x2_wide": (MNIST, 10, 812_650, 812_650),
    "conv5x5": (MNIST, 10, 856_330, 856_330),
    "mlp20": (CIFAR, 4, 61_544, 61_544),
    "mlp_deep": (CIFAR, 4, 4_492_420, 4_492_420),
    "mlp_deep_dropout": (CIFAR, 4, 4_492_420, 4_492_420),
    "cnn": (CIFAR, 4, 28_612, 28_612),
    "cnn_augmented": (CIFAR, 4, 28_612, 28_612),
    "resnet50": (CIFAR, 4, 24_119_108, 557_956),
    "efficientnet_lite0": (CIFAR, 4, 3_418_148, 5_124),
    "efficientnet_lite4": (CIFAR, 4, 11_843_060, 5_124),
    "mobilenet_v3_small": (CIFAR, 4, 1_534_068, 4_100),
    "resnet18": (CIFAR, 4, 11_188_164, 2_052),
    "resnet50_timm": (CIFAR, 4, 23_569_348, 8_196),
    "pretrained": (CIFAR, 4, 11_188_164, 2_052),
}
# ours: conf/model has them, the labs have no count of them
OURS = {"alexnet": (CIFAR, 4), "pneumonia": (MNIST, 2), "fast99": (MNIST, 10), "best": (MNIST, 10)}


SGD, ADAM, RMSPROP = {"momentum": 0.9}, {"eps": 1e-7}, {"alpha": 0.9, "eps": 1e-7}
RAW, UNIT = 1, 255
# name: the lab's optimizer, learning rate, batch size, epochs (10 where D states none), pixels divided by
RECIPES = {
    **dict.fromkeys(("baseline", "batchnorm", "deep", "lenet5"), ("SGD", SGD, 0.01, 32, 10, UNIT)),
    **dict.fromkeys(("dense", "conv", "conv_pool", "dropout"), ("Adam", ADAM, 1e-4, 128, 20, RAW)),
    **dict.fromkeys(
        ("small_dense", "small_conv", "small_pool", "small_batchnorm"), ("Adam", ADAM, 1e-3, 512, 20, UNIT)
    ),
    "sigmoid": ("RMSprop", RMSPROP, 1e-3, 128, 10, UNIT),
    "sigmoid_dropout": ("RMSprop", RMSPROP, 1e-3, 32, 20, UNIT),
    "sigmoid_deep": ("RMSprop", RMSPROP, 1e-3, 128, 30, UNIT),
    "hog8": ("RMSprop", RMSPROP, 1e-3, 128, 50, UNIT),
    "hog16": ("RMSprop", RMSPROP, 1e-3, 128, 20, UNIT),
    "hog16_wide": ("RMSprop", RMSPROP, 1e-3, 256, 10, UNIT),
    "conv2x2": ("RMSprop", RMSPROP, 1e-3, 128, 3, UNIT),
    "conv2x2_wide": ("RMSprop", RMSPROP, 1e-3, 128, 3, UNIT),
    "conv5x5": ("RMSprop", RMSPROP, 1e-3, 128, 3, UNIT),
    "mlp20": ("Adam", ADAM, 1e-3, 100, 10, RAW),
    "mlp_deep": ("Adam", ADAM, 1e-3, 100, 22, RAW),
    "mlp_deep_dropout": ("Adam", ADAM, 1e-3, 100, 60, RAW),
    "cnn": ("Adam", ADAM, 1e-3, 100, 7, RAW),
    "cnn_augmented": ("Adam", ADAM, 1e-3, 100, 60, RAW),
    "resnet50": ("Adam", ADAM, 1e-3, 100, 15, UNIT),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_the_labs(name, recipe):
    model = recipe(name).model
    optimizer = dict(model.optimizer)
    kind, rate = optimizer.pop("_target_").rpartition(".")[2], optimizer.pop("lr")
    assert (kind, optimizer, rate, model.batch_size, model.epochs, model.scale) == RECIPES[name]


@pytest.mark.slow
def test_only_cnn_augmented_of_the_labs_recipes_changes_its_images(recipe):
    augments = {name: recipe(name).model.augment for name in RECIPES}
    changed = {name: {key: value for key, value in augment.items() if value} for name, augment in augments.items()}
    assert changed.pop("cnn_augmented") == {"rotation": 15, "shift": 0.1, "flip": True}
    assert not any(changed.values())


@pytest.fixture(scope="module")
def imagenet_weights(tmp_path_factory):
    from torchvision.models import resnet50

    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(resnet50().state_dict(), path)
    return path


@functools.cache
def composed(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [f"model={name}", *overrides], return_hydra_config=True)


@pytest.fixture
def recipe():
    """The composed conf/model/NAME.yaml as train.py gets it."""
    return lambda *words: deepcopy(composed(*words))


def make(recipe_config, shape, classes):
    from hydra.core.hydra_config import HydraConfig

    from lab.training.prepare import build_classifier

    HydraConfig.instance().set_config(recipe_config)
    return build_classifier(recipe_config, shape, classes)[0]


def test_the_table_names_every_recipe():
    assert COUNTS.keys() | OURS.keys() == {path.stem for path in (CONF / "model").glob("*.yaml")}


@pytest.mark.parametrize("name", ["baseline", "batchnorm", "deep", "cnn", "conv2x2", "small_pool", "alexnet", "best"])
def test_the_faster_order_and_layout_round_no_worse_than_the_layers_as_written(name):
    torch.manual_seed(1)
    net, _ = build(getattr(models, name)(10), CIFAR, 255, name)
    for layer in net.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    images = torch.randint(0, 256, (8, *CIFAR), dtype=torch.uint8)
    outcomes = []
    for copy, forward in (
        (deepcopy(net), nn.Module.__call__),
        (deepcopy(net), nn.Sequential.forward),
        (deepcopy(net).double(), nn.Sequential.forward),
    ):
        logits = forward(copy, images)
        logits.logsumexp(1).sum().backward()
        buffers = [buffer.clone() for buffer in copy.buffers() if buffer.is_floating_point()]
        with torch.no_grad():
            answers = forward(copy.eval(), images)
        outcomes.append([logits.detach(), answers, *buffers, *(parameter.grad for parameter in copy.parameters())])
    for ours, written, exact in zip(*outcomes, strict=True):
        assert (ours - exact).abs().max() <= 2 * (written - exact).abs().max() + 1e-6 * exact.abs().max()


class Negated(nn.ReLU):
    def forward(self, values):
        return -super().forward(values)


@pytest.mark.parametrize(
    "layers",
    [
        (nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        (nn.MaxPool2d(2), nn.ReLU(inplace=True)),
        (Negated(), nn.MaxPool2d(2)),
        (nn.MaxPool2d(2, dilation=2),),
        (nn.BatchNorm2d(16, affine=False),),
        *((nn.Conv2d(16, 16, 3, padding=1, padding_mode=mode),) for mode in ("reflect", "circular")),
    ],
)
def test_the_faster_order_and_layout_are_left_where_torchs_layers_have_other_options(layers):
    torch.manual_seed(1)
    net, _ = build(nn.Sequential(nn.Conv2d(1, 16, 3), *layers, nn.Flatten(), nn.LazyLinear(10)), MNIST, 255, "mine")
    images = torch.randint(0, 256, (8, *MNIST), dtype=torch.uint8)
    logits = net(images)
    logits.logsumexp(1).sum().backward()
    torch.testing.assert_close(logits, nn.Sequential.forward(net, images), atol=1e-5, rtol=1e-4)


def test_batch_normalisation_that_processes_synchronise_is_what_is_computed():
    net = nn.SyncBatchNorm.convert_sync_batchnorm(build(models.batchnorm(10), MNIST, 255, "batchnorm")[0])
    assert [type(layer).__name__ for layer in net.order].count("SyncBatchNorm") == 2


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_keras_counts_them(name, recipe):
    shape, classes, total, trainable = COUNTS[name]
    config = recipe(name, *(["model.net.name=resnet18"] if name == "pretrained" else []))
    if "weights" in config.model.net:
        config.model.net.weights = False
    with torch.device("meta"):  # weights without values
        net = make(config, shape, classes).net
    assert (count_parameters(net), count_parameters(net, trainable_only=True)) == (total, trainable)


def test_alexnet_224_with_a_thousand_classes_is_lab_a_printed_summary():
    with torch.device("meta"):
        net = models.alexnet_224(1000)
        net(torch.zeros(1, 3, 32, 32))
    assert (count_parameters(net), count_parameters(net, True)) == (151_512_808, 151_510_056)


@pytest.mark.parametrize("name", OURS)
def test_our_own_networks_turn_images_into_logits(name, recipe):
    shape, classes = OURS[name]
    net = make(recipe(name), shape, classes).net.eval()
    assert net(torch.zeros(2, *shape, dtype=torch.uint8)).shape == (2, classes)


def test_weights_are_drawn_as_keras_draws_them():
    net, _ = build(models.baseline(10), MNIST, 255, "baseline")
    conv, hidden, logits = (layer for layer in net if isinstance(layer, nn.Conv2d | nn.Linear))
    limits = [layer.weight.abs().max().item() for layer in (conv, hidden, logits)]
    he_of_9_inputs, he_of_5408_inputs, glorot_of_100_to_10 = (math.sqrt(6 / fan) for fan in (9, 5408, 110))
    assert limits == pytest.approx([he_of_9_inputs, he_of_5408_inputs, glorot_of_100_to_10], rel=0.05)
    assert not any(layer.bias.any() for layer in (conv, hidden, logits))


def test_batch_normalisation_and_optimizers_have_keras_constants(recipe):
    net = make(recipe("small_batchnorm"), MNIST, 10).net
    norms = [layer for layer in net if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)} and len(norms) == 4
    adam = make(recipe("dense"), MNIST, 10).configure_optimizers()
    assert type(adam) is optimizers.Adam and adam.defaults["eps"] == 1e-7 and adam.defaults["lr"] == 1e-4
    rms = make(recipe("sigmoid"), MNIST, 10).configure_optimizers()
    assert type(rms) is optimizers.RMSprop and (rms.defaults["alpha"], rms.defaults["eps"]) == (0.9, 1e-7)


def test_l2_has_the_gradient_of_keras_penalty():
    torch.manual_seed(0)
    net, _ = build(models.alexnet(4), CIFAR, 255, "alexnet")
    sgd = make_optimizer(OmegaConf.create({"_target_": "torch.optim.SGD", "lr": 1.0}), net)
    kernels = [layer.weight for layer in net if isinstance(layer, nn.Conv2d)]
    penalty = 5e-4 * sum((kernel**2).sum() for kernel in kernels[1:])  # the first kernel has none
    expected = [
        kernel - gradient
        for kernel, gradient in zip(kernels[1:], torch.autograd.grad(penalty, kernels[1:]), strict=True)
    ]
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    first = kernels[0].clone()
    sgd.step()
    assert torch.equal(kernels[0], first)
    for kernel, wanted in zip(kernels[1:], expected, strict=True):
        torch.testing.assert_close(kernel, wanted)


@pytest.mark.parametrize("orientations", [8, 16])
def test_hog_agrees_with_scikit_image(orientations):
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    ours = Hog(orientations)(images).permute(0, 2, 3, 1).flatten(1)  # skimage: cells first, then orientations
    for image, features in zip(images, ours, strict=True):
        wanted = reference_hog(image[0].double().numpy(), orientations, (4, 4), (1, 1))
        torch.testing.assert_close(features, torch.from_numpy(wanted).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["conv2x2", "hog8", "lenet5", "pneumonia", "small_pool"])
def test_a_network_takes_other_shapes_and_classes(name, recipe):
    net = make(recipe(name), (3, 40, 36), 7).net.eval()
    assert net(torch.randint(256, (2, 3, 40, 36), dtype=torch.uint8)).shape == (2, 7)


def test_weights_of_another_network_are_refused(recipe, tmp_path):
    torch.save({"net.1.weight": torch.zeros(3)}, tmp_path / "best.ckpt")
    with pytest.raises(UserError, match="not the weights of torchvision's ResNet50"):
        make(recipe("resnet50", f"weights={tmp_path / 'best.ckpt'}"), MNIST, 4)


def test_a_weight_that_is_no_number_is_found():
    net, _ = build(models.deep(10), MNIST, 255, "deep")
    assert all_finite(net)
    with torch.no_grad():
        net[1].weight[0, 0, 0, 0] = math.nan
    assert not all_finite(net)


def test_imagenets_weights_are_fetched_once_and_nothing_else_is_taken_for_them(
    recipe, imagenet_weights, tmp_path, monkeypatch
):
    served = functools.partial(SimpleHTTPRequestHandler, directory=imagenet_weights.parent)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/resnet50.pth"
        monkeypatch.setattr(lab.models.layers, "IMAGENET_WEIGHTS", url)
        with pytest.raises(UserError, match=r"weights cannot be fetched .* does not match"):
            make(recipe("resnet50"), MNIST, 4)
        known = hashlib.sha256(imagenet_weights.read_bytes()).hexdigest()
        monkeypatch.setattr(lab.models.layers, "IMAGENET_SHA256", known)
        lab.models.layers._download_weights()
        server.shutdown()
    make(recipe("resnet50"), MNIST, 4)
    assert [path.name for path in (tmp_path / "hub" / "checkpoints").iterdir()] == ["resnet50.pth"]


def test_images_too_small_are_refused_with_the_layer():
    with pytest.raises(UserError, match=r"model=deep: images of 1x6x6 .* layer 4, Conv2d, cannot take 32x2x2"):
        build(models.deep(10), (1, 6, 6), 255, "deep")


def test_the_frozen_backbone_stays_as_imagenet_left_it(recipe, imagenet_weights):
    net = make(recipe("resnet50", f"weights={imagenet_weights}"), MNIST, 4).net.train()
    before = {name: value.clone() for name, value in net[1].state_dict().items()}
    net(torch.randint(256, (4, *MNIST), dtype=torch.uint8)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in net[1].state_dict().items())
    assert not any(parameter.requires_grad for parameter in net[1].parameters())


def test_augmentation_without_any_change_is_the_identity():
    images = torch.randint(256, (5, 3, 9, 7), dtype=torch.uint8)
    torch.testing.assert_close(augment(images, 0, 0, False), images.float(), atol=1e-3, rtol=0)


def test_augmentation_flips_about_half_and_shifts_within_its_bounds():
    images = torch.zeros(400, 1, 10, 20, dtype=torch.uint8)
    images[..., 4] = 200
    columns = augment(images, 0, 0, True)[:, 0, 0].argmax(1)
    assert set(columns.tolist()) == {4, 15} and 150 < (columns == 4).sum() < 250
    shifted = augment(images, 0, 0.1, False)[:, 0, 5].argmax(1)
    assert shifted.min() == 2 and shifted.max() == 6  # a tenth of 20 columns either way


def test_augmentation_rotates_by_the_degrees_asked_for_and_keeps_the_shape_of_things():
    images = torch.zeros(300, 1, 41, 61, dtype=torch.uint8)
    images[:, :, 20, 35:56] = 255  # a ray from near the centre to the right
    turned = augment(images, 15, 0, False)[:, 0]
    rows, columns = torch.arange(41.0).view(1, 41, 1) - 20, torch.arange(61.0).view(1, 1, 61) - 30
    mass = turned.sum((1, 2))
    angles = torch.atan2((turned * rows).sum((1, 2)) / mass, (turned * columns).sum((1, 2)) / mass).rad2deg()
    assert 13 < angles.max() < 15.5 and -15.5 < angles.min() < -13
    reach = torch.hypot((turned * rows).sum((1, 2)) / mass, (turned * columns).sum((1, 2)) / mass)
    torch.testing.assert_close(reach, torch.full_like(reach, 15), atol=0.5, rtol=0)
