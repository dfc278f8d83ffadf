"""The progress of the precision stage: one scale over all that it does, which says what is done and never goes back."""

from __future__ import annotations

from collections.abc import Callable

from csa_deploy.precision.techniques import Progress

CALIBRATING, MEASURING, SEARCHING = "calibrating", "measuring layers", "searching"
PHASE_STEPS = 1000
# Where each part begins and ends. Parts that do not take place are jumped over.
_PARTS = {
    CALIBRATING: (0, 350),
    "equalization": (350, 500),
    "weight rounding": (500, 600),
    "bias correction": (600, 650),
    MEASURING: (650, 850),
    SEARCHING: (850, PHASE_STEPS),
}


class Phases:
    """Shares out the progress of a stage to its parts.

    Args:
        report: called with (done, total, part).
    """

    def __init__(self, report: Callable[[int, int, str], None]) -> None:
        self._report, self._done = report, 0

    def of(self, part: str) -> Progress:
        """The progress of a part, to be called with (done, total) of it."""
        first, last = _PARTS[part]

        def progress(done: int, total: int) -> None:
            self._done = max(self._done, first + (last - first) * min(done, total) // max(total, 1))
            self._report(self._done, PHASE_STEPS, part)

        return progress
