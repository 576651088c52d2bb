"""What layer types declare about themselves, for every registered type."""

from __future__ import annotations

import pytest

from runtime.core.layer import Layer
from runtime.core.layer_registry import REGISTERED
from runtime.layers.convolution import ConvolutionLayer
from runtime.layers.factory import layer_type_list
from runtime.layers.python_layer import PythonLayer
from runtime.layers.relu import ReLULayer
from runtime.solvers.sgd import SGDRule

TYPES = layer_type_list()


def types_with(name: str) -> set[str]:
    """The types whose class has another value of an attribute than Layer."""
    return {kind for kind in TYPES if getattr(REGISTERED[kind], name) != getattr(Layer, name)}


def test_layers_that_only_call_ops() -> None:
    assert types_with("only_ops") == {
        *("Concat", "Convolution", "Deconvolution", "Dropout", "Flatten", "InnerProduct", "LRN"),
        *("Pooling", "ReLU", "Reshape", "Silence", "Slice", "Softmax", "SoftmaxWithLoss", "Split"),
    }


@pytest.mark.parametrize("base", [ConvolutionLayer, ReLULayer, PythonLayer])
def test_a_subclass_does_not_inherit_what_holds_for_passes_of_its_base(base: type[Layer]) -> None:
    class Own(base):  # type: ignore[misc, valid-type]
        """A user's class, which may override a pass."""

    class Declared(Own):
        only_ops = can_rectify = True

    assert not (Own.only_ops or Own.can_rectify)
    assert Own.rectifies is Layer.rectifies
    assert Own.can_gate_relu is Layer.can_gate_relu
    assert Declared.only_ops and Declared.can_rectify


def test_an_update_rule_does_not_inherit_it_either() -> None:
    class Own(SGDRule):
        """A user's rule."""

    assert SGDRule.only_ops and not Own.only_ops
