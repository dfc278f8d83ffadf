"""The interface every execution backend offers, and what they share: input checks and partial batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from csa_deploy.data.prefetch import CORES
from csa_deploy.errors import UsageError
from csa_deploy.network import Sample
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.spec import Arrays, Sampling, TensorSpec, sampling_of

_MIXED = 1e-4  # of an output's range: what other kernels for other rows may differ by


class Runner(Protocol):
    """A network that can be executed. Use it as a context manager: it holds its backend only inside ``with``."""

    name: str
    sample: Sample | None
    """What one sample is; None: as the shapes say."""

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Inputs, in the network's order."""

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        """Outputs, in the network's order."""

    def describe(self) -> dict[str, Any]:
        """What executes, for the record: ``backend``, ``version``, ``provider``, ``threads``, ``executes``."""

    @property
    def host_threads(self) -> int:
        """Threads that compute on this machine's cores; 0 when the network runs elsewhere (a GPU, a target)."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Execute once. Raises UsageError when names, shapes or types differ from :attr:`input_specs`."""

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def free_cores(runners: Iterable[Runner]) -> int:
    """Cores of this machine that none of the runners, which run one after another, computes on."""
    return max(0, CORES - max((runner.host_threads for runner in runners), default=0))


def check_feeds(specs: Sequence[TensorSpec], feeds: Mapping[str, np.ndarray]) -> None:
    """Raise UsageError unless ``feeds`` has exactly the inputs of ``specs``, with their shapes and types."""
    wanted = {spec.name: spec for spec in specs}
    if wanted.keys() != feeds.keys():
        raise UsageError(
            f"inputs {sorted(feeds)} were given, the network takes {sorted(wanted)}",
            fix="feed each input by its name in the graph",
        )
    for name, array in feeds.items():
        spec = wanted[name]
        fits = len(spec.shape) == array.ndim and all(
            extent is None or extent == given for extent, given in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or array.dtype.name != spec.dtype:
            raise UsageError(
                f"input {name!r} is {array.dtype.name} {list(array.shape)}, "
                f"the network takes {spec.dtype} {[extent or '?' for extent in spec.shape]}",
                fix="preprocess the data for this network, or export it for this shape",
            )


def sampling(runner: Runner) -> Sampling:
    """How samples go through a runner's network."""
    return sampling_of(runner.input_specs, runner.output_specs, runner.sample)


def rows_mix(runner: Runner) -> bool:
    """Whether a row of axis 0 changes what other rows give, by a trial: then rows are not samples.

    Args:
        runner: entered; of static shapes, with one extent of axis 0.
    """
    feeds, others = (random_feeds(runner.input_specs, seed) for seed in (0, 1))
    changed = {name: np.concatenate([others[name][:1], array[1:]]) for name, array in feeds.items()}
    for before, after in zip(runner.run(feeds).values(), runner.run(changed).values(), strict=True):
        first, second = (array[1:].astype(np.float64) for array in (before, after))
        if np.abs(first - second).max(initial=0.0) > _MIXED * (np.ptp(first) or 1.0):
            return True
    return False


def found_sample(runner: Runner, asked: Sample | None, batch: int | None) -> Sample | None:
    """What one sample of an entered runner's network is: as asked for, else whole where its rows mix.

    Args:
        runner: entered.
        asked: by the user.
        batch: the batch size asked for: then rows are samples.
    """
    stated = asked or runner.sample
    rows = sampling_of(runner.input_specs, runner.output_specs, stated).batch or 1
    return "whole" if stated is None and batch is None and rows > 1 and rows_mix(runner) else stated


def cast_to_inputs(runner: Runner, feeds: Mapping[str, np.ndarray]) -> Arrays:
    """Feeds as PyTorch takes them in the floating types of a runner's inputs; those of FP16 are rounded to it."""
    types = {spec.name: spec.dtype for spec in runner.input_specs}
    return {n: feeds[n].astype(kind) if feeds[n].dtype.kind == "f" else feeds[n] for n, kind in types.items()}


def run_padded(runner: Runner, feeds: Mapping[str, np.ndarray]) -> Arrays:
    """Run any number of samples through a network of static batch size.

    The samples go through in chunks of the network's batch size B; the last chunk is filled up by repeating its last
    sample, and the outputs of the repetitions are dropped. With a dynamic batch axis the samples go through at once.
    Of a network whose sample is whole, every sample is one inference; see :class:`Sampling`.

    Args:
        runner: an entered runner.
        feeds: per input an array (N, ...), the same N >= 1 for all inputs.

    Returns:
        Per output an array (N, ...).

    Raises:
        UsageError: inputs of different N, or no sample.
    """
    how = sampling(runner)
    counts = {len(array) if array.ndim else 0 for array in feeds.values()}
    if len(counts) != 1 or 0 in counts:
        raise UsageError(f"inputs have {sorted(counts)} samples", fix="give the same number, at least one, to each")
    samples = counts.pop()
    if how.batch is None or how.batch == samples:
        return run_batch(runner, how.network(feeds))
    chunks = [_run_chunk(runner, how, feeds, start) for start in range(0, samples, how.batch)]
    return {name: np.concatenate([chunk[name] for chunk in chunks])[:samples] for name in chunks[0]}


def run_batch(runner: Runner, feeds: Mapping[str, np.ndarray]) -> Arrays:
    """One inference on inputs of the network's own shapes; its outputs as arrays of samples."""
    return sampling(runner).samples(runner.run(feeds))


def filled(feeds: Mapping[str, np.ndarray], batch: int) -> Arrays:
    """Arrays (n, ...) with the last sample repeated up to ``batch`` samples."""
    return {
        name: np.concatenate([array, np.repeat(array[-1:], batch - len(array), axis=0)])
        if len(array) < batch
        else array
        for name, array in feeds.items()
    }


def _run_chunk(runner: Runner, how: Sampling, feeds: Mapping[str, np.ndarray], start: int) -> Arrays:
    assert how.batch is not None
    chunk = {name: array[start : start + how.batch] for name, array in feeds.items()}
    return run_batch(runner, how.network(filled(chunk, how.batch)))
