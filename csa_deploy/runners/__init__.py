"""Execution backends behind one interface: PyTorch, ONNX Runtime, TensorRT and TensorRT-RTX."""
