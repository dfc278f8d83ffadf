"""Errata: what TensorRT is known to get wrong, as data beside the rule packs, held against the checker's graph."""
