"""Use cases, potential errors and measures: the files of ``facts/``, read and validated."""

from __future__ import annotations

import tomllib
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from csa_deploy.restricted.errata.schema import KnownFault
from csa_deploy.restricted.schema import Strict, Words

FACTS_FOLDER = Path(__file__).parent / "facts"

Impact = Literal["TI1", "TI2"]
Detection = Literal["TD1", "TD2", "TD3"]
Confidence = Literal["TCL1", "TCL2", "TCL3"]
CONFIDENCE_LEVELS: dict[tuple[Impact, Detection], Confidence] = {
    ("TI1", "TD1"): "TCL1",
    ("TI1", "TD2"): "TCL1",
    ("TI1", "TD3"): "TCL1",
    ("TI2", "TD1"): "TCL1",
    ("TI2", "TD2"): "TCL2",
    ("TI2", "TD3"): "TCL3",
}
"""Table 3 of ISO 26262-8:2018, clause 11.4.5.5: tool impact and tool error detection give the confidence level."""


def _id(kind: str) -> Any:
    return Field(pattern=rf"^{kind}-\d\d$")


class UseCase(Strict):
    """What somebody decides or makes with the tool.

    Attributes:
        id: ``UC-01``.
        title: the decision or the product, as a verb: "decide whether ...".
        verbs: of the command line; each verb belongs to one use case.
        promises: what a result means, a sentence each.
        promises_not: what it does not mean.
    """

    id: Annotated[str, _id("UC")]
    title: Words
    verbs: tuple[Words, ...]
    promises: Annotated[tuple[Words, ...], Field(min_length=1)]
    promises_not: Annotated[tuple[Words, ...], Field(min_length=1)]


class PotentialError(Strict):
    """An error of the tool after which nobody notices.

    Attributes:
        id: ``ERR-01``.
        use_case: in which it happens.
        title: what the tool does wrong, in one line.
        unnoticed: why nobody would notice without measures.
        impact, because_impact: tool impact of ISO 26262-8, and the argument.
        detection, because_detection: tool error detection, and the argument.
        measures: against it, by id.
        past: known problems of csa-deploy that were such an error, by id.
        left: what can happen all the same, in plain words.
    """

    id: Annotated[str, _id("ERR")]
    use_case: Annotated[str, _id("UC")]
    title: Words
    unnoticed: Words
    impact: Impact
    because_impact: Words
    detection: Detection
    because_detection: Words
    measures: Annotated[tuple[Words, ...], Field(min_length=1)]
    past: tuple[Words, ...] = ()
    left: Words

    @property
    def confidence(self) -> Confidence:
        """Tool confidence level that follows."""
        return CONFIDENCE_LEVELS[self.impact, self.detection]


class Measure(Strict):
    """What is done against potential errors.

    Attributes:
        id: ``MEA-01``.
        kind: ``prevention`` makes the error unlikely, ``detection`` finds it inside the tool, ``duty`` is the user's.
        title: what it does, in a sentence.
        record: of a duty: what the user files as its evidence; empty for the others.
    """

    id: Annotated[str, _id("MEA")]
    kind: Literal["prevention", "detection", "duty"]
    title: Words
    record: str = ""

    @model_validator(mode="after")
    def _a_duty_leaves_a_record(self) -> Measure:
        if (self.kind == "duty") is not bool(self.record):
            raise ValueError(f"'{self.id}': a duty has a record, and nothing else has one")
        return self


class OwnProblem(KnownFault):
    """A problem of csa-deploy.

    Attributes:
        until: last commit that is known to have it ('' still there).
        corrected: whether it is.
    """

    until: Annotated[str, Field(pattern=r"^([0-9a-f]{7,40})?$")] = ""
    corrected: bool

    @property
    def versions(self) -> str:
        """``0.1.0 up to commit a37ed06``."""
        return f"0.1.0 up to commit {self.until}" if self.until else "0.1.0, and still there"


class OwnProblems(Strict):
    """All known problems of csa-deploy, and the day on which they were listed."""

    schema_version: Literal[1]
    read: date
    problems: tuple[OwnProblem, ...]


class Section(Strict):
    """A part of the safety manual: paragraphs, then a list."""

    title: Words
    text: tuple[Words, ...] = ()
    items: tuple[Words, ...] = ()


class VerdictWord(Strict):
    """A word that the tool says.

    Attributes:
        word: as it is printed.
        means, means_not: what it stands for, and what not.
        do: what the user does then.
    """

    word: Words
    by: Words
    means: Words
    means_not: Words
    do: Words


class Term(Strict):
    """A word of the field, for a reader who does not know it."""

    word: Words
    means: Words


class Gap(Strict):
    """What nothing stands behind, of the tool as a whole."""

    title: Words
    text: Words


class Manual(Strict):
    """What the safety manual says besides use cases, duties and known problems.

    Attributes:
        tool: what it is, a sentence each.
        promises, promises_not: the short form of those of the use cases.
        sections, terms, readings, gaps: parts of the manual.
    """

    schema_version: Literal[1]
    tool: Annotated[tuple[Words, ...], Field(min_length=1)]
    no_claim: Words
    promises: Annotated[tuple[Words, ...], Field(min_length=1)]
    promises_not: Annotated[tuple[Words, ...], Field(min_length=1)]
    sections: tuple[Section, ...]
    terms: tuple[Term, ...]
    readings: tuple[VerdictWord, ...]
    gaps: tuple[Gap, ...]


class ToolConfidence(Strict):
    """All of it."""

    use_cases: tuple[UseCase, ...]
    errors: tuple[PotentialError, ...]
    measures: tuple[Measure, ...]
    problems: OwnProblems
    manual: Manual

    def errors_of(self, use_case: UseCase) -> list[PotentialError]:
        """Its potential errors."""
        return [error for error in self.errors if error.use_case == use_case.id]

    def measure(self, name: str) -> Measure:
        """The measure of an id."""
        return next(measure for measure in self.measures if measure.id == name)

    def errors_against(self, measure: Measure) -> list[PotentialError]:
        """The errors that a measure is against."""
        return [error for error in self.errors if measure.id in error.measures]

    def confidence_of(self, use_case: UseCase) -> Confidence:
        """Of a use case: the highest of its errors."""
        return max(error.confidence for error in self.errors_of(use_case))


def own_problems(folder: Path = FACTS_FOLDER) -> OwnProblems:
    """The known problems of csa-deploy itself."""
    return OwnProblems.model_validate(_table(folder / "known_problems.toml"))


@lru_cache(maxsize=2)
def tool_confidence(folder: Path = FACTS_FOLDER) -> ToolConfidence:
    """Read and validate the files of a folder."""
    lists = {name: _table(folder / f"{name}.toml")[name] for name in ("use_cases", "errors", "measures")}
    manual = Manual.model_validate(_table(folder / "manual.toml"))
    return ToolConfidence.model_validate({**lists, "manual": manual, "problems": own_problems(folder)})


def _table(path: Path) -> dict[str, object]:
    return tomllib.loads(path.read_text(encoding="utf-8"))
