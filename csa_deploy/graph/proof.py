"""Evidence that a rewritten graph computes what the graph before it did.

Two comparisons, both by ONNX Runtime with all of its own graph optimizations off, so that what is compared is what is
written, and both on several families of inputs (:mod:`.inputs`):

- the nodes that changed (:class:`LocalProof`), fed directly: no layer in front of them decides which numbers reach
  them, and none behind them hides an error;
- the whole network (:class:`Prover`), whose custom operators, which cannot run, are cut out; see :mod:`.cut`.

The bound of each channel is the tolerance, or what one unit in the last place of weights and inputs does to the
original where that is more. Where nothing can be seen (no output is finite and varies), nothing is proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir

from csa_deploy.graph.compare import Deviation, deviation, tolerance_of
from csa_deploy.graph.inputs import WHOLE_GRAPH, Arrays, families
from csa_deploy.graph.region import CannotCutError, Digests, Region, changed_region
from csa_deploy.graph.sessions import CannotFollowError, CannotRunError, Runs, Session, drawn
from csa_deploy.graph.stats import graph_statistics

_TIMES_NOISE = 8.0
"""How much of the original's answer to one unit of noise a rewrite may differ by: it rounds as often, elsewhere."""

_MOST = 0.02
"""Of a channel's range: a network that noise moves further cannot be told from a wrong one."""

_HEAVY_MACS = 5e6


@dataclass(frozen=True)
class Proof:
    """What a comparison shows.

    Attributes:
        status: ``proved``, ``wrong`` (an answer differs beyond its bound), or ``not proved`` (nothing can be seen).
        error: largest difference of any output relative to its range; None where nothing was seen.
        bound: the bound of the channel that comes nearest to its own, relative to its range.
        on: families of inputs that showed something.
        reason: why it is not proved; empty otherwise.
        where: values of the original at which it fails: all that its failing parts compute.
    """

    status: Literal["proved", "wrong", "not proved"]
    error: float | None
    bound: float | None
    on: tuple[str, ...] = ()
    reason: str = ""
    where: frozenset[str] = frozenset()

    @property
    def holds(self) -> bool:
        """Whether the rewrite may be kept."""
        return self.status == "proved"


@dataclass
class OutputVerdict:
    """Comparisons of one output, collected over the families."""

    tolerance: float
    error: float | None = None
    ratio: float = 0.0
    bound: float = 0.0
    wrong: str = ""
    on: list[str] = field(default_factory=list)
    first: np.ndarray | None = None
    varies: bool = False
    noisy: float = 0.0

    def see(self, family: str, expected: np.ndarray) -> None:
        """Note whether this run shows anything: something finite, that differs within the array or from another run."""
        finite = np.isfinite(expected) if expected.dtype.kind == "f" else np.ones(expected.shape, bool)
        if not finite.any():
            return
        self.on.append(family)
        if self.first is None:
            self.first = expected
        elif not self.varies:
            nan = expected.dtype.kind == "f"
            self.varies = self.first.shape != expected.shape or not np.array_equal(self.first, expected, equal_nan=nan)

    def judge(self, family: str, found: Deviation, bounds: np.ndarray, noise: np.ndarray) -> None:
        """Hold a comparison against its bounds; inputs on which noise alone moves a channel too far show nothing."""
        if found.reason:
            self.wrong, self.error = f"{found.reason} ({family} inputs)", found.error
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(found.channels > 0, found.channels / bounds, 0.0)
            relative = np.where(found.scales > 0, bounds / found.scales, 0.0)
            moved = np.where(found.scales > 0, _TIMES_NOISE * noise / found.scales, 0.0)
            off = np.where(found.scales > 0, found.channels / found.scales, np.inf)
        worst = int(ratios.argmax()) if ratios.size else 0
        if ratios.size and ratios[worst] > 1:
            self.wrong = f"differs by {off[worst]:.1e} of its range, more than {relative[worst]:.0e} ({family} inputs)"
        elif ratios.size and moved.max() > _MOST:
            self.noisy = float(moved.max()) / _TIMES_NOISE
            self.on = [one for one in self.on if one != family]
            return
        self.error = max(self.error or 0.0, found.error)
        if ratios.size and ratios[worst] >= self.ratio:
            self.ratio, self.bound = float(ratios[worst]), float(relative[worst])


@dataclass(frozen=True)
class Allowance:
    """How two graphs are compared.

    Attributes:
        tolerance: of FP32, relative to a channel's range.
        slack: by output, an absolute difference that the rewrite is allowed, as a share of the largest number in an
            input: (input, share).
        terms: by output, how many numbers a pooling or reduction behind it sums; the rounding of a sum grows with
            the root of that, and noise in its terms does not show it, because it averages out.
    """

    tolerance: float
    slack: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    terms: Mapping[str, int] = field(default_factory=dict)

    def run(
        self,
        before: Runs,
        after: Session,
        feeds: Iterable[tuple[str, Arrays]],
        verdicts: dict[str, OutputVerdict] | None = None,
    ) -> dict[str, OutputVerdict]:
        """Verdicts by output, added to those of earlier inputs where there are any.

        Raises:
            CannotFollowError: the second graph does not run where the first does.
            CannotRunError: the first never does.
        """
        verdicts, problem, runs = {} if verdicts is None else verdicts, None, 0
        for family, arrays in feeds:
            try:
                expected = before.answer(family, arrays)
            except CannotRunError as error:
                problem = error
                continue
            runs += 1
            try:
                got = after.run(arrays)
            except CannotRunError as error:
                raise CannotFollowError(str(error)) from None
            self._compare(before, family, arrays, expected, got, verdicts)
        if not runs and problem is not None:
            raise problem
        return verdicts

    def _compare(
        self,
        before: Runs,
        family: str,
        arrays: Arrays,
        expected: Arrays,
        got: Arrays,
        verdicts: dict[str, OutputVerdict],
    ) -> None:
        for name, want in expected.items():
            tolerance = tolerance_of(want.dtype, self.tolerance) if want.dtype.kind == "f" else 0.0
            verdict = verdicts.setdefault(name, OutputVerdict(tolerance))
            verdict.see(family, want)
            found = deviation(want, got.get(name))
            rounding = found.units * max(1.0, self.terms.get(name, 1) ** 0.5 / 4)
            bounds, noise = np.maximum(found.scales * tolerance, rounding), np.zeros_like(found.scales)
            if name in self.slack:
                source, share = self.slack[name]
                bounds = bounds + share * float(np.abs(arrays[source]).max())
            if found.beyond(bounds) and not found.reason:
                moved = before.noise(family, arrays, expected)[name]
                if not moved.reason:
                    noise = moved.channels
                    bounds = np.maximum(bounds, _TIMES_NOISE * noise)
            verdict.judge(family, found, bounds, noise)


class LocalProof:
    """Proves the nodes in which two versions of a graph differ, each rewrite on its own.

    Args:
        tolerance: largest difference that floating-point order may explain in FP32, relative to a channel's range.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance, self._digests = tolerance, Digests()

    def prove(self, before: ir.Model, after: ir.Model, slack: Mapping[str, float] | None = None) -> Proof | None:
        """Compare the differing nodes; None where none differ.

        Args:
            before: the graph, with shapes.
            after: the rewritten graph, with shapes.
            slack: by name of a value, what it may differ by beyond rounding, as a share of the largest number that
                the node behind it reads.
        """
        try:
            region = changed_region(before, after, self._digests)
            return None if region is None else self._prove(region, slack or {})
        except (CannotRunError, CannotCutError, ValueError) as error:
            return Proof("not proved", None, None, reason=f"what changed cannot be run by itself: {error}")

    def _prove(self, region: Region, slack: Mapping[str, float]) -> Proof:
        allowed = {
            key: (source, slack[name])
            for key, name in region.outputs.items()
            if name in slack and (source := region.data.get(key)) is not None
        }
        macs = graph_statistics(region.before).macs
        heavy = macs is None or macs > _HEAVY_MACS
        feeds = ((family, drawn(family, region.inputs)) for family in families(region.inputs, heavy=heavy))
        before = Runs(region.before, keep=False)
        verdicts = Allowance(self._tolerance, allowed, region.terms).run(before, Session(region.after), feeds)
        failing = {key: reason for key, one in verdicts.items() if (reason := why_not(one, key in region.varying))}
        proof = _summed(verdicts, failing, region.outputs)
        return replace(proof, where=frozenset(name for key in failing for name in region.origins[key]))


def why_not(verdict: OutputVerdict, has_to_vary: bool) -> str:
    """Why an output proves nothing; empty where it does."""
    if verdict.wrong:
        return verdict.wrong
    if not verdict.on and verdict.noisy:
        return f"is moved by {verdict.noisy:.0e} of its range by one unit of rounding"
    if not verdict.on:
        return "is finite on none of the inputs"
    return "is the same on all inputs" if has_to_vary and not verdict.varies else ""


def _summed(verdicts: dict[str, OutputVerdict], failing: dict[str, str], names: Mapping[str, str]) -> Proof:
    """One proof out of the verdicts of all outputs."""
    errors = [one.error for one in verdicts.values() if one.error is not None and one.on]
    nearest = max(verdicts.values(), key=lambda one: one.ratio, default=None)
    on = tuple(dict.fromkeys(family for one in verdicts.values() for family in one.on))
    error, bound = max(errors, default=None), None if nearest is None else nearest.bound or nearest.tolerance
    if not failing:
        return Proof("proved", error, bound, on)
    wrong = [key for key in failing if verdicts[key].wrong]
    key = max(wrong or failing, key=lambda key: verdicts[key].ratio)
    reason = f"'{names.get(key, key)}' {failing[key]}"
    return Proof("wrong" if wrong else "not proved", error, bound, on, reason)


class Prover:
    """Holds what a network answers, to compare rewritten versions with it.

    Args:
        model: the reference.
        proofs: on how many inputs, at least; more where these do not show every output.
        tolerance: see :class:`LocalProof`.
        seed: of the inputs.

    Raises:
        CannotRunError: the reference itself does not run.
    """

    def __init__(self, model: onnx.ModelProto, *, proofs: int, tolerance: float, seed: int = 0) -> None:
        self._seed, self._runs, self._comparison = seed, Runs(model, keep=True), Allowance(tolerance)
        self._feeds = self._shown(proofs)
        self.contradiction = self._contradiction(model)
        """Which output has another shape than the model declares, in words; empty where none has."""

    def _shown(self, proofs: int) -> dict[str, Arrays]:
        """Inputs on which every output is finite and varies, as far as there are such."""
        chosen, seen, problem = dict[str, Arrays](), dict[str, OutputVerdict](), None
        for family in WHOLE_GRAPH:
            if len(chosen) >= proofs and all(one.on and one.varies for one in seen.values()):
                break
            arrays = drawn(family, self._runs.inputs, self._seed)
            try:
                answer = self._runs.answer(family, arrays)
            except CannotRunError as error:
                problem = error
                continue
            chosen[family] = arrays
            for name, array in answer.items():
                seen.setdefault(name, OutputVerdict(0.0)).see(family, array)
        if not chosen and problem is not None:
            raise problem
        return chosen

    def _contradiction(self, model: onnx.ModelProto) -> str:
        family, arrays = next(iter(self._feeds.items()))
        answer = self._runs.answer(family, arrays)
        for value in model.graph.output:
            dims = value.type.tensor_type.shape.dim
            declared = tuple(dim.dim_value for dim in dims)
            fixed = value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims)
            if fixed and value.name in answer and answer[value.name].shape != declared:
                return f"output '{value.name}' is {answer[value.name].shape}, declared {declared}"
        return ""

    def prove(self, model: onnx.ModelProto, *, tolerance: float | None = None) -> Proof:
        """Compare a rewritten version with the reference; outputs that show nothing are left out.

        ``error`` is None where no output shows anything.

        Args:
            model: the rewritten version.
            tolerance: another one than the prover's.

        Raises:
            CannotRunError: the rewritten graph does not run.
        """
        comparison = self._comparison if tolerance is None else Allowance(tolerance)
        verdicts = comparison.run(self._runs, Session(model), self._feeds.items())
        shown = {name: one for name, one in verdicts.items() if one.wrong or not why_not(one, has_to_vary=True)}
        return _summed(shown, {name: one.wrong for name, one in shown.items() if one.wrong}, {})
