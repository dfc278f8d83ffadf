"""What is stated of a batch: whether what a sample gives depends on what lies beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from csa_deploy.results import NotMeasured, Stored


@dataclass(frozen=True)
class BatchDifference(Stored):
    """How far one output is from itself in another batch, on the sample where that is most.

    Attributes:
        against: the same samples in another order and beside others, or one at a time.
        difference: largest absolute difference; of whole numbers how many of them differ. Infinite where shapes do.
        rounding: what the rounding of sums accounts for; 0 where it was not needed.
    """

    derived: ClassVar[tuple[str, ...]] = ("passed",)
    output: str
    against: Literal["another order", "batch 1"]
    sample: str
    difference: float
    rounding: float

    @property
    def passed(self) -> bool:
        """Whether rounding accounts for it."""
        return self.difference <= self.rounding

    @property
    def said(self) -> str:
        """In words."""
        found = f"'{self.output}' of sample {self.sample} differs by {self.difference:.2g} in {self.against}"
        return f"{found}; rounding accounts for {self.rounding:.2g}"


@dataclass(frozen=True)
class BatchConsistency(Stored):
    """Whether a sample gives the same in every batch.

    Attributes:
        batch: samples of one inference.
        samples: how many were run again.
        differences: by output and other batch; empty where nothing was measured.
        alone: how one sample at a time was run; empty where it was not.
    """

    derived: ClassVar[tuple[str, ...]] = ("verdict", "statement")
    batch: int
    samples: int = 0
    differences: tuple[BatchDifference, ...] = ()
    alone: str = ""
    not_measured: tuple[NotMeasured, ...] = ()

    @property
    def broken(self) -> BatchDifference | None:
        """The largest difference that rounding does not account for."""
        return max((d for d in self.differences if not d.passed), key=lambda d: d.difference, default=None)

    @property
    def verdict(self) -> Literal["pass", "fail", "not measured"]:
        """Fail where a difference is more than rounding; not measured where no other batch was run."""
        return "fail" if self.broken else "pass" if self.differences else "not measured"

    @property
    def statement(self) -> str:
        """In words."""
        reasons = "; ".join(f"{item.what}: {item.reason}" for item in self.not_measured)
        if not self.differences:
            return f"not measured: {self.not_measured[0].reason}" if self.not_measured else "not measured"
        if self.broken:
            return self.broken.said
        largest = max(self.differences, key=lambda d: d.difference)
        same = f"largest difference {largest.difference:.2g}, rounding accounts for {largest.rounding:.2g}"
        against = " and ".join(dict.fromkeys(d.against for d in self.differences))
        said = f"{self.samples} samples in {against}: {same if largest.difference else 'the same to the last bit'}"
        return f"{said} (not measured: {reasons})" if reasons else said
