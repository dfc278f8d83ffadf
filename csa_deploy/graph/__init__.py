"""Reading, measuring and rewriting ONNX graphs."""
