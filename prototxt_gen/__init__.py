"""The model language: Caffe's schema, the prototxt format, and the paper's nets in it."""
