"""Errata packs: one TOML file per subject in ``packs/``; ``docs/errata.md`` describes the format."""

from __future__ import annotations

from collections.abc import Container, Iterator
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from csa_deploy.graph.attributes import declared_types
from csa_deploy.records.errata import Severity, Symptom
from csa_deploy.restricted.conditions import problems
from csa_deploy.restricted.errata.versions import Versions
from csa_deploy.restricted.schema import Strict, Version, Words
from csa_deploy.validation import read_toml

ERRATA_FOLDER = Path(__file__).parent / "packs"

PASSED_OVER: dict[str, tuple[str, ...]] = {
    "@layout": ("Cast", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    "@scale": ("Add", "Cast", "Div", "Identity", "Mul", "Sub", "Where"),
    "@quantize": ("DequantizeLinear", "QuantizeLinear"),
}
"""Names for operators that patterns pass over."""

NODE_FACTS = {
    "opset": "version of ONNX's operators",
    "in_shape": "list of lists: dimensions of each input",
    "out_shape": "list of lists: dimensions of each output",
    "in_rank": "list: rank of each input",
    "in_dtype": "list: type of each input",
    "out_dtype": "list: type of each output",
    "in_const": "list: whether each input is known at build time",
    "in_value": "list of lists: values of each small constant input; empty where it is no constant",
    "inputs": "number of inputs that are there",
}
"""Facts that a pattern may ask of a node, beside its attributes: ``@name``, with their defaults filled in."""

NETWORK_FACTS = {
    "batch": "largest first dimension of the network's inputs",
    "dynamic": "whether an input has a dimension that is not fixed",
    "opset": "version of ONNX's operators",
    "quantized": "whether there are Quantize or Dequantize nodes",
    "dtypes": "list: types of the tensors that nodes write",
    "input_dtypes": "list: types of the network's inputs",
}
"""Facts that an erratum may ask of the network."""


class NodePattern(Strict):
    """A node and what stands around it.

    Attributes:
        op: its operator, or one of several, of ONNX's own set.
        when: condition on :data:`NODE_FACTS` and attributes.
        through: of a neighbour: operators that may stand between, or :data:`PASSED_OVER`.
        input: of a producer: the input of the node below through which it comes; any where it is not given.
        producers: each of them writes, directly or through others, what the node reads.
        consumers: each of them reads what the node writes.
        without: none of them reads or writes it.
    """

    op: tuple[str, ...]
    when: dict[str, Any] = Field(default={})
    through: tuple[str, ...] = ()
    input: int | None = None
    producers: tuple[NodePattern, ...] = ()
    consumers: tuple[NodePattern, ...] = ()
    without: tuple[NodePattern, ...] = ()

    @field_validator("op", "through", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @cached_property
    def passed(self) -> frozenset[str]:
        """The operators of ``through``, written out."""
        return frozenset(name for word in self.through for name in PASSED_OVER.get(word, (word,)))

    @model_validator(mode="after")
    def _known_words(self) -> NodePattern:
        if found := problems(self.when, _facts_of(self.op)):
            raise ValueError("; ".join(found))
        return self


def _facts_of(operators: Container[str]) -> set[str]:
    """Facts of a node of one of these operators: those of every node, and its attributes."""
    attributes = (f"@{name}" for domain, op, name in declared_types() if not domain and op in operators)
    return {*NODE_FACTS, *attributes}


class KnownFault(Strict):
    """What is known of a fault, whosever it is.

    Attributes:
        id: ``subject.words``, unique.
        symptom, severity: what happens, and how bad that is.
        detect: how to notice it; of an erratum what ``csa-deploy verify`` shows.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$")]
    title: Words
    symptom: Symptom
    severity: Severity
    workaround: Words
    detect: Words


class Erratum(KnownFault):
    """One known problem of TensorRT.

    Attributes:
        pattern: any of these nodes; none: the network alone decides.
        unlike: facts of which one differs between two of the nodes that the pattern finds; given, one node is none.
        network: condition on :data:`NETWORK_FACTS`.
        precision: precisions of an engine that show it; none: every one.
        dla: whether it is about DLA; the others are about the GPU.
        platforms: platforms of a target; none: every one.
        gpu: on which GPUs it was seen, in words.
        seen, since, fixed, right: see :class:`.Versions`; ``seen`` is empty where the sources name no version.
        source: links or places, precise enough to look them up.
        state: what the source said of itself when it was read: ``open``, ``closed`` or ``document``.
        repair: exact repair ('' none).
    """

    pattern: tuple[NodePattern, ...] = ()
    unlike: tuple[str, ...] = ()
    network: dict[str, Any] = Field(default={})
    precision: tuple[Literal["fp32", "fp16", "bf16", "int8"], ...] = ()
    dla: bool = False
    platforms: tuple[str, ...] = ()
    gpu: str = ""
    seen: tuple[Version, ...]
    since: Version | Literal[""] = ""
    fixed: Version | Literal[""] = ""
    right: Version | Literal[""] = ""
    source: Annotated[tuple[Words, ...], Field(min_length=1)]
    state: Literal["open", "closed", "document"]
    repair: str = ""

    @field_validator("pattern", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _says_something(self) -> Erratum:
        if not (self.pattern or self.network or self.dla):
            raise ValueError(f"'{self.id}' speaks of every network: it needs a pattern or a condition")
        operators = [op for pattern in self.pattern for op in pattern.op]
        unlike = problems(dict.fromkeys(self.unlike, ""), _facts_of(operators))
        if found := problems(self.network, NETWORK_FACTS) + unlike:
            raise ValueError("; ".join(found))
        return self

    @property
    def versions(self) -> Versions:
        """Versions that have it."""
        return Versions(self.seen, self.since, self.fixed, self.right)


class ErrataPack(Strict):
    """All errata of a subject.

    Attributes:
        subject: name of the subject; ids begin with it.
        read: day on which the sources were read.
        tensorrt: oldest and newest version that sources were looked for.
        patterns: patterns that errata of this pack name.
    """

    schema_version: Literal[1]
    subject: Words
    title: Words
    read: date
    tensorrt: tuple[Version, Version]
    patterns: dict[str, NodePattern] = Field(default={})
    errata: Annotated[tuple[Erratum, ...], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, data: Any) -> Any:
        named, errata = data.get("patterns", {}), data.get("errata", [])
        if unknown := [e["pattern"] for e in errata if isinstance(e.get("pattern"), str) and e["pattern"] not in named]:
            raise ValueError(f"no pattern is named '{unknown[0]}'")
        by_name = ({**e, "pattern": named[e["pattern"]]} if isinstance(e.get("pattern"), str) else e for e in errata)
        return {**data, "errata": list(by_name)}

    @model_validator(mode="after")
    def _ids(self) -> ErrataPack:
        ids = [erratum.id for erratum in self.errata]
        if wrong := [name for name in ids if not name.startswith(f"{self.subject}.") or ids.count(name) > 1]:
            raise ValueError(f"id '{wrong[0]}' does not begin with '{self.subject}.', or occurs twice")
        return self


def read_errata(path: Path) -> ErrataPack:
    """Read and validate one pack.

    Raises:
        UsageError: not TOML, or not a pack; names the file, the place and the defect.
    """
    return read_toml(path, ErrataPack, f"errata pack {path.name}", fix="see the pack format in docs/errata.md")


@lru_cache(maxsize=4)
def errata_packs(folder: Path = ERRATA_FOLDER) -> tuple[ErrataPack, ...]:
    """All packs, by name of their files."""
    return tuple(read_errata(path) for path in sorted(folder.glob("*.toml")))


def all_errata() -> Iterator[tuple[ErrataPack, Erratum]]:
    """Every erratum with its pack."""
    return ((pack, erratum) for pack in errata_packs() for erratum in pack.errata)
