"""Maps a whole graph: one list of layers per node, and the facts of the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib import import_module

from onnx import defs

from csa_deploy.restricted.graph import Graph, Node, Value
from csa_deploy.restricted.mapping.recorder import (
    IMPORTERS,
    NOT_BEFORE,
    Recorder,
    TrtLayer,
    UnmappableError,
    network_layer,
    unmapped,
)
from csa_deploy.restricted.mapping.scales import is_quantized, is_typed, with_scales
from csa_deploy.restricted.patterns import decomposed_layer_norms

for _module in (
    *("attention", "control_flow", "detection", "indices", "pointwise", "quantization", "reductions", "resizing"),
    *("shapes", "signal", "windows"),
):
    import_module(f"csa_deploy.restricted.mapping.{_module}")

_TYPES_8 = frozenset("float32 float64 float16 int8 uint8 int32 int64 bool".split())  # noqa: SIM905
_TYPES_10 = _TYPES_8 | {"bfloat16", "float8", "int4", "float4"}

_FOLDED_BY_PARSER = ("Constant", "Size")

_LARGEST_DIMENSION = 2**31 - 1


def map_graph(graph: Graph, version: tuple[int, ...]) -> Iterator[TrtLayer]:
    """Layers that the parser of a TensorRT version makes of a graph, pseudo layers included.

    The bodies of control flow are mapped too. What cannot be mapped becomes ``UNMAPPED``; nothing is left out.
    """
    for problem in graph.problems:
        yield unmapped(
            problem.reason, f"{problem.node}: {problem.detail}" if problem.node else problem.detail, None, problem.op
        )
    layers: list[TrtLayer] = []
    signed = _signed(graph) if version >= (10,) else frozenset()
    for node in graph.walk():
        layers += map_node(node, version, graph.opset, signed)
    if version >= (10,):  # whose parser folds nothing: the validator sees constant arithmetic as layers
        for node in graph.constants:
            if node.op not in _FOLDED_BY_PARSER:
                layers += map_node(node, version, graph.opset, signed)
    if version >= (11,):
        layers = with_scales(graph, layers)
    yield from layers
    yield _network(graph, layers, version, signed)


def _signed(graph: Graph) -> frozenset[str]:
    """Tensors that ONNX quantizes to uint8: parsers from 10 on make int8 of them, given a zero point of 0."""
    names: set[str] = set()
    for node in graph.walk():
        if node.op == "QuantizeLinear" or any(value is not None and value.name in names for value in node.inputs):
            names.update(value.name for value in node.outputs if value.dtype == "uint8")
    return frozenset(names)


def map_node(node: Node, version: tuple[int, ...], opset: int, signed: frozenset[str] = frozenset()) -> list[TrtLayer]:
    """Layers of one node; what is not understood becomes one ``UNMAPPED`` layer behind the rest."""
    net = Recorder(node, version, opset, signed)
    try:
        _import(net)
    except UnmappableError as error:
        return [*net.layers, unmapped(error.reason, error.detail, node)]
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        return [*net.layers, unmapped("mapping-failed", f"ill-formed node ({error})", node)]
    return net.layers + [unmapped(*gap, node) for gap in _gaps(net)]


def _import(net: Recorder) -> None:
    node = net.node
    if node.domain:
        raise UnmappableError("custom-op", f"operator of domain {node.domain}")
    function = IMPORTERS.get(node.op)
    if function is None:
        if not defs.has(node.op):
            raise UnmappableError("unknown-op", "no such standard operator")
        raise UnmappableError("not-imported", "a standard operator, but the parser has no importer for it")
    if net.version < NOT_BEFORE.get(node.op, ()):
        since = ".".join(map(str, NOT_BEFORE[node.op]))
        raise UnmappableError("not-imported", f"the parser has an importer for it from TensorRT {since} on")
    function(net)


def _types(version: tuple[int, ...]) -> frozenset[str]:
    """Element types that the parser of a version takes (those it converts included)."""
    return _TYPES_10 if version >= (10,) else _TYPES_8


def _gaps(net: Recorder) -> list[tuple[str, str]]:
    """What is not known about the tensors of a mapped node; one gap per node is enough."""
    for value in (*net.node.inputs, *net.node.outputs[:1]):  # a further output counts where it is read
        if value is None or not value.name:
            continue
        if value.sequence:
            return [("mapping-failed", f"'{value.name}' is no tensor")]
        if value.dtype is not None and value.dtype not in _types(net.version):
            return [("not-imported", f"'{value.name}' has the type {value.dtype}")]
        if value.dtype is None:
            return [("unknown-type", f"the type of '{value.name}' is not known")]
        if value.shape is None:
            return [("unknown-shape", f"the shape of '{value.name}' is not known")]
        if any(dim is not None and dim > _LARGEST_DIMENSION for dim in value.shape):
            return [("invalid", f"'{value.name}' has the dimensions {list(value.shape)}, beyond 32 bits")]
    return _run_time_shape(net.node)


_SHAPED_BY = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "Pad": (1, 3), "Slice": (1, 2, 3, 4), "Split": (1,), "TopK": (1,),
    "Range": (0, 1, 2), "ConstantOfShape": (0,), "Squeeze": (1,), "Unsqueeze": (1,), "OneHot": (1,),
    "Resize": (2, 3), "Compress": (1,),
}  # fmt: skip
"""Inputs whose values shape the output. TensorRT calls it dynamic then, also where ONNX can tell (Expand by ones)."""


def _run_time_shape(node: Node) -> list[tuple[str, str]]:
    """The node that makes a network's shapes dynamic: what it reads is fixed, what it writes is not."""
    read = [value for value in node.inputs if value is not None and value.name]
    if any(_is_dynamic(value) for value in read):
        return []
    shaping = [node.input(index) for index in _SHAPED_BY.get(node.op, ())]
    values = [f"'{value.name}'" for value in shaping if value is not None and value.name and not value.const]
    open_ends = [output for output in node.outputs if output.name and not output.sequence and _is_dynamic(output)]
    if not values and not open_ends:
        return []
    values = values or [f"'{value.name}'" for value in (read[1:] or read) if not value.const]
    depends = f"depends on the values of {', '.join(values)}" if values else "does not follow from its inputs"
    return [("run-time-shape", f"the shape of '{(open_ends or node.outputs)[0].name}' {depends}")]


def _network(graph: Graph, layers: list[TrtLayer], version: tuple[int, ...], signed: frozenset[str]) -> TrtLayer:
    dtypes = {dtype for layer in layers for dtype in layer.facts.get("out_dtype", ()) if dtype}
    plugins = [str(layer.facts.get("plugin") or layer.facts["op"]) for layer in layers if _is_plugin(layer)]
    return network_layer(
        {
            "opset": graph.opset,
            "opset_known": 1 <= graph.opset <= defs.onnx_opset_version(),
            "duplicate_names": _duplicates(graph),
            "input_dtype": [_io_dtype(value, version, signed) for value in graph.inputs],
            "output_dtype": [_io_dtype(value, version, signed) for value in graph.outputs],
            "input_shape": [None if value.shape is None else list(value.shape) for value in graph.inputs],
            "dynamic_inputs": [value.name for value in graph.inputs if _is_dynamic(value)],
            "tensor_dtypes": sorted(dtypes),
            "quantized": is_quantized(layers),
            "typed": is_typed(layers),
            "layer_norms": decomposed_layer_norms(graph),
            "local_functions": graph.local_functions,
            "plugins": sorted(set(plugins)),
            "max_batch": _max_batch(graph),
            "layer_types": sorted({layer.type for layer in layers}),
        }
    )


def _max_batch(graph: Graph) -> int | None:
    batches = [value.shape[0] for value in graph.inputs if value.shape]
    known = [batch for batch in batches if batch is not None]
    return max(known) if known and len(known) == len(batches) else None


def _io_dtype(value: Value, version: tuple[int, ...], signed: frozenset[str]) -> str | None:
    """The parser of TensorRT 10 makes a float32 input or output of a float64 one, and says so in a warning."""
    if value.name in signed:
        return "int8"
    return "float32" if value.dtype == "float64" and version >= (10,) else value.dtype


def _duplicates(graph: Graph) -> list[str]:
    names = Counter(node.name for node in graph.walk() if node.proto.name)
    return [name for name, count in names.items() if count > 1]


def _is_plugin(layer: TrtLayer) -> bool:
    return layer.type.startswith("PLUGIN") or layer.facts.get("reason") == "custom-op"


def _is_dynamic(value: Value) -> bool:
    return value.shape is None or None in value.shape


_FAMILIES = ((8, 5), (8, 6), (10,), (10, 7), (10, 12), (11,))
"""Versions at which a mapping in this package changes."""


def parser_family(version: tuple[int, ...]) -> tuple[int, ...]:
    """The newest of the parser's families that is not newer than a version."""
    return max((family for family in _FAMILIES if family <= version), default=_FAMILIES[0])
