"""Numeric precision written into the graph."""
