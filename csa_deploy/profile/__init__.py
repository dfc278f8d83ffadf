"""Measures latency, and says what was measured and on what."""
