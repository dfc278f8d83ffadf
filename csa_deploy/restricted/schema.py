"""Rule packs: what a scope of TensorRT allows, as data.

A pack is one TOML file in ``packs/``; adding a TensorRT version means adding a file. The format is described in
``docs/restricted.md`` and enforced here: a pack with an unknown key, layer, fact or operator is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from csa_deploy.errors import UsageError
from csa_deploy.levels import LEVELS, next_level
from csa_deploy.restricted.conditions import problems
from csa_deploy.restricted.vocabulary import EVIDENCE, LAYER_TYPES, PSEUDO_LAYERS
from csa_deploy.validation import read_toml

Verdict = Literal["allowed", "denied", "unknown", "note"]
"""Of a rule: a ``note`` is reported and never changes the verdict of the layer."""

PACK_FOLDER = Path(__file__).parent / "packs"

Version = Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]
Words = Annotated[str, Field(min_length=1)]


def version_key(version: str) -> tuple[int, ...]:
    """``"8.6.11"`` -> ``(8, 6, 11)``, for comparisons."""
    return tuple(int(part) for part in version.split("."))


class Strict(BaseModel):
    """Part of a pack: frozen, and without keys that nobody knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(Strict):
    """One statement about one or several layer types.

    Attributes:
        id: unique in its pack, dotted lower case; what ``check --explain`` takes.
        layer: layer type(s) as in TensorRT's ``LayerType``, ``"*"`` for every real layer, or a pseudo layer.
        when: condition under which the rule speaks; empty: always.
        unless: the rule keeps silent when this condition holds; lets a rule name what it requires.
        verdict: what the rule says when it speaks.
        message: one line; ``{fact}`` is replaced by the fact of the layer at hand.
        since: first TensorRT version with this behaviour ('' unknown or always).
        until: last version with this behaviour ('' still so).
        evidence: evidence tag, see ``vocabulary.EVIDENCE``.
        source: where the statement comes from, precise enough to look it up.
        instead: what to write instead ('' nothing known).
        repair: name of the exact repair that cures it ('' none).
        probes: ids of the probes that the rule was derived from.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$")]
    layer: tuple[str, ...]
    when: dict[str, Any] = {}
    unless: dict[str, Any] = {}
    verdict: Verdict
    message: Words
    since: Version | Literal[""] = ""
    until: Version | Literal[""] = ""
    evidence: str
    source: Words
    instead: str = ""
    repair: str = ""
    probes: tuple[str, ...] = ()

    @field_validator("layer", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("layer")
    @classmethod
    def _known_layers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in value if name != "*" and name not in LAYER_TYPES | PSEUDO_LAYERS]:
            raise ValueError(f"unknown layer type {unknown[0]!r}")
        return value

    @field_validator("evidence")
    @classmethod
    def _known_evidence(cls, value: str) -> str:
        if value not in EVIDENCE:
            raise ValueError(f"unknown evidence tag {value!r}; one of {', '.join(EVIDENCE)}")
        return value

    @model_validator(mode="after")
    def _known_words(self) -> Rule:
        if found := problems(self.when) + problems(self.unless):
            raise ValueError("; ".join(found))
        return self

    def covers(self, version: str) -> bool:
        """Whether the rule is in force in a TensorRT version."""
        key = version_key(version)
        return (not self.since or key >= version_key(self.since)) and (not self.until or key <= version_key(self.until))


class Pack(Strict):
    """All that is known about one scope.

    Attributes:
        scope: name of the scope, as typed after ``--scope``; one file per scope.
        title: the scope in words, with its platform.
        tensorrt: version of TensorRT that the rules describe; the parser of this version maps the nodes.
        builders: the first TensorRT version whose builds the scope speaks about, and the first that is too new for it.
        platforms: platforms of a target that it speaks about (none: all); see ``target.config``.
        kind: ``gpu`` asks whether the network may run; ``dla`` also places nodes on DLA or GPU.
        extends: scope whose rules this pack inherits ('' none); a rule of the same id replaces the inherited one.
        drop: ids of inherited rules that do not hold here.
        default: verdict of a layer that no rule speaks about.
        limits: what this pack cannot tell, in one line; shown with every verdict.
        reached_by: level of evidence -> what it takes in this scope, where that is not the usual.
        out_of_reach: level of evidence -> why nothing in this scope reaches it.
        rules: the rules, inherited ones first.
    """

    schema_version: Literal[1]
    scope: Annotated[str, Field(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$")]
    title: Words
    tensorrt: Version
    builders: tuple[Version, Version] | None = None
    platforms: tuple[str, ...] = ()
    kind: Literal["gpu", "dla"] = "gpu"
    extends: str = ""
    drop: tuple[str, ...] = ()
    default: Literal["unknown", "denied"] = "unknown"
    limits: str = ""
    reached_by: dict[str, Words] = {}
    out_of_reach: dict[str, Words] = {}
    rules: tuple[Rule, ...] = ()

    @field_validator("reached_by", "out_of_reach")
    @classmethod
    def _known_levels(cls, value: dict[str, str]) -> dict[str, str]:
        if unknown := [name for name in value if name not in LEVELS]:
            raise ValueError(f"unknown level of evidence {unknown[0]!r}; one of {', '.join(LEVELS)}")
        return value

    @model_validator(mode="after")
    def _unique_rules(self) -> Pack:
        seen: set[str] = set()
        for rule in self.rules:
            if rule.id in seen:
                raise ValueError(f"rule id '{rule.id}' occurs twice")
            seen.add(rule.id)
        return self

    def next_level(self, level: str, usual: str) -> str:
        """What the next level of evidence takes, in words; ``usual`` where the pack says nothing of its own."""
        return self.reached_by.get(next_level(level, self.out_of_reach) or "", usual)

    def rules_for(self, layer: str) -> Iterator[Rule]:
        """Rules that may speak about a layer type, in file order."""
        return (
            rule for rule in self.rules if layer in rule.layer or ("*" in rule.layer and layer not in PSEUDO_LAYERS)
        )


def read_pack(path: Path) -> Pack:
    """Read and validate one pack file, without the rules it inherits.

    Raises:
        UsageError: not TOML, or not a pack; names the file, the place and the defect.
    """
    return read_toml(path, Pack, f"rule pack {path.name}", fix="see the pack format in docs/restricted.md")


_read_once = lru_cache(maxsize=64)(read_pack)  # packs extend one another


@lru_cache(maxsize=8)
def pack_files(folder: Path = PACK_FOLDER) -> dict[str, Path]:
    """Scope -> file, by directory listing (``packs/drive_os_6.toml`` is scope ``drive-os-6``), sorted by name.

    Files whose name begins with an underscore hold shared rules and are no scope of their own.
    """
    return dict(sorted((path.stem.strip("_").replace("_", "-"), path) for path in folder.glob("*.toml")))


@lru_cache(maxsize=64)
def load_pack(scope: str, folder: Path = PACK_FOLDER) -> Pack:
    """The pack of a scope with inherited rules resolved and rules of other versions left out.

    Raises:
        UsageError: no such scope (names the known ones), or a broken pack.
    """
    pack = _resolve(scope, folder, ())
    return pack.model_copy(update={"rules": tuple(rule for rule in pack.rules if rule.covers(pack.tensorrt))})


def _resolve(scope: str, folder: Path, below: tuple[str, ...]) -> Pack:
    files = pack_files(folder)
    if scope not in files:
        raise UsageError(f"no rule pack for scope '{scope}'", fix=f"use one of {', '.join(scopes(folder))}")
    pack = _read_once(files[scope])
    if pack.scope != scope:
        raise UsageError(
            f"rule pack {files[scope].name} calls itself '{pack.scope}'", fix="name the file after its scope"
        )
    if scope in below:
        raise UsageError(f"rule pack '{scope}' extends itself by way of {' -> '.join(below)}", fix="break the circle")
    rules: dict[str, Rule] = {}
    if pack.extends:
        rules = {rule.id: rule for rule in _resolve(pack.extends, folder, (*below, scope)).rules}
        if missing := [rule for rule in pack.drop if rule not in rules]:
            raise UsageError(
                f"rule pack '{scope}' drops '{missing[0]}', which it does not inherit", fix="correct the id"
            )
        rules = {name: rule for name, rule in rules.items() if name not in pack.drop}
    rules |= {rule.id: rule for rule in pack.rules}
    return pack.model_copy(update={"rules": tuple(rules.values())})


def scopes(folder: Path = PACK_FOLDER) -> list[str]:
    """Scopes with a pack, sorted."""
    return [name for name, path in pack_files(folder).items() if not path.name.startswith("_")]
