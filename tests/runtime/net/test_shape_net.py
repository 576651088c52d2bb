from __future__ import annotations

import pytest

from prototxt_gen import heads, proto
from prototxt_gen.errors import DataError, ProtoError, ShapeError
from prototxt_gen.spec import builtin_spec
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.net.shape_net import batch_of, of_batch, shape_net
from tests.runtime.small_nets import conv, input_layer, layer, product, shapes_of

DATA = (
    'layer { name: "data" type: "Data" top: "data" top: "label" '
    'data_param { source: "no such folder" batch_size: 7 backend: LMDB } }\n'
)
SCORES = product("scores", "data", 3) + layer("SoftmaxWithLoss", "loss", "scores label")


def test_a_source_is_not_opened_if_the_shape_is_given() -> None:
    net = shapes_of(DATA + SCORES, image=(1, 28, 20))
    assert net.blobs["data"].shape == (7, 1, 28, 20)
    assert net.blobs["label"].shape == (7,)
    assert net.layer_by_name("scores").blobs[0].shape == (3, 28 * 20)


def test_a_source_is_opened_where_it_is_not() -> None:
    with pytest.raises(DataError, match="no such folder: no such database"):
        shapes_of(DATA + SCORES)


def test_a_list_of_images_is_a_source_too() -> None:
    listed = DATA.replace('"Data"', '"ImageData"').replace("data_param", "image_data_param")
    net = shapes_of(listed.replace("backend: LMDB", "") + SCORES, image=(3, 8, 8), batch=2)
    assert net.blobs["data"].shape == (2, 3, 8, 8)


def test_batch_and_image_of_an_input_layer() -> None:
    layers = input_layer(10, 3, 8, 8) + input_layer(10, 4, name="side") + conv("c", "data", 2, 3)
    net = shapes_of(layers, batch=4, image=(5, 9, 7))
    assert net.blobs["data"].shape == (4, 5, 9, 7)
    assert net.blobs["side"].shape == (4, 4)
    assert net.blobs["c"].shape == (4, 2, 7, 5)


def test_one_shape_for_all_tops_of_an_input_layer() -> None:
    both = input_layer(10, 3, 8, 8).replace('top: "data"', 'top: "data" top: "other"')
    net = shapes_of(both, image=(3, 4, 4))
    assert net.blobs["data"].shape == net.blobs["other"].shape == (10, 3, 4, 4)


@pytest.mark.parametrize("live", [False, True])
def test_only_what_is_of_the_batch_changes_with_it(live: bool) -> None:
    layers = (
        input_layer(2, 3, 8, 8)
        + input_layer(2, 3, 8, 8, name="more")
        + layer("Concat", "both", "data more")
        + input_layer(300, 5, name="boxes")
        + 'layer { name: "w" type: "Parameter" top: "w" parameter_param { shape { dim: 2 } } }'
    )
    net = of_batch(shapes_of(layers), 9) if live else shapes_of(layers, batch=9)
    assert net.blobs["both"].shape == (9, 6, 8, 8)
    assert net.blobs["boxes"].shape == (300, 5)
    assert [blob.shape for blob in net.params.learnable] == [(2,)]


def test_the_runs_random_numbers_are_left_alone() -> None:
    context, same = RunContext(), RunContext()
    cropped = DATA.replace("data_param", "transform_param { crop_size: 8 } data_param", 1)
    shapes_of(cropped + SCORES, context=context)
    assert context.rng.raw() == same.rng.raw()
    assert context.fill_weights


def test_the_nets_own_batch_may_be_too_large_for_the_images() -> None:
    layers = DATA + conv("scores", "data", 20, 3) + layer("Silence", "s", "label")
    layers = layers.replace('top: "s"', "")
    assert (
        shapes_of(layers.replace("batch_size: 7", "batch_size: 70"), image=(3, 2000, 3000), batch=1)
        .blobs["scores"]
        .shape[0]
        == 1
    )
    with pytest.raises(ShapeError, match=r"layer 'scores' .*is too large; expected at most"):
        shapes_of(layers.replace("batch_size: 7", "batch_size: 70"), image=(3, 2000, 3000))


def test_sources_of_other_kinds_take_the_batch_too() -> None:
    dummy = (
        'layer { name: "data" type: "DummyData" top: "data" '
        "dummy_data_param { num: 4 channels: 3 height: 2 width: 2 } }\n"
    )
    memory = (
        'layer { name: "data" type: "MemoryData" top: "data" top: "label" '
        "memory_data_param { batch_size: 4 channels: 3 height: 2 width: 2 } }\n"
    )
    for source in (dummy, memory):
        assert shapes_of(source, batch=5).blobs["data"].shape == (5, 3, 2, 2)


@pytest.mark.parametrize("phase", [proto.TRAIN, proto.TEST])
def test_a_net_of_another_batch_is_otherwise_the_same(phase: int) -> None:
    net = shape_net(heads.train_val(builtin_spec("D")), phase, create_backend("cpu"))
    other = of_batch(net, 3)
    assert batch_of(net) == (256 if phase == proto.TRAIN else 50)
    assert batch_of(other) == 3
    assert other.layer_names == net.layer_names
    assert other.layer_need_backward == net.layer_need_backward
    assert other.outputs == net.outputs
    assert [b.shape for b in other.params.learnable] == [b.shape for b in net.params.learnable]


def test_stages_and_levels_stay_with_a_net_of_another_batch() -> None:
    fast = layer("ReLU", "r", "data", 'include { stage: "fast" min_level: 2 }')
    net = shapes_of(input_layer(4, 3) + fast, level=2, stages=["fast"])
    assert of_batch(net, 2).layer_names == net.layer_names == ["data", "r"]


def test_shapes_that_no_image_has() -> None:
    with pytest.raises(ShapeError, match=r"expected channels, height and width .* got \(3, 0, 8\)"):
        shapes_of(DATA + SCORES, image=(3, 0, 8))
    with pytest.raises(ShapeError, match="batch: expected at least 1 image, got -1"):
        shapes_of(DATA + SCORES, image=(3, 8, 8), batch=-1)
    with pytest.raises(ProtoError, match="net 'small': no layer reads images whose shape"):
        shapes_of(input_layer(4, 3) + product("p", "data", 2), image=(3, 8, 8))
