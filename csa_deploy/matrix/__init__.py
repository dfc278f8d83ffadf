"""One network over several TensorRT versions and targets: what is known, what was measured, what changed."""
