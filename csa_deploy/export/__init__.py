"""From a torch module to an ONNX graph that is checked, loads everywhere and agrees with PyTorch."""
