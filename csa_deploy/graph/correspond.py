"""Inputs and outputs of one graph under the names of another's: by name, else by position where all of them fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from csa_deploy.errors import UsageError
from csa_deploy.graph.interface import interface_of
from csa_deploy.graph.shapes import editable

if TYPE_CHECKING:
    from csa_deploy.spec import TensorSpec

_FIX = "prove graphs of the same network, exported for the same size and batch"


def corresponding(
    a: onnx.ModelProto, b: onnx.ModelProto, names: tuple[str, str] = ("A", "B")
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """``b`` with the names that inputs and outputs have in ``a``, and what was assumed for that.

    Raises:
        UsageError: the graphs have other inputs or outputs, both sides listed.
    """
    moved, notes = dict[str, str](), []
    for what, ours, theirs in zip(("input", "output"), interface_of(a), interface_of(b), strict=True):
        pairs = _paired(what, ours, theirs, names)
        changed = {their: our for our, their in pairs if our != their}
        if changed:
            listed = ", ".join(f"'{their}' is '{our}'" for their, our in changed.items())
            notes.append(f"{what}s of {names[1]} have other names and were matched by position: {listed}")
        if set(moved) & set(changed):
            raise UsageError(f"{names[1]}: an input that is an output as well has two names in {names[0]}", fix=_FIX)
        moved |= changed
    return _in_order(renamed(b, moved) if moved else b, [spec.name for spec in interface_of(a)[1]]), tuple(notes)


def _in_order(model: onnx.ModelProto, outputs: list[str]) -> onnx.ModelProto:
    """The model with its outputs in this order."""
    if [value.name for value in model.graph.output] == outputs:
        return model
    ordered = onnx.ModelProto()
    ordered.CopyFrom(model)
    ordered.graph.output.sort(key=lambda value: outputs.index(value.name))
    return ordered


def _paired(
    what: str, ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec], names: tuple[str, str]
) -> list[tuple[str, str]]:
    by_name = {spec.name: spec for spec in theirs}
    if by_name.keys() == {spec.name for spec in ours}:
        pairs = [(spec, by_name[spec.name]) for spec in ours]
    elif len(ours) == len(theirs):
        pairs = list(zip(ours, theirs, strict=True))
    else:
        pairs = []
    if not pairs or not all(_fit(*pair) for pair in pairs):
        raise UsageError(
            f"the {what}s differ: {names[0]} has {_listed(ours)}; {names[1]} has {_listed(theirs)}", fix=_FIX
        )
    return [(our.name, their.name) for our, their in pairs]


def _fit(ours: TensorSpec, theirs: TensorSpec) -> bool:
    """Whether type and shape are the same, as far as both are stated."""
    same_axes = len(ours.shape) == len(theirs.shape) or not (ours.shape and theirs.shape)
    axes = zip(ours.shape, theirs.shape, strict=False)
    return ours.dtype == theirs.dtype and same_axes and all(one == other or not one or not other for one, other in axes)


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{s.name} {s.dtype} {[extent or '?' for extent in s.shape]}" for s in specs) or "none"


def renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """The model with values renamed; others that have these names already give way."""
    view = editable(model)
    values = {str(value.name): value for value in view.graph.inputs}
    values |= {str(name): value for name, value in view.graph.initializers.items()}
    values |= {
        str(value.name): value
        for node in ir.traversal.RecursiveGraphIterator(view.graph)
        for value in node.outputs
        if value.name
    }
    others = {
        taken: f"{taken} of the other graph" for taken in names.values() if taken in values and taken not in names
    }
    moved = {**names, **others}
    ir.convenience.rename_values([values[name] for name in moved], list(moved.values()))
    return ir.to_proto(view)
