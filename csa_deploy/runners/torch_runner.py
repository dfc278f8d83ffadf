"""Runs a PyTorch module: on the CPU it is the reference that every other backend is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.network import Sample
from csa_deploy.runners.base import check_feeds
from csa_deploy.spec import Arrays, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from csa_deploy.instance import Network


class TorchRunner:
    """Eager PyTorch, in inference mode, without autocast.

    Args:
        module: the network; it is put into eval mode.
        inputs: input names, static shapes and types, in the order of ``module.forward``.
        output_names: one name per output tensor, in the order of the module's (flattened) result.
        threads: intra-op threads while entered; None keeps PyTorch's setting.
        device: where it runs, ``"cpu"`` or ``"cuda"``; the module is moved there.
        outputs: what the module returns, if known; else found by running it once.
        sample: what one sample is; None: as the shapes say.

    Raises:
        EnvironmentLacksError: this PyTorch has no CUDA device.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Sequence[TensorSpec],
        output_names: Sequence[str],
        *,
        threads: int | None = None,
        device: str = "cpu",
        name: str = "torch",
        outputs: Sequence[TensorSpec] | None = None,
        sample: Sample | None = None,
    ) -> None:
        import torch

        if device != "cpu" and not torch.cuda.is_available():
            raise EnvironmentLacksError(
                f"{name} cannot run: PyTorch {torch.__version__} finds no CUDA device",
                fix="run on a machine with an NVIDIA GPU and a PyTorch built for CUDA",
            )
        self.name, self.sample = name, sample
        self.device = device
        self.module = module.eval().to(device)
        self._inputs = tuple(inputs)
        self.output_names = tuple(output_names)
        self._outputs = outputs
        self._threads = threads
        self._threads_before: int | None = None

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Inputs as given."""
        return self._inputs

    @cached_property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        """Outputs; those of a module that says nothing of them are found by running it once on zeros."""
        if self._outputs is not None:
            return tuple(self._outputs)
        zeros = {spec.name: np.zeros(spec.static_shape, spec.dtype) for spec in self._inputs}
        return tuple(TensorSpec(name, array.shape, array.dtype.name) for name, array in self.run(zeros).items())

    def describe(self) -> dict[str, Any]:
        """What executes."""
        import torch

        return {
            "backend": "torch",
            "version": torch.__version__,
            "provider": "CPU" if self.device == "cpu" else torch.cuda.get_device_name(),
            "threads": self._threads or torch.get_num_threads(),
            "executes": "the PyTorch module, eager, inference mode",
        }

    @property
    def host_threads(self) -> int:
        """PyTorch's intra-op threads; none for a module on a GPU."""
        import torch

        return (self._threads or torch.get_num_threads()) if self.device == "cpu" else 0

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Execute once; see :class:`csa_deploy.runners.base.Runner`."""
        import torch

        check_feeds(self._inputs, feeds)
        # Copies, so that a module that works in place cannot change what the other backends get.
        tensors = [torch.from_numpy(np.array(feeds[spec.name], order="C")).to(self.device) for spec in self._inputs]
        with torch.inference_mode():
            outputs = list(_flatten(self.module(*tensors)))
        if len(outputs) != len(self.output_names):
            raise UsageError(
                f"the module returns {len(outputs)} tensors, {len(self.output_names)} output names were given",
                fix="name every output of the module once",
            )
        return {name: output.cpu().numpy() for name, output in zip(self.output_names, outputs, strict=True)}

    def __enter__(self) -> TorchRunner:
        """Set the thread count, which PyTorch keeps per process."""
        if self._threads is not None:
            import torch

            self._threads_before = torch.get_num_threads()
            torch.set_num_threads(self._threads)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the thread count."""
        if self._threads_before is not None:
            import torch

            torch.set_num_threads(self._threads_before)
            self._threads_before = None


def torch_runner(network: Network, threads: int | None = None) -> TorchRunner:
    """The runner of a network in memory."""
    names, sample = network.output_names, network.sample
    return TorchRunner(network.module, network.input_specs, names, threads=threads, sample=sample)


def _flatten(result: Any) -> Iterable[Tensor]:
    """Tensors of a module's result in order: a tensor, or nested sequences and mappings of tensors."""
    if isinstance(result, Mapping):
        result = list(result.values())
    if isinstance(result, (list, tuple)):
        for item in result:
            yield from _flatten(item)
    elif hasattr(result, "detach"):
        yield result
    else:
        raise UsageError(f"the module returns a {type(result).__name__}", fix="return tensors, tuples or dicts of them")
