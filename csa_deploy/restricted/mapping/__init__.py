"""ONNX nodes -> TensorRT layers, as the ONNX parser of each TensorRT version makes them."""
