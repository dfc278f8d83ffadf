"""The model card of a bundle: what was measured with which certainty, on which data, what for and within which limits.

The form is ``modelCard`` of CycloneDX 1.6. cyclonedx-python-lib (11.12) has no class for it, so it is put together here
by the schema; a test validates it with that library's copy of the published schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from csa_deploy.metrics.metric import Estimate
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.spec import TensorSpec
from csa_deploy.validation import invalid, read_mapping
from csa_deploy.verify.results import Results

NOT_STATED = "not stated by the maker of the bundle (bundle --model-card)"
_CLOSE = 1e-9  # of values that were written with all their digits


class IntendedUse(BaseModel):
    """What only the maker can say.

    Attributes:
        use_cases: what the network is for.
        users: for whom.
        limitations: what it is not for, and where it is known to be weak.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    use_cases: Annotated[list[str], Field(min_length=1)]
    users: list[str] = []
    limitations: list[str] = []


def read_intended_use(path: Path) -> IntendedUse:
    """Read the file of ``bundle --model-card``.

    Raises:
        UsageError: it is missing, no YAML, or has other keys or types.
    """
    try:
        return IntendedUse(**read_mapping(path, "model card", example="write lines such as 'use_cases: [...]'"))
    except ValidationError as error:
        raise invalid(error, str(path), fix=f"its keys: {', '.join(IntendedUse.model_fields)}") from None


def make_model_card(
    precision: str,
    export: ExportRecord,
    verified: VerifyRecord | None,
    results: Results | None,
    *,
    intended: IntendedUse | None = None,
    task: str | None = None,
    data: Mapping[str, str] | None = None,
    limitations: Sequence[str] = (),
) -> dict[str, Any]:
    """The card.

    Args:
        precision: of the bundle; metrics are of its graph and its engine.
        export: the network's interface.
        verified: the comparison; None where there was none.
        results: metrics of every sample, which the card's metrics are computed of.
        intended: what the maker says.
        task: of the network, where it is known.
        data: data sets, name -> SHA-256.
        limitations: what was not measured or does not hold, a sentence each.
    """
    parameters: dict[str, Any] = {
        "inputs": [{"format": _format(spec)} for spec in export.inputs],
        "outputs": [{"format": _format(spec)} for spec in export.outputs],
    }
    if task:
        parameters["task"] = task
    if data:
        parameters["datasets"] = [_dataset(name, digest) for name, digest in sorted(data.items())]
    said = list(limitations) + ([] if verified else ["accuracy: not measured"])
    considerations: dict[str, Any] = {
        "useCases": intended.use_cases if intended else [NOT_STATED],
        "technicalLimitations": [*(intended.limitations if intended else ()), *said],
    }
    if intended and intended.users:
        considerations["users"] = intended.users
    card: dict[str, Any] = {"modelParameters": parameters, "considerations": considerations}
    metrics = list(_metrics(results, precision, verified.data.name if verified else "")) if results else []
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return card


def _format(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.dtype} [{', '.join(str(extent) for extent in spec.shape)}]"


def _dataset(name: str, digest: str) -> dict[str, Any]:
    """A data set by its hash, which is over the samples as the network got them."""
    properties = [{"name": "csa-deploy:sha256", "value": digest}]
    return {"type": "dataset", "name": name, "contents": {"properties": properties}}


def _metrics(results: Results, precision: str, data: str) -> Iterator[dict[str, Any]]:
    for place, estimate in _estimates(results, precision):
        metric, _, where = place
        found: dict[str, Any] = {"type": metric, "value": repr(float(estimate.value)), "slice": where}
        if estimate.interval is not None:
            low, high = (repr(float(end)) for end in estimate.interval)
            found["confidenceInterval"] = {"lowerBound": low, "upperBound": high}
        yield found


def _estimates(results: Results, precision: str) -> Iterator[tuple[tuple[str, str, str], Estimate]]:
    """Metric, candidate and slice in words, with the estimate on all samples."""
    for candidate in results.candidates:
        for output in candidate.outputs if candidate.precision == precision else ():
            for metric, estimate in output.estimates.items():
                where = f"{candidate.label}, {output.name}, {len(results.ids)} samples"
                yield (metric, candidate.label, where), estimate


def check_model_card(card: Mapping[str, Any], results: Results, precision: str) -> list[str]:
    """Metrics of a card that are not what the samples of the bundle give, one line each."""
    expected = {(metric, where): estimate for (metric, _, where), estimate in _estimates(results, precision)}
    found = []
    stated = card.get("quantitativeAnalysis", {}).get("performanceMetrics", [])
    for item in stated:
        key = (str(item.get("type")), str(item.get("slice")))
        estimate = expected.pop(key, None)
        what = f"the model card states {key[0]} {item.get('value')} of {key[1]}"
        if estimate is None:
            found.append(f"{what}, the samples of the bundle have no such metric")
        elif not _same(item.get("value"), estimate.value):
            found.append(f"{what}, the samples of the bundle give {float(estimate.value)!r}")
        elif not _same_interval(item.get("confidenceInterval"), estimate.interval):
            found.append(f"{what} with another interval than the samples of the bundle give")
    found += [f"the model card does not state {metric} of {where}" for metric, where in expected]
    return found


def _same(stated: Any, value: float) -> bool:
    import math

    try:
        number = float(stated)
    except (TypeError, ValueError):
        return False
    return number == value or math.isclose(number, value, rel_tol=_CLOSE) or (math.isnan(number) and math.isnan(value))


def _same_interval(stated: Any, interval: tuple[float, float] | None) -> bool:
    if interval is None or not isinstance(stated, Mapping):
        return interval is None and stated is None
    return _same(stated.get("lowerBound"), interval[0]) and _same(stated.get("upperBound"), interval[1])
