"""Damages ONNX files in the ways that a file from outside may be damaged: the same seed gives the same bytes.

A mutation works on the protobuf message (fields, types, dimensions, names, attributes, duplicates, cycles, references,
metadata, functions, external data) or on the bytes (flips, cuts, insertions, truncation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

INTEGERS = (0, 1, -1, 2, 3, 7, 63, 255, 2**16, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63), -5)
FLOATS = (0.0, -1.0, 1e-45, 3e38, float("nan"), float("inf"), float("-inf"))
TEXTS = ("", "x", "a" * 100_000, "\x00\x1b[31m", "<b>\u2028", "../../etc/passwd", "/dev/zero", "9" * 30, "NaN", "²")
SCOPES = (
    "[" + "1," * 200_000 + "]",
    "-" * 100_000 + "1",
    "{1, 2}",
    "{'a': 'b'}",
    "1+2j" * 3_000,
    "[" * 50_000,
    "['a'",
    "[['a'], 'b']",
    "['', " + "'s'," * 40 + "]",
    "'text'",
    "[None, 1.5, 'x']",
    "[''.__class__]",
)
_TYPES = FieldDescriptor


def mutated(model: ModelProto, seed: int) -> bytes:
    """``model`` with one to three mutations, serialized."""
    random = Random(seed)
    found = ModelProto()
    found.CopyFrom(model)
    for _ in range(random.choice([1, 1, 1, 2, 2, 3])):
        random.choices(_MUTATIONS, _WEIGHTS)[0](found, random)
    data = found.SerializeToString()
    if random.random() < 0.15:
        data = damaged(data, random)
    return data


def damaged(data: bytes, random: Random) -> bytes:
    """A few bytes changed, removed, inserted or repeated, or the end cut off."""
    found = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 5])):
        if not found:
            break
        place, length = random.randrange(len(found)), random.randrange(1, 8)
        match random.randrange(5):
            case 0:
                found[place] = random.randrange(256)
            case 1:
                del found[place : place + length]
            case 2:
                found[place:place] = random.randbytes(length)
            case 3:
                found[place:place] = found[max(0, place - 40) : place]
            case _:
                del found[place:]
    return bytes(found)


def messages(root: Message, depth: int = 0) -> Iterator[Message]:
    """A message and all messages in it."""
    yield root
    if depth > 60:
        return
    for field, value in root.ListFields():
        if field.type == _TYPES.TYPE_MESSAGE:
            for inner in value if _repeated(field) else [value]:
                yield from messages(inner, depth + 1)


def _repeated(field: Any) -> bool:
    """Whether a field is a list; protobuf 7 has no labels, older versions have no ``is_repeated``."""
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def graphs(model: ModelProto) -> list[GraphProto]:
    return [message for message in messages(model) if isinstance(message, GraphProto)]


def _nodes(model: ModelProto) -> list[NodeProto]:
    return [message for message in messages(model) if isinstance(message, NodeProto)]


def _names(graph: GraphProto) -> list[str]:
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    return names + [value.name for value in (*graph.input, *graph.output, *graph.initializer)] or ["x"]


def _scalar(field: Any, random: Random, root: ModelProto) -> Any:
    """An edge value of a field's type."""
    if field.type in (_TYPES.TYPE_FLOAT, _TYPES.TYPE_DOUBLE):
        return random.choice(FLOATS)
    if field.type == _TYPES.TYPE_STRING:
        return random.choice([*TEXTS, *_names(root.graph)[:50]])
    if field.type == _TYPES.TYPE_BYTES:
        return random.choice([b"", b"\xff\xfe", random.randbytes(5), b"x" * 5000])
    if field.type == _TYPES.TYPE_ENUM:
        return random.choice([value.number for value in field.enum_type.values])
    if field.type in (_TYPES.TYPE_INT32,):
        return random.choice([n for n in INTEGERS if -(2**31) <= n < 2**31])
    if field.type in (_TYPES.TYPE_UINT64,):
        return abs(random.choice(INTEGERS))
    return random.choice(INTEGERS)


def set_field(model: ModelProto, random: Random) -> None:
    """A scalar somewhere becomes an edge value."""
    for _ in range(20):
        message = random.choice(list(messages(model)))
        scalars = [f for f in message.DESCRIPTOR.fields if f.type not in (_TYPES.TYPE_MESSAGE, _TYPES.TYPE_GROUP)]
        if not scalars:
            continue
        field = random.choice(scalars)
        value = _scalar(field, random, model)
        if _repeated(field):
            values = getattr(message, field.name)
            if len(values) and random.random() < 0.7:
                values[random.randrange(len(values))] = value
            else:
                values.append(value)
        else:
            setattr(message, field.name, value)
        return


def clear_field(model: ModelProto, random: Random) -> None:
    """A field somewhere is lost."""
    message = random.choice(list(messages(model)))
    if fields := message.ListFields():
        message.ClearField(random.choice(fields)[0].name)


def repeat(model: ModelProto, random: Random) -> None:
    """An element is doubled, lost, or put elsewhere in its list."""
    lists = [
        value
        for message in messages(model)
        for field, value in message.ListFields()
        if _repeated(field) and field.type == _TYPES.TYPE_MESSAGE
    ]
    if not lists:
        return
    found = random.choice(lists)
    element = type(found[0])()
    element.CopyFrom(random.choice(found))
    if random.random() < 0.5:
        del found[random.randrange(len(found))]
    if random.random() < 0.7:
        found.append(element)


def graft(model: ModelProto, random: Random) -> None:
    """A message takes the content of another one of its type."""
    found = list(messages(model))
    target = random.choice(found)
    others = [message for message in found if type(message) is type(target) and message is not target]
    if others and not isinstance(target, ModelProto | GraphProto):
        copy = type(target)()
        copy.CopyFrom(random.choice(others))
        target.CopyFrom(copy)


def rewire(model: ModelProto, random: Random) -> None:
    """An input or output takes another name: cycles, undefined names, two writers, a name too many or too few."""
    graph = random.choice(graphs(model))
    if not graph.node:
        return
    node, name = random.choice(graph.node), random.choice([*_names(graph), "", "nowhere"])
    ends = random.choice([node.input, node.output])
    match random.randrange(3):
        case 0 if ends:
            ends[random.randrange(len(ends))] = name
        case 1 if ends:
            del ends[random.randrange(len(ends))]
        case _:
            ends.append(name)


def retype(model: ModelProto, random: Random) -> None:
    """An attribute takes a value of another type, under its name; with or without the type that it declares."""
    attributes = [message for message in messages(model) if isinstance(message, AttributeProto)]
    if not attributes:
        return
    attribute = random.choice(attributes)
    value: Any = random.choice([3, 1.5, "a", [1, 2], [1.5, float("nan")], ["a", "b"], [], TensorProto(dims=[2])])
    declared = attribute.type
    made = helper.make_attribute(attribute.name, value, attr_type=AttributeProto.INTS if value == [] else None)
    attribute.CopyFrom(made)
    if random.random() < 0.3:
        attribute.type = declared


def attribute(model: ModelProto, random: Random) -> None:
    """A node takes an attribute that one of the operators has, with a value of some type."""
    if nodes := _nodes(model):
        name = random.choice(_ATTRIBUTES)
        value: Any = random.choice(
            [0, -1, 2**40, 1.5, float("nan"), "a", [1], [2**40, 2], [0.5], ["a"], _tensor(random)]
        )
        random.choice(nodes).attribute.append(helper.make_attribute(name, value))


_ATTRIBUTES = [
    *(
        "value",
        "value_int",
        "value_ints",
        "value_float",
        "value_floats",
        "value_string",
        "start",
        "end",
        "axis",
        "axes",
    ),
    *("to", "num_outputs", "split", "body", "then_branch", "kernel_shape", "pads", "strides", "dilations", "group"),
    *("perm", "num_scan_inputs", "scan_input_axes", "scan_output_axes", "equation", "shape", "keepdims", "auto_pad"),
    *("block_size", "mode", "blocksize", "ceil_mode"),
]


def operator(model: ModelProto, random: Random) -> None:
    """A node becomes another operator, or one of another domain."""
    nodes = _nodes(model)
    if not nodes:
        return
    node = random.choice(nodes)
    if random.random() < 0.2:
        node.domain = random.choice(["ai.onnx", "ai.onnx.ml", "com.microsoft", "mine", "a" * 5000])
    else:
        node.op_type = random.choice(_OPERATORS)


_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()} | {"Foo"})


def _tensor(random: Random) -> TensorProto:
    """A tensor whose statements need not agree with one another."""
    tensor = TensorProto(name=random.choice(["", "w", "t"]), data_type=random.randrange(26))
    tensor.dims.extend(random.choice(INTEGERS) for _ in range(random.choice([0, 1, 1, 2, 3, 300])))
    match random.randrange(4):
        case 0:
            tensor.raw_data = random.randbytes(random.choice([0, 3, 8, 64]))
        case 1:
            tensor.int64_data.extend([1, 2**40])
        case 2:
            tensor.float_data.extend([float("nan"), 1.0])
        case _:
            tensor.string_data.append(b"\xff")
    return tensor


def dimensions(model: ModelProto, random: Random) -> None:
    """A tensor or a declared value takes other dimensions."""
    found = [m for m in messages(model) if isinstance(m, TensorProto | onnx.TensorShapeProto)]
    if not found:
        return
    message = random.choice(found)
    count = random.choice([0, 1, 1, 2, 4, 65])
    sizes = [random.choice(INTEGERS) for _ in range(count)]
    if isinstance(message, TensorProto):
        message.ClearField("dims")
        message.dims.extend(sizes)
    else:
        message.ClearField("dim")
        message.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=size) for size in sizes)


def initializer(model: ModelProto, random: Random) -> None:
    """A constant is replaced by one whose statements do not agree, by external data, or by a sparse one."""
    graph = random.choice(graphs(model))
    name = random.choice([tensor.name for tensor in graph.initializer] or _names(graph))
    tensor = _tensor(random)
    tensor.name = name
    match random.randrange(3):
        case 0:
            keys = {
                "location": random.choice(["data.bin", "", ".", "../x", "/dev/zero", "a\x00b", "n" * 5000]),
                "offset": random.choice(["0", "abc", "1e3", "0x10", "²", "9" * 20, "9" * 5000, "-1"]),
                "length": random.choice(["16", "", "abc", "9" * 30, "-1", "²"]),
            }
            tensor.data_location = TensorProto.EXTERNAL
            for key in random.sample(list(keys), random.choice([1, 2, 3])):
                tensor.external_data.add(key=key, value=keys[key])
            graph.initializer.append(tensor)
        case 1:
            sparse = graph.sparse_initializer.add()
            sparse.values.CopyFrom(tensor)
            sparse.indices.CopyFrom(_tensor(random))
            sparse.dims.extend(random.choice(INTEGERS) for _ in range(random.randrange(4)))
        case _:
            del graph.initializer[:1]
            graph.initializer.append(tensor)


def metadata(model: ModelProto, random: Random) -> None:
    """A node says where it came from in a way that no exporter would."""
    if nodes := _nodes(model):
        key = random.choice(["pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy", "namespace"])
        random.choice(nodes).metadata_props.add(key=key, value=random.choice(SCOPES))


def function(model: ModelProto, random: Random) -> None:
    """A node calls a local function: one that calls itself, that is missing an input, or that calls the next twice."""
    if not model.graph.node:
        return
    depth = random.choice([0, 1, 3, 10, 14, 18, 30, 40])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for level in range(depth + 1):
        called = "F0" if level == 0 and random.random() < 0.3 else f"F{level - 1}"
        body = [
            helper.make_node(called, ["a"], ["t"], domain="local"),
            helper.make_node(called, ["t"], ["b"], domain="local"),
        ]
        if level == 0 and called != "F0":
            body = [helper.make_node("Relu", ["a"], ["b"])]
        model.functions.append(helper.make_function("local", f"F{level}", ["a"], ["b"], body, imports))
    model.opset_import.append(helper.make_opsetid("local", 1))
    node = random.choice(model.graph.node)
    node.op_type, node.domain = f"F{depth}", "local"


def nest(model: ModelProto, random: Random) -> None:
    """A node takes a body: the graph itself, some levels deep."""
    graph = GraphProto()
    graph.CopyFrom(model.graph)
    if model.ByteSize() > 100_000 or not graph.node:
        return
    for _ in range(random.choice([1, 1, 2, 20])):
        outer = GraphProto(name="outer")
        outer.output.extend(graph.output)
        outer.node.append(
            helper.make_node("If", ["c"], [o.name for o in graph.output], then_branch=graph, else_branch=graph)
        )
        if outer.ByteSize() > 1_000_000:
            break
        graph = outer
    random.choice(model.graph.node).attribute.append(helper.make_attribute("body", graph))


def lengthen(model: ModelProto, random: Random) -> None:
    """Thousands of nodes in a row behind an output."""
    graph = model.graph
    if not graph.output:
        return
    name, op = graph.output[0].name, random.choice(["Relu", "Identity", "Unsqueeze", "Add", "Shape", "Cast"])
    for number in range(random.choice([100, 300, 3000])):
        inputs = [name, name] if op == "Add" else [name]
        node = helper.make_node(op, inputs, [f"long{number}"])
        if op == "Unsqueeze":
            node.attribute.append(helper.make_attribute("axes", [0]))
        if op == "Cast":
            node.attribute.append(helper.make_attribute("to", 1))
        graph.node.append(node)
        name = f"long{number}"
    graph.output[0].name = name


def surround(model: ModelProto, random: Random) -> None:
    """Quantization in front of and behind a node, and an output too many."""
    graph = model.graph
    if not graph.node:
        return
    node = random.choice(graph.node)
    if random.random() < 0.5:
        node.op_type = random.choice(["Split", "TopK", "MaxPool", "Dropout", "LSTM", "BatchNormalization"])
    node.output.append("extra")
    graph.initializer.append(helper.make_tensor("qs", 1, [], [0.1]))
    graph.initializer.append(helper.make_tensor("qz", 3, [], [0]))
    for place, name in enumerate(list(node.input)[:1]):
        graph.node.add().CopyFrom(helper.make_node("QuantizeLinear", [name, "qs", "qz"], ["qq"]))
        graph.node.add().CopyFrom(helper.make_node("DequantizeLinear", ["qq", "qs", "qz"], ["dq"]))
        node.input[place] = "dq"
    graph.node.add().CopyFrom(helper.make_node("QuantizeLinear", ["extra", "qs", "qz"], ["eq"]))
    graph.node.add().CopyFrom(helper.make_node("DequantizeLinear", ["eq", "qs", "qz"], ["ed"]))


Mutation = Callable[[ModelProto, Random], None]
_MUTATIONS: Sequence[Mutation] = (
    set_field, clear_field, repeat, graft, rewire, retype, attribute, operator, dimensions, initializer, metadata,
    function, nest, lengthen, surround,
)  # fmt: skip
_WEIGHTS = (20, 10, 10, 8, 10, 8, 8, 10, 10, 8, 3, 3, 2, 0.5, 4)


def read(path: Path) -> ModelProto | None:
    """A model to damage; None where the file is none."""
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        return None
    return model
