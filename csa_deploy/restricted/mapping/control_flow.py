"""Branches, loops, and recurrent layers, which TensorRT builds as loops."""

from __future__ import annotations

from csa_deploy.restricted.graph import Value
from csa_deploy.restricted.mapping.recorder import Recorder, importer


@importer("If")
def _if(net: Recorder) -> None:
    condition = net.tensor(0)
    net.add("CONDITION", [condition], condition)
    for output in net.node.outputs:
        net.add("CONDITIONAL_OUTPUT", [output, output], output)


@importer("Loop", "Scan")
def _loop(net: Recorder) -> None:
    inputs = [net.as_tensor(value) for value in net.node.inputs if value is not None]
    is_loop = net.node.op == "Loop"
    for index, dtype in enumerate(("int32", "bool") if is_loop else ("int32",)):  # trip count, then condition
        if not is_loop or net.node.input(index) is not None:
            limit = Value("", dtype, ())
            net.add("TRIP_LIMIT", [limit], limit)
    carried = [net.as_tensor(value) for value in net.node.inputs[2:] if value is not None] if is_loop else inputs
    for value in carried:
        net.add("RECURRENCE", [value], value)
    if not is_loop and carried and net.version >= (10,):  # the trip count is read off the last scanned input
        net.add("SHAPE", [carried[-1]], Value("", "int64", (carried[-1].rank,)))
    for output in net.node.outputs:
        net.add("LOOP_OUTPUT", [output], output)


@importer("RNN", "LSTM", "GRU")
def _recurrent(net: Recorder) -> None:
    source = net.tensor(0)
    if net.node.op != "LSTM" and net.dtype(source) != "float32":
        net.refuse_from_10(f"a {net.node.op} of {net.dtype(source)}: its initial state is float32")
    output = next((value for value in net.node.outputs if value.name), net.out)
    weights = net.required(2).shape
    batch = None if source.shape is None else source.shape[net.attr("layout", 0) ^ 1]
    # The state of all directions: [directions, batch, hidden size].
    state = Value("", source.dtype, None if weights is None else (weights[0], batch, weights[2]))
    step = Value("", source.dtype, None if source.shape is None else source.shape[1:])
    limit = Value("", "int32", ())
    net.add("TRIP_LIMIT", [limit], limit)
    net.add("ITERATOR", [source], step)
    net.add("RECURRENCE", [state], state)
    net.add("MATRIX_MULTIPLY", [state, state], state, transpose=["NONE", "TRANSPOSE"])
    net.activation("SIGMOID" if net.node.op != "RNN" else "TANH", state, state)
    net.elementwise("SUM", state, state, state)
    net.add("LOOP_OUTPUT", [state], output)
