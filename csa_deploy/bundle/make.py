"""Makes a bundle of what a workspace holds for one precision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from csa_deploy import __version__
from csa_deploy.bundle.archive import write_archive
from csa_deploy.bundle.attestations import LACKING, make_attestations, statement_files
from csa_deploy.bundle.attestations import available as attestations_available
from csa_deploy.bundle.envelope import envelope_of, sign_statement
from csa_deploy.bundle.index import INDEX, BundleIndex, EngineBuilder
from csa_deploy.bundle.model_card import IntendedUse, make_model_card
from csa_deploy.bundle.model_signature import MODEL_SIGNATURE, ModelSigner, sign_model
from csa_deploy.bundle.needs import Need
from csa_deploy.bundle.runtime import is_safe, runtime_files
from csa_deploy.bundle.samples import Samples, make_samples
from csa_deploy.bundle.sbom import make_sbom
from csa_deploy.bundle.signature import SIGNATURE, sign
from csa_deploy.bundle.verdict import Verdict, refuse_failed, verdict_of
from csa_deploy.engine.parts import parts_folder
from csa_deploy.engine.passport import check_engine, passport_of, read_passport
from csa_deploy.errors import UsageError
from csa_deploy.graph.load import external_files
from csa_deploy.naming import unknown
from csa_deploy.records.build import BuildRecord, EngineRecord
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.precision import PrecisionRecord, TypedGraph
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.tasks.autoware import autoware_files
from csa_deploy.verify.results import SAMPLES, read_results
from csa_deploy.workspace import Workspace, dump_json, sha256_of

SUMS, SBOM, _SCRIPT = "SHA256SUMS", "sbom.cdx.json", "verify.sh"
_TEMPLATE = Path(__file__).with_name("verify.sh.j2")
_NO_ENGINE = "this bundle holds a graph and no engine"
EMITTED = ("autoware",)
_RTX = "the engine is of TensorRT-RTX, and trtexec of TensorRT does not run those; load it with TensorRT-RTX"
_PAIRED = (
    "the engine is a safety engine of several files; runtime/ holds a program that compares it, README.txt says how"
)


@dataclass(frozen=True)
class Made:
    """A bundle that was written: its path, SHA-256, number of files, and what the gates had said."""

    path: Path
    sha256: str
    files: int
    verdict: Verdict


def make_bundle(
    workspace: Workspace,
    precision: str,
    out: Path,
    feeds: Sequence[Mapping[str, np.ndarray]],
    *,
    key: Path | None = None,
    needs: Sequence[Need] = (),
    despite_failure: bool = False,
    decoding: Mapping[str, Any] | None = None,
    classes: Sequence[str] = (),
    emit: Sequence[str] = (),
    intended: IntendedUse | None = None,
    signer: ModelSigner | None = None,
) -> Made:
    """Write a bundle.

    Args:
        workspace: with at least the precision stage done.
        precision: of the engine or graph.
        feeds: sample inputs in FP32.
        key: SSH key to sign with; None leaves it unsigned.
        needs: what building it again takes and the bundle does not hold.
        despite_failure: bundle what a gate refused, too; the bundle says so.
        decoding: how outputs become boxes, with the thresholds in force; None where nobody states it.
        classes: names in the order of the network's classes.
        emit: files for other tools, of :data:`EMITTED`.
        intended: what the network is for, for the model card.
        signer: signs the attestations, and all files the way of OpenSSF model signing; None leaves them unsigned.

    Raises:
        CsaDeployError: a gate failed; of the class, and so with the exit code, of that gate.
        UsageError: nothing to bundle, an engine that is not its passport's, or a key that cannot sign.
    """
    typed = _typed_graph(workspace, precision)
    verdict = verdict_of(workspace)
    if not despite_failure:
        refuse_failed(verdict, str(workspace.root))
    engine = _engine(workspace, precision)
    graph = workspace.root / typed.graph if engine is None else _built_graph(workspace, engine)
    files: dict[str, bytes | Path] = {f"graph/{graph.name}": graph}
    files |= {f"graph/{name}": file for name, file in external_files(graph).items()}
    if engine is not None:
        files |= _engine_files(workspace, engine)
    files |= _evidence(workspace)
    reference = workspace.root / workspace.read(ExportRecord).graph
    samples = make_samples(graph, reference, feeds, precision)
    files |= samples.files
    files |= _emitted(emit, f"../graph/{graph.name}", precision, classes, decoding or {})
    if engine is not None and is_safe(engine.command):
        files |= runtime_files(f"engine/{engine.engine}", engine.parts, samples.listed)
    files[_SCRIPT] = _script(engine, samples).encode()
    files["LICENSE"] = _licence()
    hashes = {name: _sha256(content) for name, content in files.items()}
    network = str(workspace.config.get("network", workspace.root.name))
    builder = f"{engine.backend} {engine.version}" if engine else None
    attested = _attested(workspace, precision, hashes, signer)
    files |= attested
    hashes |= {name: _sha256(content) for name, content in attested.items()}
    card = _card(workspace, precision, verdict, needs, intended)
    files[SBOM] = dump_json(make_sbom(network, hashes, builder, card)).encode()
    index = _index(workspace, network, precision, engine, f"graph/{graph.name}", samples, hashes)
    missing = (*_missing(workspace, engine), *needs)
    index = replace(index, verdict=verdict, not_included=missing, postprocessing=decoding or None)
    files[INDEX] = dump_json(index.to_json()).encode()
    sums = "".join(f"{_sha256(content)}  {name}\n" for name, content in sorted(files.items())).encode()
    files[SUMS] = sums
    if signer is not None:
        files[MODEL_SIGNATURE] = sign_model(files, signer)
    if key is not None:
        files[SIGNATURE] = sign(sums, key)
    write_archive(out, files)
    return Made(out, sha256_of(out), len(files), verdict)


def _attested(
    workspace: Workspace, precision: str, hashes: Mapping[str, str], signer: ModelSigner | None
) -> dict[str, bytes | Path]:
    """The gates as statements; in envelopes too where somebody signs."""
    tested = {name: digest for name, digest in hashes.items() if name.endswith((".onnx", ".engine"))}
    found = make_attestations(workspace, precision, tested, hashes)
    signed = (
        {envelope_of(name): sign_statement(found[name], signer) for name in statement_files([*found])} if signer else {}
    )
    return {**found, **signed}


def _card(
    workspace: Workspace, precision: str, verdict: Verdict, needs: Sequence[Need], intended: IntendedUse | None
) -> dict[str, Any]:
    """The model card."""
    verified, stored = workspace.find(VerifyRecord), workspace.root / SAMPLES
    data = {f"{need.what} {need.path}": need.sha256 for need in needs if need.what.endswith(" data") and need.sha256}
    missing = [f"{item.what}: {item.reason}" for item in (verified.not_measured if verified else ())]
    return make_model_card(
        precision,
        workspace.read(ExportRecord),
        verified,
        read_results(stored) if verified and stored.is_file() else None,
        intended=intended,
        task=workspace.config.get("task"),
        data=data,
        limitations=[*verdict.reasons, *missing],
    )


def _emitted(
    emit: Sequence[str], graph: str, precision: str, classes: Sequence[str], decoding: Mapping[str, Any]
) -> dict[str, bytes | Path]:
    """Files for other tools."""
    for tool in emit:
        if tool not in EMITTED:
            raise UsageError(unknown("tool", tool, EMITTED), fix=f"--emit is one of {', '.join(EMITTED)}")
    if "autoware" not in emit:
        return {}
    score, overlap = decoding.get("score_threshold"), decoding.get("nms_iou")
    if score is None or overlap is None:
        raise UsageError(
            "Autoware's node needs a score threshold and one for NMS", fix="give --score-threshold and --nms-iou"
        )
    files = autoware_files(graph, precision, classes, score_threshold=score, nms_threshold=overlap)
    return {f"autoware/{name}": content for name, content in files.items()}


def _typed_graph(workspace: Workspace, precision: str) -> TypedGraph:
    record = workspace.find(PrecisionRecord)
    precisions = record.precisions if record else {}
    if precision not in precisions:
        made = ", ".join(sorted(precisions)) or "nothing"
        raise UsageError(f"{workspace.root}: no {precision} graph; made is {made}", fix="run `csa-deploy build` first")
    return precisions[precision]


def _engine(workspace: Workspace, precision: str) -> EngineRecord | None:
    record = workspace.find(BuildRecord)
    return record.engines.get(precision) if record else None


def _built_graph(workspace: Workspace, engine: EngineRecord) -> Path:
    """The graph that an engine was built of: not always that of its precision (TensorRT 8 makes FP16 of FP32)."""
    stated = read_passport(workspace.root / engine.passport).graph
    graph = workspace.root / "onnx" / stated.file
    if not graph.is_file() or sha256_of(graph) != stated.sha256:
        raise UsageError(f"{graph}: not the graph that the engine was built of", fix="run `csa-deploy build` again")
    return graph


def _engine_files(workspace: Workspace, engine: EngineRecord) -> dict[str, bytes | Path]:
    path = workspace.root / engine.path
    if check_engine(path) is None:
        raise UsageError(f"{path}: it has no passport", fix="run `csa-deploy build` again")
    files: dict[str, bytes | Path] = {f"engine/{path.name}": path}
    parts = parts_folder(path)
    files |= {f"engine/{parts.name}/{part.file}": parts / part.file for part in engine.parts}
    # Gates that ran after the build; the passport itself is sealed.
    files[f"engine/{passport_of(path).name}"] = passport_of(path)
    files["engine/gates.json"] = dump_json(_gates(workspace)).encode()
    network = workspace.root / engine.network
    files[f"engine/{network.name}"] = network
    if engine.inspection:
        files[f"engine/{engine.inspection}"] = path.with_name(engine.inspection)
    return files


def _gates(workspace: Workspace) -> dict[str, Any]:
    """Every stage that can fail, and how it ended; what did not run is said."""
    found: dict[str, Any] = {}
    for stage in ("export", "check", "verify", "profile"):
        entry = workspace.stages.get(stage)
        if entry is None:
            found[stage] = {"result": "not run"}
        else:
            result = "passed" if entry.passed else "failed"
            found[stage] = {"result": result, "summary": workspace.summary(stage)}
    return found


def _evidence(workspace: Workspace) -> dict[str, bytes | Path]:
    """Records of the stages, the report where there is one, calibration files, and the parts of a split network."""
    files: dict[str, bytes | Path] = {}
    if "profile" in workspace.stages:
        files["measurements/profile.json"] = workspace.root / "measurements/profile.json"
    if "verify" in workspace.stages and (results := workspace.root / SAMPLES).is_file():
        files[SAMPLES] = results
    for stage, entry in workspace.stages.items():
        files[f"records/{stage}.json"] = workspace.root / f"records/{stage}.json"
        if stage == "report":
            files |= {f"report/{Path(p).name}": workspace.root / p for p in entry.made}
            files |= {f"report/{Path(p).name}": workspace.root / p for p in entry.unhashed if "measurements/" not in p}
        if stage == "split":
            files |= {f"split/{p}": workspace.root / p for p in entry.made}
        if stage == "precision":
            kept = [p for p in entry.made if not p.endswith((".onnx", ".data"))]
            files |= {f"calibration/{Path(p).name}": workspace.root / p for p in kept}
    return files


def _script(engine: EngineRecord | None, samples: Samples) -> str:
    environment = jinja2.Environment(  # noqa: S701 - the output is sh, not HTML
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        comment_start_string="<#",  # sh writes ${#name}
        comment_end_string="#>",
    )
    paired = bool(engine and engine.parts)
    runs = engine is not None and engine.backend != "tensorrt-rtx" and not paired
    options = [word for word in (engine.command if engine else ()) if word.startswith(("--useDLACore", "--safe"))]
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        engine=f"engine/{engine.engine}" if engine and runs else "",
        not_run=(_PAIRED if paired else _RTX) if engine else _NO_ENGINE,
        scale=samples.scale,
        outputs=samples.outputs,
        samples=samples.inputs,
        tolerance=f"{samples.tolerance:g}",
        options=" ".join(options),
    )


def _index(
    workspace: Workspace,
    network: str,
    precision: str,
    engine: EngineRecord | None,
    graph: str,
    samples: Samples,
    hashes: dict[str, str],
) -> BundleIndex:
    passport = read_passport(workspace.root / engine.passport) if engine else None
    flag = passport.restricted if passport else None
    return BundleIndex(
        network=network,
        precision=precision,
        kind="engine" if engine else "graph",
        engine=f"engine/{engine.engine}" if engine else None,
        builder=EngineBuilder(engine.backend, engine.version) if engine else None,
        graph=graph,
        rebuild=passport.rebuild if passport else None,
        evidence={key: getattr(flag, key) for key in ("level", "why_not_next", "statement")} if flag else {},
        samples=samples.stated,
        files=hashes,
        not_included=(),
        config=workspace.config,
    )


def _missing(workspace: Workspace, engine: EngineRecord | None) -> Iterator[Need]:
    """What was not made, or cannot be made here."""
    stages = workspace.stages
    if engine is None:
        yield Need("engine", "", None, "not built in this workspace; build the graph on its target")
    if "report" not in stages:
        yield Need("report", "", None, "not made in this workspace")
    if not attestations_available():
        yield Need("attestations", "", None, LACKING)
    if "verify" not in stages:
        yield Need("accuracy", "", None, "not verified in this workspace")


def _licence() -> bytes:
    """The licence of csa-deploy; those of the packages stand in the SBOM in their own words."""
    for file in metadata.files("csa-deploy") or []:
        if file.name == "LICENSE" and Path(str(file.locate())).is_file():
            return Path(str(file.locate())).read_bytes()
    stated = metadata.metadata("csa-deploy").get_all("License-Expression") or ["see its package"]
    return f"csa-deploy {__version__}: {stated[0]}\n".encode()


def _sha256(content: bytes | Path) -> str:
    return sha256_of(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
