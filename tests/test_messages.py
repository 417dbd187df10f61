"""What is typed wrongly is answered with what to type."""

import pytest
from conftest import SMALL_MNIST

from lab.config.overrides import nearest


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model.optimizer.lr=0,01"], "with -m; one is typed model.optimizer.lr=0.01"),
        (["data.root=/tmp/été"], "such letters need quotes: \"data.root='/tmp/été'\""),
        (
            ["data.root=/tmp/my", "pictures"],
            "pictures: is no KEY=VALUE; with a space in it, 'data.root=/tmp/my pictures'",
        ),
        (["data=/tmp"], "a folder of pictures: data=folder data.root=/tmp"),
        (["trainer.fast_dev_runs=true"], "there is no such key (see --help)"),
        (["model.net.pool=2"], "(+model.net.pool=VALUE adds an option)"),
        (["trainer.callbacks=[my.Callback]"], "must be a list, [{_target_: my.Callback}]"),
    ],
)
def test_a_refusal_says_what_to_type(refused, words, told):
    assert told in refused(*words)


def test_a_key_is_suggested_where_its_own_name_is_near():
    known = ["model.optimizer.eps", "model.optimizer.lr", "weights", "model.epochs"]
    assert nearest("model.optimizer.momentum", known) == nearest("model.class_weights", known) == ""
    assert nearest("model.epoch", known) == "; did you mean 'model.epochs'?"


def test_options_of_lightnings_need_no_plus(train_here):
    told = train_here(*SMALL_MNIST, "model=mlp20", "trainer.fast_dev_run=true").out
    assert "ran through" in told
