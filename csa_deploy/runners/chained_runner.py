"""Runs the parts of a split network one after another, as one network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from csa_deploy.errors import UsageError
from csa_deploy.records.split import SplitRecord
from csa_deploy.runners.base import Runner, check_feeds
from csa_deploy.spec import Arrays, TensorSpec

CHAINED = "split"
"""Label of the parts of a split network, run one after another."""
SPLIT_FILE = f"records/{SplitRecord.stage}.json"
"""What says in a workspace what they are; it stands for them where a graph or an engine is named."""


def open_chain(split: SplitRecord, root: Path, opened: Callable[[Path, str], Runner]) -> ChainedRunner:
    """The parts of a split network as one.

    Args:
        split: says what they are.
        root: folder that their paths are in.
        opened: opens a graph under the name of its part.
    """
    parts = {part.name: opened(root / part.graph, part.name) for part in split.parts}
    return ChainedRunner(parts, split.outputs, name=CHAINED)


class ChainedRunner:
    """Parts that hand tensors on by their names, each on a backend of its own.

    What a part takes and no part before it makes is an input of the whole; its outputs are named, as what only crosses
    from part to part is none.

    Args:
        parts: runner by name of the part, in an order in which each finds what it reads.
        outputs: names of the whole network's outputs, in its order.

    Raises:
        UsageError: no part makes an output, or a part takes a tensor in another shape or type than it is made in.
    """

    def __init__(self, parts: Mapping[str, Runner], outputs: Sequence[str], *, name: str = CHAINED) -> None:
        self.name = name
        self._parts = dict(parts)
        self._open = ExitStack()
        made: dict[str, tuple[str, TensorSpec]] = {}
        taken: dict[str, TensorSpec] = {}
        for part, runner in self._parts.items():
            for spec in runner.input_specs:
                maker, have = made.get(spec.name, ("the network", taken.setdefault(spec.name, spec)))
                if (have.shape, have.dtype) != (spec.shape, spec.dtype):
                    raise UsageError(
                        f"{part} takes '{spec.name}' as {spec.dtype} {list(spec.shape)}, "
                        f"{maker} gives {have.dtype} {list(have.shape)}",
                        fix="cut both parts of the same typed graph",
                    )
            made |= {spec.name: (part, spec) for spec in runner.output_specs}
        if lost := [output for output in outputs if output not in made]:
            raise UsageError(f"no part makes the output '{lost[0]}'", fix="give all parts of the network")
        self.input_specs = tuple(spec for n, spec in taken.items() if n not in made)
        self.output_specs = tuple(made[name][1] for name in outputs)
        self.sample = next((runner.sample for runner in self._parts.values() if runner.sample), None)

    def describe(self) -> dict[str, Any]:
        """What executes: the parts; what is the same of all of them stands at the top."""
        described = {part: runner.describe() for part, runner in self._parts.items()}
        first = next(iter(described.values()))
        shared = {key: value for key, value in first.items() if all(d.get(key) == value for d in described.values())}
        each = f"{', then '.join(described)}: {', '.join(dict.fromkeys(d['executes'] for d in described.values()))}"
        versions = {
            key: ", ".join(dict.fromkeys(str(d[key]) for d in described.values())) for key in ("backend", "version")
        }
        return {**versions, **shared, "executes": each, "parts": described}

    @property
    def host_threads(self) -> int:
        """Those of the part that takes the most; they run one after another."""
        return max(runner.host_threads for runner in self._parts.values())

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Execute once; see :class:`csa_deploy.runners.base.Runner`."""
        check_feeds(self.input_specs, feeds)
        values = dict(feeds)
        for runner in self._parts.values():
            values |= runner.run({spec.name: values[spec.name] for spec in runner.input_specs})
        return {spec.name: values[spec.name] for spec in self.output_specs}

    def __enter__(self) -> ChainedRunner:
        """Open every part."""
        with ExitStack() as opened:
            for runner in self._parts.values():
                opened.enter_context(runner)
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every part."""
        self._open.close()
