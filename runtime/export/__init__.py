"""Nets converted to other programs' formats: ONNX."""
