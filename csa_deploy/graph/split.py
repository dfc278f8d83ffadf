"""Cuts a graph at named tensors: what they need is the encoder, what is left falls into heads.

Heads are the connected components behind the cut. Whatever crosses it has to be named: a skip connection that nobody
thought of would otherwise become a second output of the encoder, and one more buffer between two devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx
import onnx_ir as ir
from onnx_ir.analysis import analyze_implicit_usage

from csa_deploy.errors import UsageError
from csa_deploy.graph.facts import is_constant
from csa_deploy.graph.names import Names
from csa_deploy.graph.operators import QUANTIZERS
from csa_deploy.graph.shapes import inferred
from csa_deploy.naming import did_you_mean
from csa_deploy.network_parts import ENCODER, PartSetting, groups_of, setting_of

_SHOWN = 3
_CONVERT = (*QUANTIZERS, "Cast")
"""What behind the cut each head has for itself, so that it does not join them."""


@dataclass(frozen=True)
class PlannedPart:
    """One part of a cut.

    Attributes:
        name: :data:`ENCODER`, or of a head its outputs with + between them.
        nodes: names of its nodes, in the graph's order.
        inputs: what it reads: tensors of the cut, and inputs of the network.
        outputs: what it makes: tensors of the cut, and outputs of the network.
    """

    name: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    setting: PartSetting = field(default_factory=PartSetting)


def plan_cut(
    model: onnx.ModelProto, tensors: Iterable[str], part: Mapping[str, str] | None = None
) -> tuple[PlannedPart, ...]:
    """The parts that a cut makes, the encoder first, then the heads by their outputs.

    Args:
        model: any graph; not changed.
        part: settings by the name of a part, see :func:`csa_deploy.network_parts.parse_part`; heads whose outputs
            are named together (``boxes+scores``) become one part.

    Raises:
        UsageError: a name that is no tensor of the graph or that nothing behind the cut reads, nothing before or behind
            the cut, outputs that no head makes, or further tensors that cross the cut; with the names that are missing.
    """
    part = part or {}
    planned = _Plan(inferred(model).graph, tuple(dict.fromkeys(tensors))).parts(groups_of(part))
    return tuple(replace(one, setting=setting_of(part, one.name, one.outputs)) for one in planned)


class _Plan:
    def __init__(self, graph: ir.Graph, names: tuple[str, ...]) -> None:
        self._graph, self._names = graph, names
        self._order = {node: place for place, node in enumerate(graph)}
        self._reads = _reads(graph)
        self._outputs = list(graph.outputs)
        self._fixed: set[ir.Node] = set()  # what reads constants alone, so that each part can have it for itself
        for node in graph:
            if all(self._is_fixed(value) for value in self._reads[node]):
                self._fixed.add(node)
        cut = self._named()
        self._encoder = self._needed(cut)
        self._rest = self._needed(self._outputs) - self._encoder
        if not self._encoder or not self._rest:
            side = "in front of" if not self._encoder else "behind"
            raise UsageError(f"nothing lies {side} {_quoted(names)}", fix="cut at tensors inside the network")
        self._require_all(set(cut))

    def parts(self, groups: Iterable[Sequence[str]]) -> tuple[PlannedPart, ...]:
        heads = self._merged(self._components(), groups)
        found = [self._part(ENCODER, self._encoder), *(self._part("", nodes) for nodes in heads)]
        made = {name for part in found for name in part.outputs}
        if lost := [str(value.name) for value in self._outputs if value.name not in made]:
            raise UsageError(f"no part makes the output {_quoted(lost)}", fix="give it a node that computes it")
        return tuple(found)

    def _named(self) -> list[ir.Value]:
        values = ir.convenience.create_value_mapping(self._graph, include_subgraphs=False)
        made = [str(value.name) for node in self._graph for value in node.outputs if node not in self._fixed]
        for name in self._names:
            if name not in values:
                otherwise = f"they are named as in the ONNX graph: {', '.join(made[:_SHOWN])}, ..."
                raise UsageError(f"no tensor '{name}' to cut at", fix=did_you_mean(name, made, otherwise, most=3))
            if self._is_fixed(values[name]):
                raise UsageError(
                    f"'{name}' is a weight, which every part has for itself", fix="cut at what a node computes"
                )
        return [values[name] for name in self._names]

    def _needed(self, values: Iterable[ir.Value]) -> set[ir.Node]:
        """Every node that they are computed by, but for the fixed ones."""
        found: set[ir.Node] = set()
        waiting = [value.producer() for value in values]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in found and node not in self._fixed:
                found.add(node)
                waiting += [value.producer() for value in self._reads[node]]
        return found

    def _is_fixed(self, value: ir.Value) -> bool:
        return is_constant(value) or value.producer() in self._fixed

    def _require_all(self, cut: set[ir.Value]) -> None:
        """Refuse a cut through which more goes than was named, and names through which nothing goes."""
        in_front = {value for node in self._encoder for value in (*self._reads[node], *node.outputs)}
        crossing = {v: None for node in self._sorted(self._rest) for v in self._reads[node] if v in in_front}
        missing = [str(v.name) for v in crossing if v not in cut and not self._is_fixed(v)]
        if missing:
            several = len(missing) > 1
            raise UsageError(
                f"the cut at {_quoted(self._names)} is not complete: behind it {_quoted(missing)} "
                f"{'are' if several else 'is'} read as well",
                fix=f"name {'them' if several else 'it'} too: --split {','.join((*self._names, *missing))}",
            )
        if unread := [name for name in self._names if name not in {v.name for v in crossing}]:
            raise UsageError(f"nothing behind the cut reads {_quoted(unread)}", fix="leave it out of --split")

    def _components(self) -> list[set[ir.Node]]:
        """The nodes behind the cut, by what hangs together; conversions of what crosses it are each head's own."""
        root: dict[ir.Node, ir.Node] = {}

        def find(node: ir.Node) -> ir.Node:
            while root[node] is not node:
                node = root[node]
            return node

        converts: set[ir.Node] = set()
        for node in self._sorted(self._rest):
            makers = [m for v in self._reads[node] if (m := v.producer()) in self._rest and m is not None]
            if node.op_type in _CONVERT and all(maker in converts for maker in makers):
                converts.add(node)
                continue
            root[node] = node
            for maker in makers:
                if maker in root:
                    root[find(maker)] = find(node)
        found: dict[ir.Node, set[ir.Node]] = {}
        for node in root:
            found.setdefault(find(node), set()).add(node)
        alone = converts - {m for n in root for m in self._back(n, converts)}
        return [*found.values(), *({node} for node in alone if any(v in self._outputs for v in node.outputs))]

    def _back(self, node: ir.Node, among: set[ir.Node]) -> Iterator[ir.Node]:
        """Nodes among these that a node reads from, directly or through others of them."""
        for value in self._reads[node]:
            if (maker := value.producer()) in among and maker is not None:
                yield maker
                yield from self._back(maker, among)

    def _merged(self, heads: list[set[ir.Node]], groups: Iterable[Sequence[str]]) -> list[set[ir.Node]]:
        """The same with the heads of each group as one; in the order of the network's outputs."""
        made = {name: head for head in map(frozenset, heads) for name in self._made(head)}
        together: dict[frozenset[ir.Node], frozenset[ir.Node]] = {head: head for head in made.values()}
        for group in groups:
            for name in group:
                if name not in made:
                    raise UsageError(
                        f"no head makes '{name}'", fix=did_you_mean(name, made, f"heads make {', '.join(made)}")
                    )
            whole = frozenset().union(*(together[made[name]] for name in group))
            together |= {head: whole for head in together if head <= whole}
        return [
            set(head) for head in dict.fromkeys(together[made[str(v.name)]] for v in self._outputs if v.name in made)
        ]

    def _made(self, nodes: Iterable[ir.Node]) -> list[str]:
        """Outputs of the network that nodes make."""
        values = {value for node in nodes for value in node.outputs}
        return [str(value.name) for value in self._outputs if value in values]

    def _part(self, name: str, nodes: set[ir.Node]) -> PlannedPart:
        whole = nodes if name else nodes | {m for n in nodes for m in self._back(n, self._rest - nodes)}
        read = {value.name for node in whole for value in self._reads[node]}
        inputs = [str(v.name) for v in self._graph.inputs if v.name in read and v.name not in self._names]
        outputs = self._made(whole)
        if name:
            makes = {value.name for node in nodes for value in node.outputs}
            inputs += [n for n in self._names if n in read and n not in makes]
            outputs = list(dict.fromkeys([*(n for n in self._names if n in makes), *outputs]))
        else:
            inputs = [*(n for n in self._names if n in read), *inputs]
        named = tuple(str(node.name) for node in self._sorted(whole))
        return PlannedPart(name or "+".join(outputs), named, tuple(inputs), tuple(outputs))

    def _sorted(self, nodes: Iterable[ir.Node]) -> list[ir.Node]:
        return sorted(nodes, key=self._order.__getitem__)


def _reads(graph: ir.Graph) -> dict[ir.Node, list[ir.Value]]:
    """What each node of the main graph reads, also by the graphs inside it."""
    implicit = analyze_implicit_usage(graph)
    found: dict[ir.Node, list[ir.Value]] = {}
    for node in graph:
        inner = [
            value
            for attribute in node.attributes.values()
            for body in _bodies(attribute)
            for value in implicit.get(body, ())
        ]
        found[node] = [value for value in (*node.inputs, *inner) if value is not None]
    return found


def crossing(model: onnx.ModelProto, parts: Sequence[PlannedPart]) -> dict[str, str]:
    """What crosses the cut in a typed graph, by tensor of the cut.

    That is the INT8 tensor where nobody behind the cut reads anything else, so that INT8 and one scale stand on both
    sides; and what a Cast of the network's output reads, where the tensor is that output as well.

    Args:
        model: a graph of the planned network, in any precision.

    Raises:
        UsageError: it has no such tensor.
    """
    view = ir.from_proto(model)
    values = ir.convenience.create_value_mapping(view.graph, include_subgraphs=False)
    encoder, heads = parts[0], parts[1:]
    wanted = [name for name in encoder.outputs if any(name in head.inputs for head in heads)]
    if gone := [name for name in wanted if name not in values]:
        raise UsageError(f"this graph has no tensor {_quoted(gone)}", fix="cut a graph of the same network")
    inside = _ancestors(values[name] for name in encoder.outputs)
    return {name: str(_crossing(values[name], inside).name) for name in wanted}


def _crossing(value: ir.Value, inside: set[ir.Node]) -> ir.Value:
    maker = value.producer()
    if maker is not None and maker.op_type == "Cast" and value.is_graph_output() and not value.uses():
        return maker.inputs[0] or value
    readers = {user for user, _ in value.uses() if user not in inside or user.op_type == "QuantizeLinear"}
    first = next(iter(readers), None)
    alone = len(readers) == 1 and first is not None and first.op_type == "QuantizeLinear"
    return first.outputs[0] if alone and first is not None and not value.is_graph_output() else value


def _ancestors(values: Iterable[ir.Value]) -> set[ir.Node]:
    found: set[ir.Node] = set()
    waiting = [value.producer() for value in values]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [value.producer() for value in node.inputs if value is not None]
    return found


def extract_part(model: onnx.ModelProto, part: PlannedPart, crosses: Mapping[str, str]) -> onnx.ModelProto:
    """One part as a graph of its own, in which what crosses the cut has the name that it is cut by.

    Args:
        model: a graph of the planned network, in any precision; not changed.
        crosses: see :func:`crossing`.
    """
    view = inferred(model)  # what crosses the cut has to state its type and shape
    ends = {value.name for value in view.graph.outputs}
    inputs = [crosses.get(name, name) for name in part.inputs]
    outputs = list(dict.fromkeys(o for n in part.outputs for o in ([n] if n in ends else []) + [crosses.get(n, n)]))
    graph = ir.convenience.extract(view.graph, inputs, outputs)
    graph.name = f"{graph.name or 'network'} {part.name}"
    for name, own in crosses.items():
        if name != own and name not in ends:
            _rename(graph, own, name)
    used = {value for node in ir.traversal.RecursiveGraphIterator(graph) for value in node.inputs}
    for value in [v for v in graph.initializers.values() if v not in used and not v.is_graph_output()]:
        del graph.initializers[str(value.name)]
    cut = ir.Model(graph, ir_version=view.ir_version, functions=list(view.functions.values()))
    if part.name == ENCODER:  # which takes what the network takes, so that this is true of it
        cut.metadata_props.update(view.metadata_props)
    return ir.to_proto(cut)


def _rename(graph: ir.Graph, old: str, new: str) -> None:
    values = ir.convenience.create_value_mapping(graph, include_subgraphs=False)
    if old in values:
        if new in values:
            values[new].name = Names(graph).unused(f"{new}_unquantized")
        values[old].name = new


def _quoted(names: Iterable[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def _bodies(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else []
