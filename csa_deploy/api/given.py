"""What a caller may give: networks, graphs and data in their many forms, each brought into one."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from csa_deploy.api.results import GraphResult
from csa_deploy.data.arrays import LABELS, TOLD, target_arrays
from csa_deploy.errors import UsageError
from csa_deploy.export.metadata import PREFIX
from csa_deploy.graph.external import is_external
from csa_deploy.graph.facts import all_tensors
from csa_deploy.graph.guard import guarded_reading
from csa_deploy.graph.load import load_model, save_model
from csa_deploy.naming import unknown
from csa_deploy.source import Source, load_source, slug_of

OBJECT = " (object)"
"""Behind the name of a module in memory, which no file has."""

_MOST_BYTES = 2**30
"""Bytes of samples that are taken from an iterable without a number of samples: it may never end."""

Graph = onnx.ModelProto | GraphResult | str | Path
"""A graph in memory, a file, or a result that holds one."""

Network = Any
"""A registered name, ``file.py:factory``, ``package.module:factory``, an ``.onnx`` path, a model in memory, a
``torch.nn.Module``, or a callable that makes one."""

Data = Any
"""An array of the only input, a mapping of arrays by input, a named set, a path, or an iterable of batches."""


@dataclass(frozen=True)
class ObjectSource(Source):
    """A module in memory, or a callable that makes one.

    Attributes:
        made: that.
    """

    made: Any = None

    @contextmanager
    def opened(self) -> Iterator[tuple[Any, Any]]:
        """The object itself; it declares its preprocessing, if any, as its own attribute."""
        yield self.made, getattr(self.made, "preprocessing", None)

    def require_factory(self) -> None:
        """It is there."""

    def untrained(self, checkpoint: str | None) -> str:
        """Nobody can tell of an object."""
        return ""

    def fingerprint(self) -> str:
        """SHA-256 over the names, types and bytes of all parameters and buffers and over the class with its source.

        Code that the class calls is not seen; give a workspace of its own to each network.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        import torch

        from csa_deploy.instance import make_module

        module = make_module(self.made, self.spec, self.input_size)  # it may not run at a default size
        described = [self.kind, self.input_size, *map(_described, (type(module), self.made))]
        digest = hashlib.sha256(repr(described).encode())
        for name, tensor in sorted(module.state_dict().items()):
            array = tensor.detach().cpu().contiguous()
            digest.update(f"{name}\0{array.dtype}\0{tuple(array.shape)}\0".encode())
            digest.update(array.flatten().view(torch.uint8).numpy().tobytes() if array.numel() else b"")
        digest.update(repr(module).encode())  # settings of the layers, such as strides
        return digest.hexdigest()


def _described(thing: Any) -> tuple[str, str]:
    """Qualified name and source text of a class or function; of another object no more than its type's name."""
    named = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    try:
        text = inspect.getsource(named)
    except (OSError, TypeError):
        text = ""
    return f"{named.__module__}.{named.__qualname__}", text


def source_of(network: Network, folder: Path) -> Source:
    """The network as what the stages take.

    Args:
        network: in one of its forms.
        folder: where a model in memory is put.

    Raises:
        UsageError: it is none of these forms, or not there.
    """
    if isinstance(network, GraphResult):
        origin = network.source
        gone = origin is None or (origin.kind == "onnx" and not (origin.path and origin.path.is_file()))
        return _file_of(network.graph, network.name, folder) if gone or origin is None else origin
    if isinstance(network, onnx.ModelProto):
        return _file_of(graph_of(network), name_of(network), folder)
    if isinstance(network, (str, Path)):
        return load_source(str(network))
    if not callable(network):
        raise UsageError(
            f"a {type(network).__name__} is no network",
            fix="give a name, file.py:factory, a file.onnx, a torch.nn.Module or a function that makes one",
        )
    name = getattr(network, "__name__", type(network).__name__)
    return ObjectSource("module", f"{name}{OBJECT}", slug_of(name), made=_snapshot(network, name))


def _snapshot(network: Any, name: str) -> Any:
    """A copy of a module as it is now, which nothing done to it later changes, and no stage changes the module."""
    if not hasattr(network, "state_dict"):
        return network
    try:
        return copy.deepcopy(network)
    except Exception as error:  # other people's code
        said = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{name}: the module cannot be copied ({said})", fix="give a function that makes it instead"
        ) from error


def _file_of(model: onnx.ModelProto, name: str, folder: Path) -> Source:
    path = folder / f"{name}.onnx"
    save_model(model, path)
    return Source("onnx", path.name, name, path=path)


def graph_of(graph: Graph) -> onnx.ModelProto:
    """The graph in memory.

    Raises:
        UsageError: it is no graph, its file cannot be read, or its weights are in a file that was not loaded: what
            would be found of that name in the working directory may be another graph's.
    """
    if isinstance(graph, onnx.ModelProto):
        if outside := next((tensor.name for tensor in all_tensors(graph) if is_external(tensor)), ""):
            raise UsageError(
                f"{name_of(graph)}: '{outside}' and other weights were not loaded with the graph",
                fix="give the path of the .onnx file, or what onnx.load returns without load_external_data=False",
            )
        return graph
    if isinstance(graph, GraphResult):
        return graph.graph
    if isinstance(graph, (str, Path)) and Path(graph).suffix == ".onnx":
        return read_graph(Path(graph))
    raise UsageError(
        f"{graph if isinstance(graph, (str, Path)) else type(graph).__name__}: no ONNX graph",
        fix="give an onnx.ModelProto, the path of an .onnx file, or what csa_deploy.export(...) returns",
    )


def read_graph(path: Path) -> onnx.ModelProto:
    """A file of unknown origin: what damaged ones do to native code happens in a child process first."""
    guarded_reading(lambda: load_model(path, full_check=False) and None, path)
    return load_model(path, full_check=False)


def name_of(graph: Graph) -> str:
    """The name of a graph for files and messages."""
    if isinstance(graph, GraphResult):
        return graph.name
    if isinstance(graph, (str, Path)):
        return slug_of(str(graph))
    exported_of = next((entry.value for entry in graph.metadata_props if entry.key == f"{PREFIX}network"), "")
    return slug_of(exported_of or graph.graph.name or "graph")


def origin_of(graph: Graph) -> Source | None:
    """The network that a graph was made of, where that is known."""
    return graph.source if isinstance(graph, GraphResult) else None


def data_spec(
    data: Data, inputs: Iterable[str], folder: Path, *, labels: Any = None, samples: int | None = None
) -> str | None:
    """Data as the stages take them: a name or a path; arrays are written to a file named by what it holds.

    Args:
        data: in one of its forms; tensors as the network takes them, already preprocessed.
        inputs: names of the network's inputs.
        folder: for that file.
        labels: one per sample: class indices, masks (n, H, W), or ``Boxes`` and ``Mask``; batches may bring classes.
        samples: take so many of an iterable.

    Raises:
        UsageError: it is none of these forms, arrays do not go together, or an iterable does not end.
    """
    if is_named(data):
        if labels is not None:
            raise UsageError("labels go with arrays; a data set brings its own", fix="drop labels=, or give arrays")
        return None if data is None else str(data)
    arrays = _arrays(data, list(inputs), samples)
    if labels is not None:
        arrays |= target_arrays(labels if samples is None else labels[:samples])
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    path = folder / f"arrays-{digest.hexdigest()[:16]}.npz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def is_named(data: Data) -> bool:
    """Whether data are named, or none are given: no array is at hand."""
    return data is None or isinstance(data, (str, Path))


def _arrays(data: Data, inputs: list[str], samples: int | None) -> dict[str, np.ndarray]:
    if isinstance(data, Mapping) or _is_array(data) or _is_labelled(data):
        found = _batch(data, inputs)
        return found if samples is None else {name: array[:samples] for name, array in found.items()}
    if not isinstance(data, Iterable):
        raise UsageError(
            f"a {type(data).__name__} is no data",
            fix="give an array, a mapping of arrays by input, the name or path of a data set, or batches",
        )
    return _joined((_batch(batch, inputs) for batch in data), samples)


def _joined(batches: Iterator[dict[str, np.ndarray]], samples: int | None) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {}
    count = size = 0
    for batch in batches:
        if parts and batch.keys() != parts.keys():
            raise UsageError(f"a batch holds {', '.join(batch)}, those before it {', '.join(parts)}")
        for name, array in batch.items():
            parts.setdefault(name, []).append(array)
        count += len(next(iter(batch.values())))
        size += sum(array.nbytes for array in batch.values())
        if samples is not None and count >= samples:
            break
        if samples is None and size > _MOST_BYTES:
            raise UsageError(
                f"more than {_MOST_BYTES >> 20:,} MiB of batches, and no end",
                fix="give samples=N, or a path of an .npz",
            )
    if not count:
        raise UsageError("the data hold no samples", fix="give at least one batch; a generator gives its batches once")
    return {name: np.concatenate(arrays)[:samples] for name, arrays in parts.items()}


def _batch(batch: Any, inputs: list[str]) -> dict[str, np.ndarray]:
    """Arrays by input of a mapping, of the only input's array, or of (that, labels)."""
    if _is_labelled(batch):
        return {**_batch(batch[0], inputs), LABELS: _array(batch[1])}
    if isinstance(batch, Mapping):
        for name in batch:
            if name not in (*inputs, *TOLD):
                raise UsageError(unknown("input", str(name), inputs), fix=f"the network's: {', '.join(inputs)}")
        return {str(name): _array(array) for name, array in batch.items()}
    if len(inputs) != 1:
        raise UsageError(
            f"the network has {len(inputs)} inputs: {', '.join(inputs)}", fix="give a mapping of arrays by input"
        )
    return {inputs[0]: _array(batch)}


def _is_labelled(data: Any) -> bool:
    """Whether it is (arrays, one label per sample), as data loaders give it."""
    return isinstance(data, (tuple, list)) and len(data) == 2 and _is_array(data[1]) and data[1].ndim == 1


def _is_array(data: Any) -> bool:
    return isinstance(data, np.ndarray) or hasattr(data, "detach")


def _array(data: Any) -> np.ndarray:
    """A NumPy array of an array or a tensor."""
    try:
        array = np.asarray(data.detach().cpu() if hasattr(data, "detach") else data)
    except ValueError as error:
        raise UsageError(f"no array can be made of a {type(data).__name__}: {error}", fix="give arrays") from None
    if array.dtype.kind not in "fiub":
        raise UsageError(f"an array of type {array.dtype} is no input of a network", fix="give numbers")
    return array
