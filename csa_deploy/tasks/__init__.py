"""What networks of the road are for: outputs become masks and boxes, and those the metrics of their task.

Nothing here knows how a network is run: arrays come in, per-sample rows and values go out.
"""
