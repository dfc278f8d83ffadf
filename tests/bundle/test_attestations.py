"""Statements, model card and signatures of a bundle: made, proved by other implementations, and refused when edited."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from scipy.stats import beta
from typer.testing import CliRunner

from csa_deploy.bundle import attestations
from csa_deploy.bundle.archive import Archive, write_archive
from csa_deploy.bundle.make import Made, make_bundle
from csa_deploy.bundle.model_card import IntendedUse, check_model_card, make_model_card, read_intended_use
from csa_deploy.bundle.model_signature import ModelSigner, Trusted
from csa_deploy.bundle.sbom import make_sbom
from csa_deploy.bundle.tested_gates import gate_results
from csa_deploy.bundle.verify import verify_bundle
from csa_deploy.cli.main import app
from csa_deploy.config import make_config
from csa_deploy.context import Context
from csa_deploy.errors import UsageError
from csa_deploy.pipeline import run_stages
from csa_deploy.policy.deployment import of_bundle
from csa_deploy.policy.judging import judge_policy
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.profile import Profiled
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.results import dump_json
from csa_deploy.source import load_source
from csa_deploy.verify.results import Results, read_results
from csa_deploy.workspace import Workspace

pytest.importorskip("in_toto_attestation", reason="in-toto-attestation is not installed")

STORED = Path(__file__).parents[1] / "stored" / "csa_digits.zip"
_DIFFERS = {"output": "output", "against": "batch 1", "sample": "3", "difference": 0.5, "rounding": 1e-6}
_BROKEN = {"batch": 4, "samples": 8, "differences": [_DIFFERS]}
Edit = Callable[[dict[str, bytes]], None]


def content_of(path: Path) -> dict[str, bytes]:
    with Archive(path) as archive:
        return {name: archive.read(name) for name in archive.names}


def rewritten(bundle: Path, out: Path, edit: Edit) -> Path:
    """The bundle of somebody who edits files and puts every hash right: index and list of hashes follow."""
    files = content_of(bundle)
    edit(files)
    index = json.loads(files["bundle.json"])
    signatures = ("SHA256SUMS", "SHA256SUMS.sig", "model.sig")
    unlisted = ("bundle.json", "sbom.cdx.json", *signatures)
    index["files"] = {n: hashlib.sha256(data).hexdigest() for n, data in files.items() if n not in unlisted}
    files["bundle.json"] = dump_json(index).encode()
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name not in signatures}
    files["SHA256SUMS"] = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()
    write_archive(out, files)
    return out


@dataclass(frozen=True)
class Keys:
    """Files of a maker, of a stranger, and a root certificate; made by OpenSSL."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        return self.folder / f"{name}.pem"


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("pem")
    pytest.importorskip("model_signing")
    for name in ("maker", "stranger", "root"):
        openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.pem")
        openssl(folder, "ec", "-in", f"{name}.pem", "-pubout", "-out", f"{name}_public.pem")
    signs = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    for name in ("root", "stranger"):
        request = ("req", "-x509", "-new", "-key", f"{name}.pem", "-subj", f"/CN={name}", "-days", "30")
        openssl(folder, *request, "-out", f"{name}_certificate.pem", *signs)
    openssl(folder, "req", "-new", "-key", "maker.pem", "-subj", "/CN=the maker", "-out", "maker.csr")
    (folder / "usage").write_text("keyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\n")
    issue = ("x509", "-req", "-in", "maker.csr", "-CA", "root_certificate.pem", "-CAkey", "root.pem", "-CAcreateserial")
    openssl(folder, *issue, "-days", "30", "-extfile", "usage", "-out", "maker_certificate.pem")
    return Keys(folder)


@pytest.fixture(scope="session")
def compared(workspace: Workspace, trtexec_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The workspace, checked against a scope and compared on a few samples."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copytree(workspace.root, folder / "deploy")
    draw = np.random.default_rng(5).standard_normal((30, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "x.npz", x=draw)
    stored = Workspace(folder / "deploy")
    data = {**stored.config, "data": str(folder / "x.npz"), "scope": ["drive-os-6"]}
    with stored.locked(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{trtexec_folder}:{os.environ['PATH']}")
        for stage in ("check", "verify"):
            run_stages([stage], Context(make_config(data), load_source(data["network"]), stored))
    return stored


@pytest.fixture(scope="session")
def attested(compared: Workspace, feeds: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_bundle(compared, "fp16", tmp_path_factory.mktemp("attested") / "net.tar", feeds)


@pytest.fixture(scope="session")
def by_key(compared: Workspace, feeds: list[Any], keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signed") / "key.tar"
    return make_bundle(compared, "fp16", path, feeds, signer=ModelSigner(keys.maker)).path


@pytest.fixture(scope="session")
def by_certificate(compared: Workspace, feeds: list[Any], keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signed") / "certificate.tar"
    signer = ModelSigner(keys.maker, keys.maker_certificate)
    return make_bundle(compared, "fp16", path, feeds, signer=signer).path


# Statements


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    with zipfile.ZipFile(STORED) as archive:
        archive.extractall(folder)
    return folder


def records_of(root: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in (root / "records").glob("*.json")}


def test_statements_are_in_toto_of_what_the_bundle_holds(attested: Made) -> None:
    """Held against the published protobuf definitions, by hand on the fields that they leave open."""
    from google.protobuf.json_format import ParseDict
    from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
    from in_toto_attestation.v1 import statement_pb2

    files = content_of(attested.path)
    index = json.loads(files["bundle.json"])
    found = {name: json.loads(files[name]) for name in files if name.startswith("attestations/")}
    assert found.pop("attestations/config.json") == index["config"]
    assert list(found) == ["attestations/check.json", "attestations/verify.json"], "who tested nothing states nothing"
    for data in found.values():
        parsed = ParseDict(data, statement_pb2.Statement())
        assert (parsed.type, parsed.predicate_type) == (
            "https://in-toto.io/Statement/v1",
            "https://in-toto.io/attestation/test-result/v0.1",
        )
        result = ParseDict(data["predicate"], test_result_pb2.TestResult())
        assert result.result in ("PASSED", "WARNED") and not result.failed_tests
        for item in result.configuration:
            assert hashlib.sha256(files[item.name]).hexdigest() == item.digest["sha256"]
    subjects = {s["name"]: s["digest"]["sha256"] for s in found["attestations/verify.json"]["subject"]}
    graph, engine, data_name = index["graph"], index["engine"], "data:x.npz"
    assert set(subjects) == {graph, engine, data_name}
    assert subjects[graph] == hashlib.sha256(files[graph]).hexdigest()
    assert subjects[engine] == hashlib.sha256(files[engine]).hexdigest()
    assert subjects[data_name] == json.loads(files["records/verify.json"])["data"]["sha256"]


def test_the_gates_of_a_whole_run(stored: Path) -> None:
    records, profile = (
        records_of(stored),
        Profiled.from_json(json.loads((stored / "measurements/profile.json").read_text())),
    )
    found = gate_results(records, profile, "fp16")
    assert {stage: result.result for stage, result in found.items()} == {
        "export": "PASSED",
        "check": "PASSED",
        "build": "PASSED",
        "verify": "WARNED",
    }, "no limit was asked for, so profile tested nothing; the engine could not run"
    assert "engine fp16 was not compared" in " ".join(found["verify"].warned)
    assert not any("int8" in test for result in found.values() for test in result.passed)
    assert gate_results(records, profile, "int8")["build"].result == "WARNED", "drive-os-6 does not know"


@pytest.mark.parametrize(
    ("stage", "edit", "result"),
    [
        ("export", lambda r: r["differences"][0].update(max_abs_error=1e9), "FAILED"),
        ("check", lambda r: r.update(gate=[]), "WARNED"),
        ("verify", lambda r: r["candidates"][2]["checks"][0].update(state="fail"), "FAILED"),
        ("verify", lambda r: r["candidates"][2].update(verdict="fail"), "FAILED"),
        ("verify", lambda r: r["candidates"][2].update(batch=_BROKEN), "FAILED"),
        ("build", lambda r: r["engines"]["fp16"]["scopes"][0].update(verdict="denied"), "FAILED"),
        ("build", lambda r: r["engines"]["fp16"]["scopes"][0].update(verdict="with GPU fallback"), "PASSED"),
    ],
)
def test_the_worst_test_is_the_result(stored: Path, stage: str, edit: Callable[[Any], Any], result: str) -> None:
    records = records_of(stored)
    assert records["verify"]["candidates"][2]["label"] == "fp16"
    edit(records[stage])
    assert gate_results(records, None, "fp16")[stage].result == result


@pytest.mark.parametrize(("verdict", "result"), [("pass", "PASSED"), ("fail", "FAILED"), ("undecided", "WARNED")])
def test_a_limit_is_a_test_of_its_precision(verdict: str, result: str) -> None:
    gate = {"quantity": "p50_ms", "bound": 5.0, "value": 4.0, "low": 3.0, "high": 4.5, "verdict": verdict, "reason": ""}
    gates = [{**gate, "label": "engine fp16"}, {**gate, "label": "engine int8", "verdict": "fail"}]
    profile = Profiled.from_json({"gates": gates})
    assert gate_results({}, profile, "fp16")["profile"].result == result
    assert gate_results({}, profile, "fp32") == {}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda s: s["predicate"].update(result="FAILED"), "states FAILED, the records of the bundle give WARNED"),
        (lambda s: s["predicate"]["warnedTests"].append("more"), "or other tests"),
        (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), "its predicate is https://slsa.dev"),
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "Wrong statement type"),
        (lambda s: s.update(subject=[]), "At least one subject required"),
        (lambda s: s["subject"][0].pop("digest"), "At least one digest required"),
        (lambda s: s["predicate"]["configuration"][0]["digest"].update(sha256="0" * 64), "is about another records/"),
        (lambda s: s.update(more=1), "no statement of in-toto"),
    ],
)
@pytest.mark.shows("MEA-36", "ERR-30", needs="in-toto-attestation")
def test_an_edited_statement_is_refused(attested: Made, tmp_path: Path, edit: Callable[[Any], Any], said: str) -> None:
    def change(files: dict[str, bytes]) -> None:
        data = json.loads(files["attestations/check.json"])
        edit(data)
        files["attestations/check.json"] = json.dumps(data).encode()

    report = verify_bundle(rewritten(attested.path, tmp_path / "b.tar", change))
    assert report.verdict == "damaged" and any(said in problem for problem in report.problems), report.problems


@pytest.mark.parametrize("content", [b"[]", b"{}", b"null", b"3", b"\xff", b"{"])
@pytest.mark.parametrize("name", ["records/export.json", "records/verify.json", "verify/samples.npz"])
@pytest.mark.shows("MEA-36", "ERR-30", needs="in-toto-attestation")
def test_a_record_that_is_none_makes_the_bundle_damaged(
    attested: Made, tmp_path: Path, name: str, content: bytes
) -> None:
    """With every hash right: a verdict in words, no traceback."""
    report = verify_bundle(rewritten(attested.path, tmp_path / "b.tar", lambda files: files.update({name: content})))
    assert report.verdict == "damaged", report


def test_a_statement_that_was_taken_out_is_missed_and_none_at_all_is_an_older_bundle(
    attested: Made, tmp_path: Path
) -> None:
    def drop(files: dict[str, bytes]) -> None:
        for name in [n for n in files if n.startswith("attestations/")]:
            del files[name]

    report = verify_bundle(rewritten(attested.path, tmp_path / "old.tar", drop))
    assert report.verdict == "intact" and report.attestations.startswith("none; an older csa-deploy made the bundle")

    def plant(files: dict[str, bytes]) -> None:
        files["attestations/build.json"] = files.pop("attestations/check.json")

    report = verify_bundle(rewritten(attested.path, tmp_path / "part.tar", plant))
    assert "attestations/check.json: missing" in report.problems


def test_without_the_library_the_bundle_says_so(
    compared: Workspace, feeds: list[Any], attested: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "in_toto_attestation.v1.statement", None)
    assert not attestations.available()
    made = make_bundle(compared, "fp16", tmp_path / "b.tar", feeds)
    report = verify_bundle(made.path)
    missing = {item.what: item.reason for item in report.index.not_included}
    assert "in-toto-attestation is not installed" in missing["attestations"]
    assert report.verdict == "intact" and report.attestations.startswith("none")
    assert "2 not checked: in-toto-attestation is not installed" in verify_bundle(attested.path).attestations


# Model card


@pytest.fixture(scope="session")
def results(stored: Path) -> Results:
    return read_results(stored / "verify/samples.npz")


@pytest.fixture(scope="session")
def card(stored: Path, results: Results) -> dict[str, Any]:
    records = records_of(stored)
    return make_model_card(
        "fp16",
        ExportRecord.from_json(records["export"]),
        VerifyRecord.from_json(records["verify"]),
        results,
        intended=IntendedUse(use_cases=["reads digits"], users=["testers"], limitations=["no letters"]),
        task="classification",
        data={"evaluation data digits": "a" * 64},
        limitations=["INT8 was not timed"],
    )


def test_the_card_fits_the_published_schema_and_says_how_sure_it_is(card: dict[str, Any]) -> None:
    sbom = make_sbom("csa_digits", {"a": "0" * 64}, None, card)
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(sbom)) is None
    for planted in ("modelCardd", "considerationss"):
        broken = json.dumps(sbom).replace(planted[:-1], planted)
        assert validator.validate_str(broken) is not None, "the schema speaks of model cards"
    metrics = {m["type"]: m for m in card["quantitativeAnalysis"]["performanceMetrics"]}
    top1 = metrics["top1"]
    assert (top1["value"], top1["slice"]) == ("1.0", "fp16, output, 200 samples")
    assert float(top1["confidenceInterval"]["lowerBound"]) == pytest.approx(float(beta.ppf(0.025, 200, 1)), rel=1e-9)
    assert card["considerations"] == {
        "useCases": ["reads digits"],
        "users": ["testers"],
        "technicalLimitations": ["no letters", "INT8 was not timed"],
    }


def test_a_card_that_says_what_the_samples_say(card: dict[str, Any], results: Results) -> None:
    assert check_model_card(card, results, "fp16") == []
    assert check_model_card(card, results, "int8"), "of another precision"


def _metric(card: Any, name: str) -> Any:
    return next(m for m in card["quantitativeAnalysis"]["performanceMetrics"] if m["type"] == name)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda c: _metric(c, "top1").update(value="0.999"),
            "states top1 0.999 of fp16, output, 200 samples, the samples",
        ),
        (lambda c: _metric(c, "top1").update(value="1.000001"), "the samples of the bundle give 1.0"),
        (lambda c: _metric(c, "top1").update(value="all"), "the samples of the bundle give 1.0"),
        (lambda c: _metric(c, "top1")["confidenceInterval"].update(lowerBound="0.99"), "with another interval"),
        (lambda c: _metric(c, "top1").pop("confidenceInterval"), "with another interval"),
        (lambda c: _metric(c, "top1").update(slice="engine fp16, output, 200 samples"), "have no such metric"),
        (lambda c: _metric(c, "top1").update(type="top2"), "does not state top1"),
        (lambda c: c.pop("quantitativeAnalysis"), "does not state top1"),
    ],
)
def test_a_card_that_states_something_else_is_told(
    card: dict[str, Any], results: Results, edit: Callable[[Any], Any], said: str
) -> None:
    other = json.loads(json.dumps(card))
    edit(other)
    assert any(said in line for line in check_model_card(other, results, "fp16"))


def with_card(bundle: Made, card: Mapping[str, Any], samples: bytes | None, out: Path) -> Path:
    """The bundle with these samples and a card; every hash is right."""

    def edit(files: dict[str, bytes]) -> None:
        sbom = json.loads(files["sbom.cdx.json"])
        sbom["metadata"]["component"]["modelCard"] = card
        files["sbom.cdx.json"] = json.dumps(sbom).encode()
        if samples is not None:
            files["verify/samples.npz"] = samples

    return rewritten(bundle.path, out, edit)


@pytest.mark.shows("MEA-36", "ERR-30", needs="in-toto-attestation")
def test_a_bundle_whose_card_states_another_top1_than_its_samples_is_refused(
    bundle: Made, card: dict[str, Any], stored: Path, tmp_path: Path
) -> None:
    samples = (stored / "verify/samples.npz").read_bytes()
    right = verify_bundle(with_card(bundle, card, samples, tmp_path / "right.tar"))
    assert (right.verdict, right.model_card) == ("intact", "says what the samples say")
    better = json.loads(json.dumps(card))
    _metric(better, "top1").update(value="0.9999")
    wrong = verify_bundle(with_card(bundle, better, samples, tmp_path / "wrong.tar"))
    assert wrong.verdict == "damaged" and "the model card states top1 0.9999 of fp16" in wrong.problems[0]
    alone = verify_bundle(with_card(bundle, card, None, tmp_path / "alone.tar"))
    assert alone.verdict == "damaged" and "no samples that show them" in alone.problems[0]


def test_a_bundle_without_a_card_is_an_older_one(bundle: Made, tmp_path: Path) -> None:
    assert verify_bundle(bundle.path).model_card.startswith("states no metrics")

    def drop(files: dict[str, bytes]) -> None:
        sbom = json.loads(files["sbom.cdx.json"])
        del sbom["metadata"]["component"]["modelCard"]
        files["sbom.cdx.json"] = json.dumps(sbom).encode()

    report = verify_bundle(rewritten(bundle.path, tmp_path / "old.tar", drop))
    assert report.verdict == "intact" and report.model_card == "none; an older csa-deploy made the bundle"


def test_what_the_maker_says(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text("use_cases: [reads digits]\n")
    assert read_intended_use(path).use_cases == ["reads digits"]
    for text, said in (
        ("use_cases: []", "use_cases"),
        ("use_cases: [a]\nuses: [a]", "uses"),
        ("use_cases: a", "use_cases"),
        ("", "use_cases"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=said):
            read_intended_use(path)


# Signatures


def test_model_signing_s_own_command_proves_the_unpacked_bundle(
    by_key: Path, by_certificate: Path, keys: Keys, tmp_path: Path
) -> None:
    for name, bundle, how in (
        ("k", by_key, ("key", "--public_key", str(keys.maker_public))),
        ("c", by_certificate, ("certificate", "--certificate_chain", str(keys.root_certificate))),
    ):
        with Archive(bundle) as archive:
            archive.unpack(tmp_path / name)
        words = [sys.executable, "-m", "model_signing", "verify", how[0], str(tmp_path / name)]
        words += ["--signature", str(tmp_path / name / "model.sig"), *how[1:]]
        assert subprocess.run(words, capture_output=True, check=False).returncode == 0
        (tmp_path / name / "LICENSE").write_bytes(b"mine")
        assert subprocess.run(words, capture_output=True, check=False).returncode != 0


@pytest.mark.shows("MEA-36", needs="in-toto-attestation and model-signing")
def test_the_envelopes_verify_with_plain_cryptography(by_key: Path, keys: Keys) -> None:
    """The pre-authentication encoding of DSSE written out, and the signature checked by cryptography alone."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    files = content_of(by_key)
    envelope = json.loads(files["attestations/check.dsse.json"])
    payload = base64.b64decode(envelope["payload"])
    assert payload == files["attestations/check.json"]
    kind = envelope["payloadType"].encode()
    assert kind == b"application/vnd.in-toto+json"
    encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    public: Any = load_pem_public_key(keys.maker_public.read_bytes())
    (signature,) = envelope["signatures"]
    assert public.verify(base64.b64decode(signature["sig"]), encoded, ECDSA(SHA256())) is None


@pytest.mark.parametrize(
    ("signed", "trusted", "state", "verdict"),
    [
        ("by_key", lambda k: Trusted(k.maker_public), "valid", "intact"),
        ("by_key", lambda k: Trusted(k.stranger_public), "unknown signer", "not trusted"),
        ("by_key", lambda k: Trusted(None, (k.root_certificate,)), "unknown signer", "not trusted"),
        ("by_key", lambda k: Trusted(), "unknown signer", "intact"),
        ("by_certificate", lambda k: Trusted(None, (k.root_certificate,)), "valid", "intact"),
        ("by_certificate", lambda k: Trusted(None, (k.stranger_certificate,)), "unknown signer", "not trusted"),
        ("by_certificate", lambda k: Trusted(k.maker_public), "unknown signer", "not trusted"),
        ("unsigned", lambda k: Trusted(k.maker_public), "unsigned", "not trusted"),
        ("unsigned", lambda k: Trusted(), "unsigned", "intact"),
    ],
)
def test_who_is_trusted(
    request: pytest.FixtureRequest,
    bundle: Made,
    keys: Keys,
    signed: str,
    trusted: Callable[[Keys], Trusted],
    state: str,
    verdict: str,
) -> None:
    path = bundle.path if signed == "unsigned" else request.getfixturevalue(signed)
    report = verify_bundle(path, trusted=trusted(keys))
    assert (report.model_signature.state, report.verdict) == (state, verdict), report.model_signature
    assert report.signature.state == "unsigned", "ssh signatures are others"
    if signed == "by_certificate" and state == "valid":
        assert report.model_signature.signer == "CN=the maker" and "2 envelopes signed" in report.attestations


@pytest.mark.parametrize("file", ["LICENSE", "engine/gates.json", "SHA256SUMS"])
@pytest.mark.shows("MEA-36", "ERR-30", needs="in-toto-attestation and model-signing")
def test_a_signed_bundle_that_was_changed_and_whose_hashes_were_put_right(
    by_key: Path, keys: Keys, tmp_path: Path, file: str
) -> None:
    def edit(files: dict[str, bytes]) -> None:
        files[file] = files[file].replace(b"a", b"b") if file != "SHA256SUMS" else files[file]
        if file == "SHA256SUMS":
            files["verify.sh"] += b"#\n"

    report = verify_bundle(rewritten(by_key, tmp_path / "b.tar", edit), trusted=Trusted(keys.maker_public))
    assert report.model_signature.state == "tampered" and report.verdict == "damaged"


def test_an_envelope_with_another_statement_is_refused(by_key: Path, tmp_path: Path) -> None:
    def edit(files: dict[str, bytes]) -> None:
        data = json.loads(files["attestations/check.dsse.json"])
        data["payload"] = base64.b64encode(b"{}").decode()
        files["attestations/check.dsse.json"] = json.dumps(data).encode()

    report = verify_bundle(rewritten(by_key, tmp_path / "b.tar", edit))
    assert "attestations/check.dsse.json: not the statement beside it" in report.problems


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"verificationMaterial": 3}', b"\xff"])
def test_a_signature_that_is_none(by_key: Path, keys: Keys, tmp_path: Path, content: bytes) -> None:
    path = rewritten(by_key, tmp_path / "b.tar", lambda files: files.update({"model.sig": content}))
    report = verify_bundle(path, trusted=Trusted(keys.maker_public))
    assert report.verdict in ("damaged", "not trusted") and report.model_signature.state != "valid"


def test_keys_that_cannot_sign(workspace: Workspace, feeds: list[Any], keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no key\n")
    for signer, said in (
        (ModelSigner(tmp_path / "missing.pem"), "no such key"),
        (ModelSigner(tmp_path / "no.pem"), "does not sign"),
        (ModelSigner(keys.maker, keys.root_certificate), "does not sign"),
    ):
        with pytest.raises(UsageError, match=said):
            make_bundle(workspace, "fp16", tmp_path / "b.tar", feeds, signer=signer)
    assert not (tmp_path / "b.tar").exists()


@pytest.mark.slow  # the bundles, named as text
@pytest.mark.parametrize(
    ("bundle_name", "method", "trusted", "signer", "state"),
    [
        ("by_key", "model-signing-key", "maker_public", None, "pass"),
        ("by_key", "model-signing-key", "stranger_public", None, "fail"),
        ("by_certificate", "model-signing-certificate", "root_certificate", "CN=the maker", "pass"),
        ("by_certificate", "model-signing-certificate", "root_certificate", "CN=another", "fail"),
        ("by_certificate", "ssh", "maker_public", None, "fail"),
    ],
)
def test_a_policy_wants_a_signature(
    request: pytest.FixtureRequest,
    keys: Keys,
    tmp_path: Path,
    bundle_name: str,
    method: str,
    trusted: str,
    signer: str | None,
    state: str,
) -> None:
    wanted = {"method": method, "trusted": str(getattr(keys, trusted)), **({"signer": signer} if signer else {})}
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"schema_version": 1, "name": "signed", "signatures": [wanted]}))
    verdict = judge_policy(path, of_bundle(request.getfixturevalue(bundle_name)))
    assert [r.state for r in verdict.requirements if r.kind == "signature"] == [state]


def test_the_verbs_sign_and_say_what_they_found(compared: Workspace, keys: Keys, tmp_path: Path) -> None:
    card, bundle = tmp_path / "card.yaml", tmp_path / "b.tar"
    card.write_text("use_cases: [finds edges]\nlimitations: [nothing else]\n")
    words = ["bundle", compared.config["network"], "-w", str(compared.root), "--precision", "fp32"]
    words += ["-o", str(bundle), "--model-card", str(card)]
    alone = CliRunner().invoke(app, [*words, "--certificate", str(keys.maker_certificate)])
    assert isinstance(alone.exception, UsageError) and "--sign-model" in str(alone.exception)
    signed = ["--sign-model", str(keys.maker), "--certificate", str(keys.maker_certificate)]
    assert CliRunner().invoke(app, [*words, *signed], catch_exceptions=False).exit_code == 0
    root = ["--trusted-certificate", str(keys.root_certificate)]
    done = CliRunner().invoke(app, ["verify-bundle", str(bundle), *root], catch_exceptions=False)
    assert done.exit_code == 0
    for line in (
        "signature by ssh: unsigned",
        "signature by model signing: valid (CN=the maker)",
        "statements of its gates: check WARNED, verify",
        "model card: says what the samples say",
    ):
        assert line in done.stdout, done.stdout
    stranger = ["--trusted-certificate", str(keys.stranger_certificate), "--json"]
    refused = CliRunner().invoke(app, ["verify-bundle", str(bundle), *stranger])
    told = json.loads(refused.stdout)
    assert (told["verdict"], told["model_signature"]["state"]) == ("not trusted", "unknown signer")
    sbom = json.loads(content_of(bundle)["sbom.cdx.json"])
    considerations = sbom["metadata"]["component"]["modelCard"]["considerations"]
    assert considerations["useCases"] == ["finds edges"] and "nothing else" in considerations["technicalLimitations"]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(sbom)) is None
