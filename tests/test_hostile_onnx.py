"""ONNX files that are damaged, or want more than a network does: refused in a line, before any runtime sees them."""

import random
from pathlib import Path

import onnx
import pytest
from test_predict import onnx_model, say  # noqa: F401

import predict

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


EDITS = (want_a_file, loop, branch, foreign, function, wordless)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_what_is_more_than_a_network_is_not_opened(edit, onnx_model, say, tmp_path):  # noqa: F811
    _, told, code = say(change(onnx_model, tmp_path, edit), "selftest")
    assert code == 1 and told.count("\n") == 1 and told.startswith("error: ")


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
