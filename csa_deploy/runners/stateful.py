"""Networks with state: run frame by frame on their own state, or on the states that the reference graph produces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from csa_deploy.data.base import Batch, Dataset, Read
from csa_deploy.errors import UsageError
from csa_deploy.runners.base import Runner, sampling
from csa_deploy.spec import Arrays, TensorSpec
from csa_deploy.state import StateLink, initial_state, links_of

if TYPE_CHECKING:
    from csa_deploy.config import Config


class StatefulRunner:
    """A network on its own state: its inputs are those without the state, which it keeps from frame to frame.

    Args:
        runner: of the network; entered where this is.
        links: outputs that feed inputs.
        initial: the state at the start of a sequence, by input.

    Raises:
        UsageError: the network lacks one of these tensors, or takes several samples at a time.
    """

    def __init__(self, runner: Runner, links: Sequence[StateLink], initial: Mapping[str, np.ndarray]) -> None:
        self.inner, self.name, self.sample = runner, runner.name, runner.sample
        self._links, self._initial = tuple(links), dict(initial)
        self._state: Arrays | None = None

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Inputs without the state."""
        return tuple(spec for spec in self.inner.input_specs if spec.name not in self._initial)

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        """All outputs: the state is compared as well."""
        return self.inner.output_specs

    def describe(self) -> dict[str, Any]:
        """What executes."""
        return self.inner.describe()

    @property
    def host_threads(self) -> int:
        """Of the network."""
        return self.inner.host_threads

    def start(self) -> None:
        """Begin a sequence."""
        types = {spec.name: spec.dtype for spec in self.inner.input_specs}
        self._state = {name: array.astype(types[name]) for name, array in self._initial.items()}

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Execute on a frame, the next one of its sequence."""
        if self._state is None:
            self.start()
        assert self._state is not None
        outputs = self.inner.run({**feeds, **self._state})
        self._state = {link.input: outputs[link.output].astype(self._state[link.input].dtype) for link in self._links}
        return outputs

    def __enter__(self) -> StatefulRunner:
        """The network is entered by whoever opened it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It stays open."""


def on_own_state(runner: Runner, config: Config) -> Runner:
    """An entered runner on its own state, as the settings say; as it is where they say nothing.

    Raises:
        UsageError: the settings do not fit the network.
    """
    links = links_of(config.state, runner.input_specs, runner.output_specs)
    if not links:
        return runner
    require_one_at_a_time(links, runner)
    file = Path(config.state_init) if config.state_init else None
    return StatefulRunner(runner, links, initial_state(links, runner.input_specs, file))


def begin(batch: Batch, runners: Iterable[Runner]) -> None:
    """Start the sequences of runners with state where a batch is the first frame of one."""
    for runner in runners if 0 in batch.frames else ():
        if isinstance(runner, StatefulRunner):
            runner.start()


def require_one_at_a_time(links: Sequence[StateLink], runner: Runner) -> None:
    """Raise UsageError where a network with state takes several samples at a time."""
    if links and (batch := sampling(runner).batch or 1) > 1:
        raise UsageError(
            f"--state: one inference takes {batch} samples, and each has a sequence of its own",
            fix="export the network for a batch of 1, or say --sample whole",
        )


class StatesAdded(Dataset):
    """Frames with the states that a network has before each of them, as inputs by name.

    Every frame is as it is in use, so calibration, the search and the localisation take single frames. A frame in the
    middle of a sequence is reached by running those before it.

    Args:
        data: frames of sequences, without the states.
        runner: the network; entered, of static shapes.
        links: outputs that feed inputs.
        initial: the state at the start of a sequence, by input.
    """

    def __init__(
        self, data: Dataset, runner: Runner, links: Sequence[StateLink], initial: Mapping[str, np.ndarray]
    ) -> None:
        super().__init__()
        self._data, self._runner, self._links, self._initial = data, runner, tuple(links), dict(initial)
        self.name, self.classes, self.labels, self.task = data.name, data.classes, data.labels, data.task
        self.preprocessing, self.lenient, self.notes = data.preprocessing, data.lenient, data.notes
        self._how = sampling(runner)

    def __len__(self) -> int:
        return len(self._data)

    def identities(self) -> list[str]:
        """See :meth:`Dataset.identities`."""
        return self._data.identities()

    def take(self, indices: Sequence[int]) -> StatesAdded:
        """See :meth:`Dataset.take`."""
        return StatesAdded(self._data.take(indices), self._runner, self._links, self._initial)

    def fingerprint(self) -> str:
        """Of the frames, the links and the first state."""
        digest = hashlib.sha256(f"{self._data.fingerprint()}{self._links}{self._runner.describe()}".encode())
        for name, array in sorted(self._initial.items()):
            digest.update(name.encode() + array.tobytes())
        return digest.hexdigest()

    def hashes(self) -> dict[str, str]:
        """Of the frames."""
        return self._data.hashes()

    def image(self, identity: str) -> Image.Image | None:
        """The frame's picture."""
        return self._data.image(identity)

    def read(self, indices: Sequence[int], count: int, free_cores: int) -> Iterator[Read | UsageError]:
        """Frames one by one, with their states."""
        state: Arrays = {}
        for read, wanted in self._data.leading_up_to(indices, count, free_cores):
            if isinstance(read, UsageError):
                yield from [read] if wanted else ()
                continue
            state = dict(self._initial) if read.frame == 0 or not state else state
            arrays = {**self._named(read.arrays), **{n: self._as_sample(n, array) for n, array in state.items()}}
            if wanted:
                yield Read(read.id, arrays, read.target, read.geometry, read.frame)
            outputs = self._runner.run(self._how.network({name: array[None] for name, array in arrays.items()}))
            state = {link.input: outputs[link.output] for link in self._links}

    def _named(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """A single input under the network's name."""
        free = [spec.name for spec in self._runner.input_specs if spec.name not in self._initial]
        return {free[0]: next(iter(arrays.values()))} if len(free) == len(arrays) == 1 else dict(arrays)

    def _as_sample(self, name: str, array: np.ndarray) -> np.ndarray:
        return array.reshape(self._how.shapes[name][1:])
