"""Gates as in-toto Statements with the test-result predicate, made and read with the library in-toto-attestation.

Statement v1: https://in-toto.io/Statement/v1; predicate: https://in-toto.io/attestation/test-result/v0.1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from csa_deploy.bundle.archive import Archive
from csa_deploy.bundle.index import BundleIndex
from csa_deploy.bundle.tested_gates import TestedGate, gate_results
from csa_deploy.errors import CsaDeployError
from csa_deploy.records.check import CheckRecord
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.profile import Profiled
from csa_deploy.records.repair import RepairRecord
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.results import dump_json
from csa_deploy.workspace import Workspace

_FOLDER = "attestations"
CONFIGURATION = f"{_FOLDER}/config.json"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
LACKING = "in-toto-attestation is not installed; pip install csa-deploy[attest]"
_GRAPH_OF: dict[str, type[ExportRecord | OptimizeRecord | RepairRecord]] = {
    "exported": ExportRecord,
    "optimized": OptimizeRecord,
    "repaired": RepairRecord,
}
_TESTS = ("passedTests", "warnedTests", "failedTests")


def available() -> bool:
    """Whether statements can be made and read here."""
    try:
        import in_toto_attestation.v1.statement  # noqa: F401
    except ImportError:
        return False
    return True


def make_attestations(
    workspace: Workspace, precision: str, tested: Mapping[str, str], files: Mapping[str, str]
) -> dict[str, bytes]:
    """A statement per gate, by path in the bundle, and the configuration that they name; nothing without the library.

    Args:
        tested: graph and engine of the bundle, path in it -> SHA-256.
        files: everything else in it, likewise.
    """
    if not available():
        return {}
    stages = workspace.stages
    records = {name: workspace.record(name) for name in stages}
    profile = Profiled.from_json(workspace.measured("profile")) if "profile" in stages else None
    configuration = dump_json(workspace.config).encode()
    found = {CONFIGURATION: configuration}
    for stage, result in gate_results(records, profile, precision).items():
        named = {**files, CONFIGURATION: sha256(configuration)}
        used = {name: named[name] for name in (f"records/{stage}.json", CONFIGURATION)}
        statement = make_statement(_subjects(workspace, stage, tested), result, used)
        found[f"{_FOLDER}/{stage}.json"] = dump_json(statement).encode()
    return found


def sha256(content: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _subjects(workspace: Workspace, stage: str, tested: Mapping[str, str]) -> dict[str, str]:
    """What a gate tested: the graph that the stage saw, else graph and engine of the bundle, and data."""
    if stage in ("export", "check"):
        of = workspace.read(CheckRecord).of if stage == "check" else "exported"
        graph = workspace.read(_GRAPH_OF[of]).graph
        return {graph: workspace.hash_of(graph)}
    data = workspace.find(VerifyRecord)
    if stage == "verify" and data is not None:
        return {**tested, f"data:{Path(data.data.name).name}": data.data.sha256}
    return dict(tested)


def make_statement(subjects: Mapping[str, str], result: TestedGate, used: Mapping[str, str]) -> dict[str, Any]:
    """One statement as JSON has it.

    Args:
        subjects: what was tested, name -> SHA-256.
        used: files that configured the test, path in the bundle -> SHA-256.
    """
    from google.protobuf.json_format import MessageToDict
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
    from in_toto_attestation.v1.statement import Statement

    configuration = [{"name": name, "digest": {"sha256": digest}} for name, digest in used.items()]
    statement = Statement(
        [ResourceDescriptor(name=name, digest={"sha256": digest}).pb for name, digest in subjects.items()],
        PREDICATE,
        {**result.predicate(), "configuration": configuration},
    )
    statement.validate()
    return dict(MessageToDict(statement.pb))


def statement_files(names: list[str]) -> list[str]:
    """The statements among the files of a bundle."""
    return [name for name in names if name.startswith(f"{_FOLDER}/") and name != CONFIGURATION]


def check_attestations(archive: Archive, index: BundleIndex, records: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What the statements of a bundle say, in words, and what contradicts the bundle.

    Args:
        archive: the bundle, whose hashes are right.
    """
    found = [name for name in statement_files(archive.names) if not name.endswith(".dsse.json")]
    if not found:
        return "none; an older csa-deploy made the bundle, or one without in-toto-attestation", []
    if not available():
        return f"{len(found)} not checked: {LACKING}", []
    measured = "measurements/profile.json"
    try:
        profile = Profiled.from_json(json.loads(archive.read(measured))) if measured in archive.names else None
        expected = gate_results(records, profile, index.precision)
    except (CsaDeployError, KeyError, ValueError, TypeError, AttributeError) as error:
        return f"{len(found)} not checked", [f"{_FOLDER}: the records do not give what they state: {error}"]
    said, problems = [], []
    for name in found:
        stage = name.removeprefix(f"{_FOLDER}/").removesuffix(".json")
        result, problem = _checked(archive.read(name), expected.get(stage), index.files)
        said.append(f"{stage} {result}")
        problems += [f"{name}: {problem}"] if problem else []
    problems += [f"{_FOLDER}/{stage}.json: missing" for stage in expected if f"{_FOLDER}/{stage}.json" not in found]
    return ", ".join(said), problems


def _checked(content: bytes, expected: TestedGate | None, files: Mapping[str, str]) -> tuple[str, str]:
    """Result of a statement, and what is wrong with it; empty when nothing is."""
    from google.protobuf.json_format import MessageToDict, Parse, ParseDict, ParseError
    from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    try:
        statement = Statement.copy_from_pb(Parse(content, statement_pb2.Statement()))
        statement.validate()
        predicate = MessageToDict(ParseDict(MessageToDict(statement.pb.predicate), test_result_pb2.TestResult()))
    except (ParseError, ValueError, UnicodeDecodeError) as error:
        return "unreadable", f"no statement of in-toto: {' '.join(str(error).split())[:200]}"
    result = str(predicate.get("result", "none"))
    if statement.pb.predicate_type != PREDICATE:
        return result, f"its predicate is {statement.pb.predicate_type}, not {PREDICATE}"
    stated = {key: predicate[key] for key in ("result", *_TESTS) if key in predicate}
    if expected is None or stated != expected.predicate():
        said = expected.result if expected else "nothing"
        return result, f"states {result}, the records of the bundle give {said}, or other tests"
    descriptors = [*MessageToDict(statement.pb)["subject"], *predicate.get("configuration", ())]
    for item in descriptors:
        there = files.get(item.get("name", ""))
        if there is not None and item["digest"].get("sha256") != there:
            return result, f"is about another {item['name']} than the bundle's"
    return result, ""
