"""PyTorch's own values at the boundaries of its modules, for a graph that has no reference graph: the export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from csa_deploy.graph.scopes import module_paths
from csa_deploy.runners.torch_runner import TorchRunner
from csa_deploy.verify.localize.boundaries import Boundary, boundaries, view_of


def module_boundaries(model: onnx.ModelProto, runner: TorchRunner) -> list[Boundary]:
    """Tensors of an exported graph that are the only one to leave a PyTorch module, each with that module."""
    known = {name for name, _ in runner.module.named_modules() if name}
    paths = {name: [p for p in around if p in known] for name, around in module_paths(model).items()}
    view = view_of(model)
    leaving: dict[str, list[str]] = {}
    for node in view.graph:
        for value in node.outputs:
            readers = [set(paths.get(user.name or "", ())) for user, _ in value.uses()]
            for path in paths.get(node.name or "", ()):
                if value.is_graph_output() or any(path not in around for around in readers):
                    leaving.setdefault(path, []).append(str(value.name))
    depths = sorted(leaving, key=lambda path: path.count("."))
    makers = {tensors[0]: path for path in depths if len(tensors := leaving[path]) == 1}  # the innermost module last
    found = boundaries(view, {name: around[-1] if around else "" for name, around in paths.items()}, view)
    kept = [replace(b, module=makers[b.tensor]) for b in found if b.tensor in makers]
    return _relinked(kept, found)


def _relinked(kept: list[Boundary], all_: list[Boundary]) -> list[Boundary]:
    """Boundaries whose predecessors are among themselves."""
    by_name, names = {b.tensor: b for b in all_}, {b.tensor for b in kept}

    def before(bound: Boundary, seen: set[str]) -> set[str]:
        found: set[str] = set()
        for tensor in set(bound.before) - seen:
            seen.add(tensor)
            found |= {tensor} if tensor in names else before(by_name[tensor], seen)
        return found

    return [replace(b, before=tuple(sorted(before(b, set())))) for b in kept]


class TorchSource:
    """Boundary values from the PyTorch module, taken where its sub-modules return.

    Args:
        makers: tensor -> path of the sub-module that returns it.
    """

    def __init__(self, runner: TorchRunner, makers: Mapping[str, str]) -> None:
        self.runner, self.makers = runner, makers

    def values(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See :class:`csa_deploy.verify.localize.measure.TrueValues`."""
        found: dict[str, np.ndarray] = {}
        modules = dict(self.runner.module.named_modules())
        with ExitStack() as hooks:
            for tensor, path in self.makers.items():
                hooks.enter_context(_hooked(modules[path], tensor, found))
            self.runner.run(feeds)
        return found


@contextmanager
def _hooked(module: Any, tensor: str, found: dict[str, np.ndarray]) -> Iterator[None]:
    def keep(module: Any, inputs: Any, output: Any) -> None:
        if hasattr(output, "detach"):
            found[tensor] = output.detach().cpu().numpy().copy()  # a later module may work in place

    handle = module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()
