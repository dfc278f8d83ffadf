"""Restricted mode: rule packs, ONNX to TensorRT layer mapping, static checker, NVIDIA's validator."""
