"""Where engines are built and run: this machine, or one over ssh without Python."""
