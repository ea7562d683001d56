"""One rule file makes the same network of a PyTorch model and of a Keras model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

keras = pytest.importorskip("keras")

from benchmarks import both_frameworks  # noqa: E402
from benchmarks.both_frameworks import (  # noqa: E402
    CLOSE,
    IN_PYTORCH,
    Pair,
    around,
    build,
    changes,
    differences,
    distance,
    operation,
    ran_in_keras,
    ran_in_torch,
    rewritten,
    sites,
)
from rewrite import Rules, apply_rules  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Keras' own, of numpy

SIZE = 64


@pytest.fixture(scope="module")
def pair() -> Pair:
    return build(SIZE)


def test_vgg16_of_both_frameworks_is_planned_and_runs_alike(pair: Pair) -> None:
    planned = sites(pair)
    assert len(planned) == 13
    for here, there in planned:
        assert operation(here) == operation(there) == "Conv2d"
        assert changes(here) == changes(there)
        assert here.inferred == there.inferred
    assert [here.inferred["num_features"] for here, _ in planned] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6

    result = rewritten(pair)
    orders = [around(ran_in_torch(result.torch, SIZE)), around(ran_in_keras(result.keras, SIZE))]
    assert orders[0] == orders[1]
    assert orders[0][0] == ("the image", "Conv2d 64", "BatchNorm2d 64", "ReLU 64", "Conv2d 64")
    assert orders[0][-1] == ("ReLU 512", "Conv2d 512", "BatchNorm2d 512", "ReLU 512", "MaxPool2d 512")
    assert distance(result) < CLOSE
    assert not list(differences(planned, orders, 0.0))


def test_without_the_rule_activations_stand_right_behind(pair: Pair) -> None:
    orders = [around(ran_in_torch(pair.torch, SIZE)), around(ran_in_keras(pair.keras, SIZE))]
    assert orders[0][:-1] == orders[1][:-1]  # behind the last one only PyTorch averages
    assert orders[0][0] == ("the image", "Conv2d 64", "ReLU 64", "Conv2d 64", "ReLU 64")


def test_a_normalisation_behind_the_activation_is_seen(pair: Pair) -> None:
    late = Pair(
        rewritten(pair).torch, apply_rules(pair.keras, Rules('after ReLU in "block*": insert BatchNorm2d')), SIZE
    )
    late_order = around(ran_in_keras(late.keras, SIZE))
    assert late_order[0][1:4] == ("Conv2d 64", "ReLU 64", "BatchNorm2d 64")
    orders = [around(ran_in_torch(late.torch, SIZE)), late_order]
    planned = sites(pair)
    here, there = planned[3]
    planned[3] = here, replace(there, inferred={"num_features": 64})
    assert list(differences(planned, orders, distance(late)))[:2] == [
        "the plans at features.7 and block2_conv2",
        "the order of what runs",
    ]
    assert distance(late) > CLOSE


def test_each_name_of_keras_is_one(capsys: Any) -> None:
    assert all(hasattr(keras.layers, name) or hasattr(keras.activations, name) for name in IN_PYTORCH)
    assert both_frameworks.main(["--image", "32"]) == 0
    assert "block5_conv3" in capsys.readouterr().out
