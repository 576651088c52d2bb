"""The model language: Caffe's schema, prototxt text, and the paper's nets written in it."""
