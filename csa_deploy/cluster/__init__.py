"""Samples over the workers of a Dask cluster, with the bytes that one process gives."""
