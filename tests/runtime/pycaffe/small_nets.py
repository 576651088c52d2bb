"""Prototxts that several tests build."""

from __future__ import annotations

TRAINABLE = """
name: "small" force_backward: true
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 2 dim: 5 dim: 6 } shape { dim: 4 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 3 kernel_size: 3 pad: 1
    weight_filler { type: "xavier" } bias_filler { type: "constant" value: 1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "score"
  inner_product_param { num_output: 7 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""
"""A net that feeds itself and learns; no two tops of it are read twice."""

DEPLOY = """
name: "deploy"
layer { name: "in" type: "Input" top: "data"
  input_param { shape { dim: 4 dim: 3 dim: 6 dim: 8 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "score"
  inner_product_param { num_output: 5 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }
"""


def solver(net: str, fields: str = "") -> str:
    """A solver's prototxt for a net's file; `fields` are appended to it."""
    return f"""
net: "{net}" lr_policy: "fixed" base_lr: 0.1 max_iter: 6 snapshot_prefix: "snap"
snapshot_after_train: false {fields}
"""
