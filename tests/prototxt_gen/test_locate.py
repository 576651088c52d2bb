from __future__ import annotations

from pathlib import Path

import pytest

from prototxt_gen.errors import ShapeError, VerydeepError
from prototxt_gen.locate import layer_place, located

TEXT = """\
name: "conv"  # layer { name: "conv" }
layer {
  type: "Convolution" param { name: "conv" }
  top: "name" bottom: "conv"
  name: 'conv'
}
layers < name # "old" }
: "}" top: "a \\" name" > layer{name:"old"}
"""


@pytest.mark.parametrize(
    ("layer", "place"),
    [("conv", (5, 9)), ("}", (8, 3)), ("old", (8, 37)), ("name", None), ("a", None)],
)
def test_the_name_of_a_layer_is_found(layer: str, place: tuple[int, int] | None) -> None:
    assert layer_place(TEXT, layer) == place
    if place is not None:
        line = TEXT.splitlines()[place[0] - 1]
        assert line[place[1] : place[1] + len(layer)] == layer


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("layer 'conv' (Convolution): too large", "{}:5:9: layer 'conv' (Convolution): too large"),
        ("layer 'of another file': too large", "{}: layer 'of another file': too large"),
        ("no memory", "{}: no memory"),
        ("{}:1:1: no text", "{}:1:1: no text"),
    ],
)
def test_errors_are_given_a_place(message: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(TEXT)
    with pytest.raises(ShapeError) as caught, located(path):
        raise ShapeError(message.format(path))
    assert str(caught.value) == said.format(path)


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), located(tmp_path):
        raise ZeroDivisionError
    assert not issubclass(ZeroDivisionError, VerydeepError)
