"""Renderers of a check's result; each reads the JSON form of one and the same data object."""
