"""What runs an ONNX model: one file for each engine."""
