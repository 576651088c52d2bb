"""Conversion of nets to the formats of other programs: ONNX."""
