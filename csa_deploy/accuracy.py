"""Accuracy over classes: training and evaluation count the same things."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

RANKS = (1, 5)


def ranks_of(classes: int) -> tuple[int, ...]:
    """Of :data:`RANKS` those that say something: top-5 needs more than five classes."""
    return tuple(k for k in RANKS if k == 1 or classes > k)


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on labelled data.

    Attributes:
        samples: samples evaluated, each once.
        hits: by each k of :func:`ranks_of`, samples whose label is among the k strongest outputs.
        not_finite: identities of samples with an output that is not finite; they count as wrong.
    """

    samples: int
    classes: int
    hits: dict[int, int]
    not_finite: tuple[str, ...] = ()

    def share(self, k: int) -> float:
        """Top-k accuracy in 0..1."""
        return self.hits[k] / self.samples

    @property
    def shares(self) -> dict[str, float]:
        """``top1``, and ``top5`` where it is counted, as shares of 1."""
        return {f"top{k}": self.share(k) for k in self.hits}

    @property
    def right(self) -> str:
        """What decides which of two networks is better, in words."""
        return f"{self.hits[1]} of the held-out images right"

    def interval(self, k: int) -> tuple[float, float]:
        """95 % Clopper-Pearson interval of :meth:`share`."""
        from csa_deploy.metrics.intervals import share

        return share(self.hits[k], self.samples)

    def to_json(self) -> dict[str, Any]:
        """JSON form, with shares and intervals."""
        tops = {f"top{k}": {"value": self.share(k), "interval": self.interval(k)} for k in self.hits}
        return {**asdict(self), "hits": {str(k): n for k, n in self.hits.items()}, **tops}
