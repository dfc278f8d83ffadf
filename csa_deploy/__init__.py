"""csa-deploy: from a PyTorch vision network to verified TensorRT engines, with evidence for each claim."""

__version__ = "0.1.0"
