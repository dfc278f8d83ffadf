"""Training: recipes as data, augmentation on the device, distributed loop, checkpoints."""
