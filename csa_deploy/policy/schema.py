"""The policy file: what a project asks of a deployment before it accepts it. The only place that knows its keys."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from csa_deploy.errors import UsageError
from csa_deploy.levels import LEVELS
from csa_deploy.naming import did_you_mean
from csa_deploy.records.errata import Severity
from csa_deploy.setting_values import Precision, check_budget, check_limit
from csa_deploy.validation import invalid, read_mapping

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def _day(value: Any) -> Any:
    """A day as YAML reads it, or as a text in quotes."""
    if isinstance(value, str):
        try:
            return datetime.date.fromisoformat(value)
        except ValueError:
            raise ValueError("it is no day, such as 2027-03-31") from None
    if isinstance(value, datetime.datetime) or not isinstance(value, datetime.date):
        raise ValueError("it is no day, such as 2027-03-31")
    return value


def _level(value: str) -> str:
    if value not in LEVELS:
        raise ValueError(f"it is no level of evidence; known: {', '.join(LEVELS)}")
    return value


Day = Annotated[datetime.date, BeforeValidator(_day)]
Level = Annotated[str, AfterValidator(_level), Field(json_schema_extra={"enum": [*LEVELS]})]
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
Numbers = Annotated[dict[str, float], Field(min_length=1)]  # an empty one would ask for nothing, and read as if it did


class _Keys(BaseModel):
    """Part of a policy: nothing is guessed, and no key is taken that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ScopeWanted(_Keys):
    """What is asked of a safety scope.

    Attributes:
        verdict: the worst that is accepted; ``with GPU fallback`` accepts that a DLA hands nodes to the GPU.
        level: weakest evidence that will do.
    """

    verdict: Literal["allowed", "with GPU fallback"] = "allowed"
    level: Level = "static"


class ErrataWanted(_Keys):
    """Which known problems of TensorRT have to be accepted by name.

    Attributes:
        severity: the least one that has to be.
        not_ruled_out: whether those that may apply have to be, too.
    """

    severity: Severity = "medium"
    not_ruled_out: bool = False


class Accepted(_Keys):
    """Something that the project has decided to live with.

    Attributes:
        id: of an erratum, or of a rule that leaves a scope ``unknown``; what is denied cannot be accepted.
        reason: why it may be.
        expires: last day on which this counts.
        networks: of which networks; empty of every one.
    """

    id: Text
    reason: Text
    expires: Day
    networks: list[Text] = []


class SignatureWanted(_Keys):
    """A signature that a bundle has to bear.

    Attributes:
        method: how it was made: by ssh, or by OpenSSF model signing with a key or with a certificate.
        trusted: file with what is trusted, beside the policy: allowed signers, a public key (PEM), or the root of the
            certificates (PEM).
        signer: who has to have signed: a name of the allowed signers, or the certificate's subject (``CN=...``); None
            for anyone who is trusted.
    """

    method: Literal["ssh", "model-signing-key", "model-signing-certificate"]
    trusted: Text
    signer: Text | None = None


class Policy(_Keys):
    """What a project asks before it accepts a deployment.

    Attributes:
        schema_version: of this file.
        name: of the policy, as verdicts name it.
        own_gates: ``pass``: the run's own gates passed; ``not failed``: none failed, but some may be open.
        scopes: what is asked of each safety scope, by its name.
        budgets: accuracy bounds by precision and metric, or output and metric (``boxes.snr_db``).
        measured_on: ``engine``: the engine itself has to have met them; ``graph``: the graph that it is built of will
            do.
        limits: latency and memory bounds by graph or engine (``engine fp16``) and quantity (``p99_ms``).
        errata: which known problems have to be accepted; None asks for none.
        accepted: what is accepted, by id.
        signatures: which signatures a bundle has to bear.
    """

    schema_version: Literal[1]
    name: Text
    own_gates: Literal["pass", "not failed"] = "not failed"
    scopes: dict[str, ScopeWanted] = {}
    budgets: Annotated[dict[Precision, Numbers], AfterValidator(check_budget)] = {}
    measured_on: Literal["graph", "engine"] = "graph"
    limits: Annotated[dict[str, Numbers], AfterValidator(check_limit)] = {}
    errata: ErrataWanted | None = None
    accepted: list[Accepted] = []
    signatures: list[SignatureWanted] = []


def read_policy(path: Path, *, metric: Sequence[str] = ()) -> Policy:
    """Read a policy.

    Args:
        path: of the YAML file.
        metric: metrics of the user's that its budgets may name, as the setting takes them.

    Raises:
        UsageError: no such file, no YAML, an unknown key, a wrong type, a scope or a day that is none; in one line with
            the file and the key.
    """
    from csa_deploy.restricted.schema import load_pack
    from csa_deploy.tasks.plugins import load_metric

    for spec in metric:
        load_metric(spec)
    data = read_mapping(path, "policy", example="write lines such as 'schema_version: 1'")
    try:
        policy = Policy(**data)
    except ValidationError as error:
        raise _named(error, path) from None
    for scope in policy.scopes:
        load_pack(scope)
    ids = [item.id for item in policy.accepted]
    if twice := next((name for name in ids if ids.count(name) > 1), None):
        raise UsageError(f"{path}: accepted: '{twice}' is accepted twice", fix="keep one of them")
    return policy


def _named(error: ValidationError, path: Path) -> UsageError:
    """The first thing that is wrong; of an unknown key what was meant."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return invalid(error, str(path))
    *above, key = map(str, first["loc"])
    parts = (Policy, ScopeWanted, ErrataWanted, Accepted, SignatureWanted)
    known = dict.fromkeys(name for part in parts for name in part.model_fields)
    where = f" in {'.'.join(above)}" if above else ""
    fix = did_you_mean(key, known, "docs/gate.md lists the keys")
    return UsageError(f"{path}: unknown key '{key}'{where}", fix=fix)


def json_schema() -> dict[str, Any]:
    """JSON Schema of the policy file, for editors and for other tools."""
    schema = Policy.model_json_schema()
    return {"$schema": _DRAFT, **schema, "title": "Acceptance policy of csa-deploy gate"}
