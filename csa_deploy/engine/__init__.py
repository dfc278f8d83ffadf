"""Engine builders: TensorRT-RTX and TensorRT, driven through polygraphy in a child process."""
