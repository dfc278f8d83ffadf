"""Images become tensors, and data sets become batches, in constant memory."""
