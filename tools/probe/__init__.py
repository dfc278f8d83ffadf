"""The probing program: asks NVIDIA's validator about thousands of small networks."""
