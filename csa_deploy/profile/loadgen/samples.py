"""What the load generator's queries are about: samples of a data set as ``verify`` takes them, or random inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from csa_deploy.data.base import Dataset
from csa_deploy.errors import UsageError
from csa_deploy.network import Sample
from csa_deploy.runners.base import filled
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.spec import Arrays, TensorSpec, sampling_of

if TYPE_CHECKING:
    from csa_deploy.context import Context

_LIBRARY = 64
_LIBRARY_BYTES = 256 * 2**20


@dataclass(frozen=True)
class SentSamples:
    """Inputs of whole inferences by number; pickled, it is opened again in the measuring process.

    Attributes:
        seed: of random inputs, that of number 0.
        data: a data set; its samples go into inferences in order, and the last one fills up what is left. None: random.
        sample: what one sample of the network is; None: as its shapes say.
        why: random inputs are sent although there are data.
    """

    seed: int
    data: Dataset | None = None
    sample: Sample | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """``64 of digits``, or ``random inputs`` with the reason."""
        return f"random inputs{self.why}" if self.data is None else f"{len(self.data)} of {self.data.name}"

    @property
    def words(self) -> str:
        """For the record."""
        if self.data is None:
            return f"{self.name}, standard normal, seed {self.seed}"
        return f"{self.name}, sha256 {self.data.fingerprint()}, preprocessed as in verify"

    def count(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> int:
        """Inferences that there are samples for; of random inputs as many as are taken."""
        if self.data is None:
            return most(inputs, outputs)
        return -(-len(self.data) // (sampling_of(inputs, outputs, self.sample).batch or 1))

    def feeds(self, number: int, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Arrays:
        """Inputs of one inference.

        Raises:
            UsageError: a sample cannot be read, or does not fit the network.
        """
        if self.data is None:
            return random_feeds(inputs, self.seed + number)
        how = sampling_of(inputs, outputs, self.sample)
        batch = how.batch or 1
        indices = range(number * batch, min((number + 1) * batch, len(self.data)))
        (read,) = self.data.batches(batch, indices=indices)
        feeds = how.network(filled(read.feed(how.shapes), batch))
        kinds = {spec.name: spec.dtype for spec in inputs}
        return {name: a.astype(kinds[name]) if a.dtype.kind == "f" else a for name, a in feeds.items()}


class SampleLibrary:
    """The load generator's query sample library: it says what is loaded into memory, and what may leave it.

    Args:
        inputs: of the network.
        outputs: likewise.
        samples: where inputs come from.
        wanted: inferences that are in memory at a time; None: as many as 256 MiB hold.

    Attributes:
        total: inferences in all; the accuracy mode runs each.
        performance: those of a timed run, which are in memory throughout.
    """

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        samples: SentSamples,
        wanted: int | None = None,
    ) -> None:
        self._inputs, self._outputs, self._samples = inputs, outputs, samples
        self.total = wanted if wanted and samples.data is None else samples.count(inputs, outputs)
        if wanted and wanted > self.total:
            raise UsageError(
                f"performance_sample_count_override = {wanted}: the data give {self.total} inferences",
                fix="ask for fewer in --loadgen-settings, or give more with --samples or --data",
            )
        self.performance = wanted or max(1, min(self.total, _LIBRARY_BYTES // max(_bytes(inputs), 1)))
        self._loaded: dict[int, Arrays] = {}

    def load(self, numbers: Sequence[int]) -> None:
        """Into memory (``LoadSamplesToRam``)."""
        self._loaded |= {n: self._samples.feeds(n, self._inputs, self._outputs) for n in numbers}

    def unload(self, numbers: Sequence[int]) -> None:
        """Out of it."""
        for number in numbers:
            self._loaded.pop(number, None)

    def __getitem__(self, number: int) -> Arrays:
        return self._loaded[number]


def most(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> int:
    """Inferences that are taken unasked: 64, or as many as 256 MiB hold with their outputs, written as hexadecimals."""
    return max(2, min(_LIBRARY, _LIBRARY_BYTES // max(_bytes(inputs) + 2 * _bytes(outputs), 1)))


def _bytes(specs: Sequence[TensorSpec]) -> int:
    return sum(int(np.prod(spec.static_shape)) * np.dtype(spec.dtype).itemsize for spec in specs)


def samples_of(context: Context) -> SentSamples:
    """Of the data set that is asked for, else of the network's own; random inputs where there is none.

    Frames of sequences rest on those before them, and the load generator draws samples in any order: there the inputs
    are random.

    Raises:
        UsageError: the data cannot be opened.
    """
    config, export = context.config, context.export
    if context.data_spec is None or export.state:
        return SentSamples(config.seed, why=", as a frame rests on those before it" if export.state else "")
    asked = config.samples or context.batch * most(export.inputs, export.outputs)
    return SentSamples(config.seed, context.dataset(context.preprocessing, asked), export.sample)
