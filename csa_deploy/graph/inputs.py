"""Inputs to prove a rewrite on: families that reach what normal numbers do not, each deterministic by its seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
Specs = dict[str, tuple[tuple[int, ...], str]]
"""Shape and element type (NumPy's name) by input."""

Arrays = dict[str, np.ndarray]

_CORNERS = 4
_EXTREME = 9.0
_FEW = 64
"""From so many maps on, the corners are spread over the maps of one input instead of over four inputs."""


def _normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return generator.standard_normal(shape)


def _corner(first: int) -> Draw:
    """Maps with their largest number in one corner and their smallest in the opposite one; the next map, the next."""

    def draw(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        values = np.asarray(generator.standard_normal(shape) * 0.5)
        if not shape or not values.size:
            return values
        maps = values.reshape(-1, shape[-1]) if len(shape) < 3 else values.reshape(-1, *shape[-2:])
        for number, one in enumerate(maps):
            corner = (first + number) % _CORNERS
            at = (-(corner // 2), -(corner % 2))[-one.ndim :]
            one[tuple(-1 - i for i in at)], one[at] = -_EXTREME, _EXTREME
        return values

    return draw


_FAMILIES: dict[str, Draw] = {
    "normal": _normal,
    "corners": _corner(0),
    "positive": lambda generator, shape: np.abs(generator.standard_normal(shape)) * 2 + 0.01,
    "large": lambda generator, shape: generator.standard_normal(shape) * 100,
    "tiny": lambda generator, shape: generator.standard_normal(shape) * 1e-3,
    "image 0..1": lambda generator, shape: generator.uniform(0, 1, shape),
    "image 0..255": lambda generator, shape: generator.integers(0, 256, shape).astype(np.float64),
    **{f"corners {first}": _corner(first) for first in range(1, _CORNERS)},
}
"""How floats are drawn, by name, those first that show most."""

WHOLE_GRAPH = ("normal", "image 0..1", "large", "image 0..255", "tiny", "positive")
"""In which order a whole network is tried."""


def feed(family: str, specs: Specs, *, seed: int = 0) -> Arrays:
    """Inputs of a family. Integers are the same in each: they are mostly indices."""
    generator = np.random.default_rng([seed, list(_FAMILIES).index(family)])
    return {name: _drawn(generator, _FAMILIES[family], *spec) for name, spec in specs.items()}


def families(specs: Specs, *, heavy: bool) -> Iterable[str]:
    """The families worth running on these inputs; ``heavy``: where running costs much, only those that show most."""
    maps = [int(np.prod(shape[:-2])) for shape, kind in specs.values() if np.dtype(kind).kind == "f"]
    for name in _FAMILIES:
        if heavy and name not in ("normal", "corners", "positive"):
            continue
        if name.startswith("corners ") and min(maps, default=_FEW) >= _FEW:
            continue
        yield name


def _drawn(generator: np.random.Generator, draw: Draw, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Floats of the family, full-range bytes, 0 or 1 otherwise: 0 and 1 are valid indices nearly everywhere.

    Raises:
        ValueError: no values are known for this type.
    """
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return draw(generator, shape).astype(dtype)
    if dtype.itemsize == 1 and dtype.kind in "ui":
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max + 1, size=shape).astype(dtype)
    if dtype.kind in "uib":
        return generator.integers(0, 2, size=shape).astype(dtype)
    raise ValueError(f"no random values for an input of type {kind}")


def nudged(arrays: Arrays, seed: int) -> Arrays:
    """The same with every float moved by one unit in its last place, up or down by chance."""
    generator = np.random.default_rng(seed)
    return {name: one_ulp(generator, array) for name, array in arrays.items()}


def one_ulp(generator: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """``array`` times one plus or minus its type's epsilon, by chance."""
    if array.dtype.kind != "f":
        return array
    signs = generator.integers(0, 2, array.shape) * 2 - 1
    return (array * (1 + signs * float(np.finfo(array.dtype).eps))).astype(array.dtype)
