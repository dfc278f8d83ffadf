"""What is stated of the precision that a build obtained, beside the one that was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from csa_deploy.results import Stored

NARROW = {
    "fp32": ("fp32", "tf32", "fp16", "bf16", "int8", "uint8", "fp8", "int4", "fp4"),
    "fp16": ("fp16", "bf16", "int8", "uint8", "fp8", "int4", "fp4"),
    "int8": ("int8", "uint8", "fp8", "int4", "fp4"),
}
"""Types by the precision that they fulfil: its own and narrower ones."""


@dataclass(frozen=True)
class TypeShare(Stored):
    """Work in one type.

    Attributes:
        type: ``fp32``, ``fp16``, ``int8``, or ``unknown`` where the layer does not tell.
        layers: layers that compute.
        macs: multiply-accumulates of the ONNX nodes in them.
    """

    type: str
    layers: int
    macs: int


@dataclass(frozen=True)
class WideLayer(Stored):
    """A layer that computes in a wider type than was asked for; multiply-accumulates of its nodes."""

    name: str
    type: str
    macs: int


@dataclass(frozen=True)
class ObtainedPrecision(Stored):
    """The precision of an engine as it became.

    Attributes:
        source: what tells it, the engine's layers or the network as parsed; empty where nothing does.
        types: work per type, most of it first.
        stayed: layers that multiply in a wider type, most work first.
        reason: why it is not known; empty where it is.
    """

    derived: ClassVar[tuple[str, ...]] = ("share", "share_of_layers", "statement")
    asked: str
    source: str = ""
    types: tuple[TypeShare, ...] = ()
    stayed: tuple[WideLayer, ...] = ()
    reason: str = ""

    @property
    def share(self) -> float | None:
        """Share of multiply-accumulates in the precision asked for or a narrower one; None where nothing multiplies."""
        total = sum(item.macs for item in self.types)
        return self._narrow("macs") / total if total else None

    @property
    def share_of_layers(self) -> float | None:
        """The same of the layers that compute."""
        total = sum(item.layers for item in self.types)
        return self._narrow("layers") / total if total else None

    @property
    def untold(self) -> int:
        """Multiply-accumulates of layers whose type nothing tells."""
        return sum(item.macs for item in self.types if item.type == "unknown")

    @property
    def missed(self) -> bool:
        """Whether a reduced precision was asked for, and no product is known to be, or may be, in it."""
        return self.asked != "fp32" and self.share == 0 and not self.untold

    @property
    def statement(self) -> str:
        """In words."""
        if self.share is None or self.share_of_layers is None:
            return f"{self.asked}: not measured: {self.reason or 'nothing multiplies'}"
        listed = ", ".join(f"{item.type} {100 * item.macs / self._macs:.1f} %" for item in self.types if item.macs)
        share = (
            f"{100 * self.share:.1f} % of the multiply-accumulates and {100 * self.share_of_layers:.1f} % of the layers"
        )
        return f"{self.asked}: {share} obtained it ({listed}; by the {self.source})"

    @property
    def _macs(self) -> int:
        return sum(item.macs for item in self.types)

    def _narrow(self, what: str) -> int:
        return sum(getattr(item, what) for item in self.types if item.type in NARROW[self.asked])
