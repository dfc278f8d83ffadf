"""Compares the graphs and engines of a workspace with PyTorch on real data."""
