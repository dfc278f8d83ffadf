"""How errors grow over the frames of sequences, where reference and candidate each run on their own state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from csa_deploy.metrics.distance import decibels
from csa_deploy.records.verify import ErrorGrowth
from csa_deploy.verify.stream import Stream


def error_growth(stream: Stream) -> tuple[ErrorGrowth, ...]:
    """Per candidate and output the error by frame, over the sequences that have it; nothing without sequences."""
    frames = np.asarray(stream.frames, np.int64)
    if not len(frames):
        return ()
    found = []
    for candidate in stream.candidates:
        for name, metrics in candidate.tensors.items():
            signal, noise, largest = (metrics.columns[key] for key in ("signal", "noise", "max_abs_error"))
            by_frame = [np.flatnonzero(frames == frame) for frame in range(int(frames.max()) + 1)]
            there = [places for places in by_frame if len(places)]
            ratios = [float(decibels(signal[places].sum(), noise[places].sum())) for places in there]
            found.append(
                ErrorGrowth(
                    candidate.label,
                    name,
                    tuple(len(places) for places in there),
                    tuple(ratios),
                    tuple(float(largest[places].max()) for places in there),
                )
            )
    return tuple(found)


def growth_notes(growth: Sequence[ErrorGrowth], stream: Stream) -> list[str]:
    """What the console and the report say of it, and of what the intervals rest on."""
    if not growth:
        return []
    count = stream.frames.count(0)
    return [
        f"{len(stream.frames)} frames of {count} sequence{'' if count == 1 else 's'}; intervals take frames as "
        "independent, and those of a sequence are not: they are too narrow",
        *(f"error over frames, each on its own state: {grown.statement}" for grown in growth),
    ]
