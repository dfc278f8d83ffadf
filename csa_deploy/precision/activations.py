"""Values of activations on a few samples, for techniques that need more than their statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort

Feeds = dict[str, np.ndarray]


def open_session(model: onnx.ModelProto, threads: int | None) -> ort.InferenceSession:
    """A graph in ONNX Runtime on the CPU; ``threads`` None for one per core."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def activations(
    model: onnx.ModelProto, names: Sequence[str], samples: Iterable[Feeds], *, threads: int | None = None
) -> Iterator[Mapping[str, np.ndarray]]:
    """Arrays by tensor name, sample by sample: the memory is that of one sample.

    Args:
        model: graph; not changed.
        names: FP32 tensors of its main graph, network inputs among them.
        samples: network inputs of the graph's batch size.
        threads: of ONNX Runtime.
    """
    inputs = {value.name for value in model.graph.input}
    present = {value.name for value in model.graph.output}
    wanted = [name for name in dict.fromkeys(names) if name not in inputs]
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    observed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in wanted if name not in present
    )
    session = open_session(observed, threads)
    for feeds in samples:
        yield {**feeds, **dict(zip(wanted, session.run(wanted, feeds), strict=True))} if wanted else feeds
