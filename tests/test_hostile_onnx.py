"""ONNX files that are damaged, or want more than a network does: refused in a line, before any runtime sees them."""

import random
import resource
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from test_predict import onnx_model, say  # noqa: F401

import predict
from lab.export.formats import Deployed, write_onnx
from lab.models.build import build

UNHARMED = 0  # what a damaged byte may leave: a file that is still one


def change(path, tmp_path, edit):
    """A copy of the file at `path` whose model `edit` has changed."""
    model = onnx.load(path, load_external_data=False)
    edit(model)
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(model.SerializeToString())
    return changed


def want_a_file(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def loop(model):
    model.graph.node[0].op_type = "Loop"


def branch(model):
    inner = onnx.helper.make_graph([], "inner", [], [])
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("then_branch", inner))


def foreign(model):
    model.graph.node[0].domain = "com.example"


def function(model):
    model.functions.add(name="f", domain="ours")


def wordless(model):
    model.ClearField("metadata_props")


def number_for_a_word(model):
    """A node's operator as a number: so many bytes would be made of it, were it taken for a word."""
    node = b"\x20" + b"\xff" * 5 + b"\x7f"
    model.graph.MergeFromString(bytes([0x0A, len(node)]) + node)


EDITS = (want_a_file, loop, branch, foreign, function, wordless, number_for_a_word)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_what_is_more_than_a_network_is_not_opened(edit, onnx_model, say, tmp_path):  # noqa: F811
    _, told, code = say(change(onnx_model, tmp_path, edit), "selftest")
    assert code == 1 and told.count("\n") == 1 and told.startswith("error: ")


def test_a_graph_that_only_a_runtime_would_see_is_not_opened(onnx_model, say, tmp_path):  # noqa: F811
    model = onnx.load(onnx_model)
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    size = bytes([len(graph) & 127 | 128, len(graph) >> 7 & 127 | 128, len(graph) >> 14])
    key = b"\xba\x80\x80\x80\x10"  # field 7, and beyond the 32 bits that runtimes read of it
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString() + key + size + graph)
    _, told, code = say(tmp_path / "model.onnx", "selftest")
    assert code == 1 and told.count("\n") == 1 and "it is no ONNX file" in told
    (tmp_path / "model.onnx").write_bytes(b"")
    assert "empty" in say(tmp_path / "model.onnx", "info")[1]


def add(model, operator, *inputs, **attributes):
    """A node in front of the others, its constant inputs before it; what comes out is called like the operator."""
    names = []
    for place, value in enumerate(inputs):
        if isinstance(value, str):
            names.append(value)
            continue
        names.append(f"{operator}{place}")
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), names[-1]))
    model.graph.node.append(onnx.helper.make_node(operator, names, [operator], **attributes))


def chain(model):
    """2 to the power of 32, of small numbers."""
    add(model, "Mul", [2], [2])
    for number in range(30):
        model.graph.node.append(onnx.helper.make_node("Mul", [f"Mul{number or ''}", "Mul0"], [f"Mul{number + 1}"]))
    add(model, "ConstantOfShape", "Mul30")


GREEDY = {
    "Pad": lambda model: add(model, "Pad", "images", [0, 0, 9999, 9999] * 2),
    "Pad of a picture's own values": lambda model: add(model, "Pad", "images", "images"),
    "Resize by sizes": lambda model: add(model, "Resize", "images", "", "", [1, 1, 100_000, 100_000]),
    "Resize by scales": lambda model: add(model, "Resize", "images", "", np.float32([1, 1, 5000, 5000])),
    "Resize by no number": lambda model: add(model, "Resize", "images", "", np.float32([1, 1, np.nan, 1])),
    "Expand": lambda model: add(model, "Expand", "images", [100_000, 1, 280, 280]),
    "Tile": lambda model: add(model, "Tile", "images", [1, 1, 3000, 3000]),
    "ConstantOfShape": lambda model: add(model, "ConstantOfShape", [60_000, 60_000]),
    "ConstantOfShape of a product": chain,
    "Tile of what is told many times": lambda model: [
        add(model, "Gather", [2048], [0, 0, 0, 0]),
        add(model, "Tile", "images", "Gather"),
    ],
    "Expand to what is told of many": lambda model: [
        add(model, "ConstantOfShape", [4], value=onnx.numpy_helper.from_array(np.int64([1]))),
        add(model, "Mul", "ConstantOfShape", [2048]),
        add(model, "Expand", "images", "Mul"),
    ],
    "Tile of a table": lambda model: [
        add(model, "Add", [[1500], [1500]], [[0, 0]]),
        add(model, "Tile", "images", "Add"),
    ],
    "Tile of a Constant's own numbers": lambda model: [
        add(model, "Constant", value_ints=[1, 1, 3000, 3000]),
        add(model, "Tile", "images", "Constant"),
    ],
    "ConvTranspose by dilations": lambda model: add(model, "ConvTranspose", "images", "images", dilations=[5000, 5000]),
    "Expand to one side many times": lambda model: [
        add(model, "Shape", "images"),
        add(model, "Gather", "Shape", [3] * 8),
        add(model, "Expand", "images", "Gather"),
    ],
    "Expand to one side in many words": lambda model: [
        add(model, "Shape", "images"),
        add(model, "Cast", [True, 2, 3, 4], to=onnx.TensorProto.BOOL),
        add(model, "Gather", "Shape", "Cast"),
        add(model, "Expand", "images", "Gather"),
    ],
    "Expand to one side beside itself": lambda model: [
        add(model, "Shape", "images"),
        add(model, "Gather", "Shape", 3),
        add(model, "Add", "Gather", [0] * 8),
        add(model, "Expand", "images", "Add"),
    ],
    "ConstantOfShape of two shapes": lambda model: [
        add(model, "Shape", "images"),
        add(model, "Concat", "Shape", "Shape", axis=0),
        add(model, "ConstantOfShape", "Concat"),
    ],
    "ConvTranspose": lambda model: add(model, "ConvTranspose", "images", "images", strides=[5000, 5000]),
    "Conv": lambda model: add(model, "Conv", "images", "images", pads=[9999] * 4),
    "AveragePool": lambda model: add(model, "AveragePool", "images", kernel_shape=[9, 9], pads=[2**40, 0, 0, 0]),
    "Range": lambda model: add(model, "Range", 0, 2**40, 1),
}


@pytest.mark.parametrize("name", GREEDY)
def test_what_makes_gigabytes_of_a_picture_is_not_opened(name, onnx_model, say, tmp_path):  # noqa: F811
    _, told, code = say(change(onnx_model, tmp_path, GREEDY[name]), "info")
    operator = name.partition(" ")[0]
    assert code == 1 and told.count("\n") == 1 and "not opened: it" in told and operator in told


def test_what_many_operators_make_together_is_no_more_than_is_free(onnx_model, say, tmp_path, monkeypatch):  # noqa: F811
    def double(model):
        (last,) = (node for node in model.graph.node if "probabilities" in node.output)
        last.output[:] = ["twice0"]
        for number in range(28):
            names = [f"twice{number}"] * 2, [f"twice{number + 1}"]
            model.graph.node.append(onnx.helper.make_node("Concat", *names, axis=1))
        model.graph.node.append(onnx.helper.make_node("ReduceMax", ["twice28"], ["probabilities"], axes=[1]))

    limit = predict.memory_limit
    monkeypatch.setattr(predict, "memory_limit", lambda: limit() and min(limit(), 6 * 10**8 + addresses()))
    _, told, code = say(change(onnx_model, tmp_path, double), "selftest")
    assert code == 1 and told.count("\n") == 1 and "cannot run it" in told


def addresses():
    """Bytes that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Token(torch.nn.Module):
    """What a transformer for images begins with: one more row for each image, whose number is computed."""

    def __init__(self):
        super().__init__()
        self.token = torch.nn.Parameter(torch.zeros(1, 1, 192))

    def forward(self, images):
        return self.token.expand(len(images), -1, -1).flatten(1)


def test_what_networks_ask_for_is_opened(onnx_model, say, tmp_path):  # noqa: F811
    def edit(model):
        add(model, "Pad", "images", [0, 0, 2, 2] * 2)
        add(model, "Shape", "images")
        add(model, "Slice", "Shape", [0], [2])
        add(model, "Gather", "Shape", [2, 3])
        add(model, "Mul", "Gather", [8, 8])
        add(model, "Concat", "Slice", "Mul", axis=0)
        add(model, "Resize", "images", "", "", "Concat")

    assert say(change(onnx_model, tmp_path, edit), "info")[2] == 0
    net, _ = build(torch.nn.Sequential(Token(), torch.nn.LazyLinear(3)), (1, 8, 8), 255, "mine")
    write_onnx(Deployed(net).eval(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), {"model": "mine"}, tmp_path / "a.onnx")
    assert "Expand" in {node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node}


@pytest.mark.parametrize("count", [60, pytest.param(2_000, marks=pytest.mark.slow)])
def test_a_damaged_file_is_one_line(count, onnx_model, say, tmp_path):  # noqa: F811
    chance, whole = random.Random(count), Path(onnx_model).read_bytes()
    path, refused = tmp_path / "damaged.onnx", 0
    for number in range(count):
        content = bytearray(whole)
        if number % 3 == 0:
            del content[chance.randrange(len(content)) :]
        elif number % 3 == 1:
            for _ in range(chance.randrange(1, 30)):
                content[chance.randrange(len(content))] = chance.randrange(256)
        else:  # lengths and kinds stand at the front
            content[chance.randrange(min(400, len(content)))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        _, told, code = say(path, "info")
        assert code in (UNHARMED, 1), told
        if code:
            refused += 1
            assert told.count("\n") == 1 and told.startswith("error: "), (number, told)
    assert refused > count / 3
    assert predict.main([onnx_model, "info"]) == 0
