"""A network in memory: the module that a factory made, its example inputs, names and preprocessing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.errors import CsaDeployError, UsageError
from csa_deploy.network import NetworkEntry, Preprocessing, Sample
from csa_deploy.spec import Sampling, TensorSpec, sampling_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from csa_deploy.boxes import Postprocessing

IMAGENET = Preprocessing((224, 224))
INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class Network:
    """A module that is ready to be exported.

    Attributes:
        module: in eval mode, on the CPU.
        inputs: example inputs by name, in the order of ``module.forward``.
        outputs: one per output tensor, flattened in order.
        preprocessing: how an image becomes the input; None when the inputs are no single image.
        weights: where the weights come from, in words.
        notes: what was assumed about it.
        sample: what one sample is; None: as the shapes say.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    weights: str
    notes: tuple[str, ...] = ()
    sample: Sample | None = None

    @property
    def output_names(self) -> tuple[str, ...]:
        """One per output tensor, flattened in order."""
        return tuple(spec.name for spec in self.outputs)

    @property
    def sampling(self) -> Sampling:
        """How samples go through it."""
        return sampling_of(self.input_specs, self.outputs, self.sample)

    @property
    def postprocessing(self) -> Postprocessing | None:
        """How its outputs become boxes: what the module carries as ``postprocessing``, or None.

        Raises:
            UsageError: it carries something else.
        """
        from csa_deploy.boxes import Postprocessing

        stated = getattr(self.module, "postprocessing", None)
        try:
            return Postprocessing.from_json(stated) if isinstance(stated, Mapping) else stated
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"the network's postprocessing is not readable: {_reason(error)}") from error

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Names, static shapes and types of the inputs."""
        return tuple(_spec(name, tensor) for name, tensor in self.inputs.items())


def make_network(
    factory: Any,
    where: str,
    *,
    declared: Any = None,
    input_size: tuple[int, int] | None = None,
    batch: int | None = None,
    checkpoint: Path | None = None,
    checkpoint_key: str | None = None,
    sample: Sample | None = None,
) -> Network:
    """Call a factory and describe what it made.

    torch's random generator is seeded during the call, so that a factory without weights makes the same network each
    time, and restored after it.

    Args:
        factory: a :class:`NetworkEntry`, a module, or a callable without arguments or with ``input_size``.
        where: the factory's name in messages.
        declared: preprocessing declared beside the factory (a :class:`Preprocessing` or its JSON form); one that the
            module carries as ``preprocessing`` goes first.
        input_size: (height, width) in pixels; the preprocessing's without it.
        batch: samples of one inference; None takes the module's example inputs as they are, or 1 without any.
        checkpoint: file with the weights to load.
        checkpoint_key: see :func:`csa_deploy.checkpoint.load_checkpoint`.
        sample: what one sample is; None: as the shapes say, and as a trial finds where the batch is not asked for.

    Raises:
        UsageError: the factory fails or makes no module, the module fails on its example inputs, or its outputs do not
            have the batch that is asked for.
    """
    weights = "as the factory sets them (seed 0)"
    if isinstance(factory, NetworkEntry):
        factory, declared, weights = factory.factory, factory.preprocessing, factory.weights
        input_size = input_size or declared.size
    module = make_module(factory, where, input_size)
    if checkpoint is not None:
        from csa_deploy.checkpoint import load_checkpoint

        weights = f"{checkpoint.name} ({load_checkpoint(module, checkpoint, key=checkpoint_key)})"
    preprocessing = _preprocessing(module, declared, where, input_size)
    assumed = preprocessing is not None and getattr(module, "preprocessing", declared) is None
    said = f"the network states no preprocessing; assumed {preprocessing}: write preprocessing beside the factory"
    notes = (said,) if assumed else ()
    inputs = example_inputs(module, preprocessing, where, batch)
    outputs = _outputs(module, inputs, where)
    network = Network(module, inputs, outputs, preprocessing, weights, notes, sample)
    return replace(network, notes=(*notes, *_batch_notes(network, where, batch)))


def make_module(factory: Any, where: str, input_size: tuple[int, int] | None = None) -> nn.Module:
    """The module alone, on the CPU and in evaluation mode, not run yet; see :func:`make_network`.

    Raises:
        UsageError: the factory fails or makes no module.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        module = factory if isinstance(factory, nn.Module) else _call(factory, where, input_size)
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"{where} returns a {type(module).__name__}, not a torch.nn.Module", fix="return the network's module"
        )
    return module.cpu().eval()


def _batch_notes(network: Network, where: str, batch: int | None) -> list[str]:
    """What is to be said about the batch; raises UsageError where the outputs do not have the one asked for."""
    sampling = network.sampling
    if sampling.kind == "batched":
        adopted = batch is None and (sampling.batch or 1) > 1
        return [f"batch {sampling.batch}, which is that of example_inputs"] if adopted else []
    listed = ", ".join(f"{s.name} {list(s.shape)}" for s in (*network.input_specs, *network.outputs))
    if batch is not None and batch > 1:
        raise UsageError(
            f"{where}: --batch {batch}, but not all inputs and outputs have it as their first axis: {listed}",
            fix="drop --batch: a sample is then all that one inference takes",
        )
    why = "as asked for" if network.sample else f"inputs and outputs share no batch axis ({listed})"
    return [f"a sample is {sampling.words}: {why}"]


def _call(factory: Any, where: str, input_size: tuple[int, int] | None) -> Any:
    if not callable(factory):
        raise UsageError(f"{where} is a {type(factory).__name__}, not a factory", fix="name a function that makes it")
    try:
        takes_size = "input_size" in inspect.signature(factory).parameters
        return factory(input_size=input_size) if takes_size and input_size else factory()
    except CsaDeployError:
        raise
    except (Exception, SystemExit) as error:  # other people's code
        raise UsageError(f"{where} fails: {_reason(error)}", fix="make the factory run by itself first") from error


def _preprocessing(module: nn.Module, declared: Any, where: str, size: tuple[int, int] | None) -> Preprocessing | None:
    found = getattr(module, "preprocessing", declared)
    if found is None:
        if hasattr(module, "example_inputs"):
            return None
        found = IMAGENET
    if isinstance(found, Mapping):
        try:
            found = Preprocessing.from_json({**IMAGENET.to_json(), **found})
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{where}: its preprocessing is not readable: {_reason(error)}") from error
    if not isinstance(found, Preprocessing):
        raise UsageError(f"{where}: its preprocessing is a {type(found).__name__}, not a Preprocessing or dict")
    return found.with_size(size) if size else found


def example_inputs(
    module: nn.Module, preprocessing: Preprocessing | None, where: str, batch: int | None = None
) -> dict[str, Tensor]:
    """The module's own ``example_inputs``, else noise of the shape that the preprocessing gives; see make_network.

    Raises:
        UsageError: its own are no tensors, or more than ``forward`` takes.
    """
    import torch

    examples = getattr(module, "example_inputs", None)
    if examples is None:
        assert preprocessing is not None
        generator = torch.Generator().manual_seed(0)
        shape = (batch or 1, *preprocessing.shape)
        return {INPUT: torch.randn(shape, generator=generator)}
    if isinstance(examples, torch.Tensor):
        examples = (examples,)
    if not isinstance(examples, Mapping):
        parameters = list(inspect.signature(module.forward).parameters)
        if len(examples) > len(parameters):
            raise UsageError(f"{where}: {len(examples)} example_inputs, but forward takes {', '.join(parameters)}")
        names = parameters[: len(examples)] if len(examples) > 1 else [INPUT]
        examples = dict(zip(names, examples, strict=True))
    foreign = [name for name, value in examples.items() if not isinstance(value, torch.Tensor)]
    if foreign or not examples:
        raise UsageError(
            f"{where}: example_inputs {', '.join(foreign)} are no tensors", fix="give one tensor per input"
        )
    return {name: _with_batch(value.cpu(), batch) for name, value in examples.items()}


def _with_batch(tensor: Tensor, batch: int | None) -> Tensor:
    if batch is None or tensor.ndim == 0 or tensor.shape[0] == batch:
        return tensor
    return tensor[:1].expand(batch, *tensor.shape[1:]).clone()


def _outputs(module: nn.Module, inputs: dict[str, Tensor], where: str) -> tuple[TensorSpec, ...]:
    import torch

    try:
        with torch.inference_mode():
            result = module(*inputs.values())
    except CsaDeployError:
        raise
    except Exception as error:  # other people's code
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in inputs.items())
        raise UsageError(
            f"{where}: the network fails on {shapes}: {_reason(error)}",
            fix="choose another --size, or give the module example_inputs",
        ) from error
    leaves = list(_leaves(result, OUTPUT))
    if not leaves:
        raise UsageError(f"{where}: the network returns no tensors but a {type(result).__name__}")
    return tuple(_spec(f"{OUTPUT}_{name}" if name in inputs else name, tensor) for name, tensor in leaves)


def _spec(name: str, tensor: Tensor) -> TensorSpec:
    return TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _leaves(result: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Each tensor with its name: the key in a mapping, the position in a sequence of several."""
    import torch

    if isinstance(result, torch.Tensor):
        yield name, result
    elif isinstance(result, Mapping):
        for key, value in result.items():
            yield from _leaves(value, str(key) if name == OUTPUT else f"{name}_{key}")
    elif isinstance(result, Sequence) and not isinstance(result, str):
        for i, value in enumerate(result):
            yield from _leaves(value, f"{name}_{i}" if len(result) > 1 else name)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
