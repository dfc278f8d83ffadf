"""A user's decode function: the outputs of one sample as boxes, every answer checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from csa_deploy.boxes import Detections
from csa_deploy.errors import UsageError
from csa_deploy.source import load_source

Decode = Callable[[Mapping[str, np.ndarray]], Detections]
_EXPECTED = "boxes (n, 4) as left, top, right, bottom in pixels of the network's input, scores (n,), classes (n,)"


def load_decode(spec: str) -> Decode:
    """The function that ``file.py:name`` or ``package.module:name`` names; its module can import its neighbours.

    It takes the outputs of one sample by name, without the axis of samples, and returns (boxes, scores, classes).

    Raises:
        UsageError: nothing there, or nothing to call.
    """
    source = load_source(spec)
    if source.kind not in ("file", "module"):
        raise UsageError(f"{spec}: no decode function", fix="name it as file.py:decode or package.module:decode")
    with source.opened() as (function, _):
        return checked(function, spec)


def checked(function: Any, name: str) -> Decode:
    """The function with every answer checked; what is wrong is one UsageError."""
    if not callable(function):
        raise UsageError(f"{name}: a {type(function).__name__} is no function", fix="name a function")

    def decode(outputs: Mapping[str, np.ndarray]) -> Detections:
        try:
            answer = function(dict(outputs))
        except Exception as error:  # other people's code
            said = " ".join(str(error).split())[:200]
            raise UsageError(f"{name}: it fails: {type(error).__name__}: {said}", fix="correct it") from error
        return _detections(answer, name)

    return decode


def _detections(answer: Any, name: str) -> Detections:
    try:
        parts = [np.asarray(part, np.float64) for part in answer]
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: it returned no arrays of numbers ({error})", fix=f"return {_EXPECTED}") from error
    shapes = [part.shape for part in parts]
    count = shapes[1][0] if len(shapes) == 3 and len(shapes[1]) == 1 else -1
    if shapes != [(count, 4), (count,), (count,)] and shapes != [(0,)] * 3:
        listed = ", ".join(map(str, shapes)) or "nothing"
        raise UsageError(f"{name}: it returned {listed}", fix=f"return {_EXPECTED}")
    xyxy, scores, classes = parts[0].reshape(-1, 4), parts[1], parts[2]
    for what, values in (("box", xyxy), ("score", scores), ("class", classes)):
        if not np.isfinite(values).all():
            raise UsageError(f"{name}: it returned a {what} that is not finite", fix="correct it, or drop such boxes")
    if (classes != np.floor(classes)).any() or (classes < 0).any():
        raise UsageError(f"{name}: classes are indices from 0 on", fix="return whole numbers")
    order = np.argsort(-scores, kind="stable")
    return Detections(xyxy, scores, classes.astype(np.int64)).of(order)
