"""How two graphs or builds differ, module by module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from csa_deploy.inspection.parts import NamedPart, is_engine, read_parts
from csa_deploy.results import Stored
from csa_deploy.workspace import sha256_of


@dataclass(frozen=True)
class ModuleDifference(Stored):
    """One module in both.

    Attributes:
        module: its name; empty for what belongs to none.
        ops: operator -> number in the first and in the second, for those that differ.
        types: type -> number of parts in the first and in the second, for those that differ.
        macs: multiply-accumulates in the first and in the second; None where a shape is not known.
    """

    module: str
    ops: dict[str, tuple[int, int]]
    types: dict[str, tuple[int, int]]
    macs: tuple[int | None, int | None]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.ops and not self.types and self.macs[0] == self.macs[1]


@dataclass(frozen=True)
class FileDifference(Stored):
    """Two files and what differs.

    Attributes:
        same_bytes: whether the files are the same.
        parts: number of nodes or layers in each.
        modules: modules that differ, in the order of the network.
        unchanged_modules: number of modules that do not.
        notes: what limits the comparison.
    """

    first: str
    second: str
    same_bytes: bool
    parts: tuple[int, int]
    modules: tuple[ModuleDifference, ...]
    unchanged_modules: int
    notes: tuple[str, ...]


def compare(first: Path, second: Path) -> FileDifference:
    """Compare two ONNX files, two engines, or one of each.

    Raises:
        UsageError: a file that is missing or not readable.
    """
    left, right = read_parts(first), read_parts(second)
    modules = list(dict.fromkeys(part.module for part in (*left, *right)))
    found = [_module(name, _of(left, name), _of(right, name)) for name in modules]
    notes = []
    if is_engine(first) != is_engine(second):
        notes.append("a graph is held against an engine: operators and layers have names of their own")
    if not any(modules):
        notes.append("neither says which module a part comes from")
    return FileDifference(
        first.name,
        second.name,
        sha256_of(first) == sha256_of(second),
        (len(left), len(right)),
        tuple(module for module in found if not module.same),
        sum(module.same for module in found),
        tuple(notes),
    )


def _of(parts: Iterable[NamedPart], module: str) -> list[NamedPart]:
    return [part for part in parts if part.module == module]


def _module(name: str, left: list[NamedPart], right: list[NamedPart]) -> ModuleDifference:
    return ModuleDifference(
        name,
        _unequal(Counter(part.op for part in left), Counter(part.op for part in right)),
        _unequal(Counter(part.type for part in left), Counter(part.type for part in right)),
        (_macs(left), _macs(right)),
    )


def _macs(parts: list[NamedPart]) -> int | None:
    known = [part.macs for part in parts if part.macs is not None]
    return sum(known) if len(known) == len(parts) else None


def _unequal(left: Counter[str], right: Counter[str]) -> dict[str, tuple[int, int]]:
    return {key: (left[key], right[key]) for key in sorted({*left, *right}) if left[key] != right[key]}
