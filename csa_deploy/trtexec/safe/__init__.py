"""TensorRT's safety flow: a host builds the engine and tunes it on the target, the target runs it with trtexec_safe."""
