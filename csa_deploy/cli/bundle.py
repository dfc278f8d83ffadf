"""``csa-deploy bundle`` and ``csa-deploy verify-bundle``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.cli.stages import Network

if TYPE_CHECKING:
    from csa_deploy.bundle.model_signature import ModelSigner
    from csa_deploy.bundle.signature import Signature
    from csa_deploy.bundle.verdict import Verdict


@flags("bundle")
def bundle(
    console: Console,
    settings: dict[str, Any],
    network: Network = None,
    precision: Annotated[
        str, typer.Option("--precision", help="Engine or graph to bundle: fp32, fp16, int8.")
    ] = "fp16",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The bundle; default NETWORK.PRECISION.tar.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Sample inputs to put in.")] = 2,
    despite_failure: Annotated[
        bool, typer.Option("--despite-failure", help="Bundle what a gate refused, too; the bundle says so.")
    ] = False,
    emit: Annotated[
        list[str] | None,
        typer.Option("--emit", help="Files for another tool: autoware, the parameters of its TensorRT detector node."),
    ] = None,
    model_card: Annotated[
        Path | None, typer.Option("--model-card", help="YAML: use_cases, users and limitations, for the model card.")
    ] = None,
    sign: Annotated[Path | None, typer.Option("--sign", metavar="KEY", help="SSH key to sign with.")] = None,
    sign_model: Annotated[
        Path | None, typer.Option("--sign-model", metavar="KEY", help="PEM key to sign with, by OpenSSF model signing.")
    ] = None,
    certificate: Annotated[
        list[Path] | None,
        typer.Option("--certificate", help="PEM certificate of that key, then those above it (repeatable)."),
    ] = None,
) -> None:
    """Make one file to hand over, which proves itself.

    Engine and graph, passport, calibration, sample inputs with expected outputs, records, report, SBOM and verify.sh,
    which needs a shell, sha256sum and trtexec. States the verdict of the gates, here and in the bundle; where one
    failed, nothing is made without --despite-failure (exit 4, 6 or 7, as the gate has it).
    """
    from csa_deploy.bundle.make import make_bundle
    from csa_deploy.bundle.model_card import read_intended_use
    from csa_deploy.bundle.needs import needs_of
    from csa_deploy.bundle.samples import sample_feeds
    from csa_deploy.bundle.verdict import refuse_failed, verdict_of
    from csa_deploy.cli.session import existing_workspace, opened, resolve

    existing_workspace(network, settings)
    signer = _signer(sign_model, certificate or [])
    intended = read_intended_use(model_card) if model_card is not None else None
    config, root = resolve(network, settings, inherit=True)
    with opened(config, root) as context:
        out = output or Path(f"{context.name}.{precision}.tar")
        if not despite_failure:
            refuse_failed(verdict_of(context.workspace), str(root))
        feeds, needs = sample_feeds(context, samples), needs_of(context)
        made = make_bundle(
            context.workspace,
            precision,
            out,
            feeds,
            key=sign,
            needs=needs,
            despite_failure=despite_failure,
            decoding=context.decoding,
            classes=context.preprocessing.classes if context.preprocessing else (),
            emit=emit or (),
            intended=intended,
            signer=signer,
        )
    console.answer.add({"path": str(made.path), "files": made.files, "sha256": made.sha256})
    console.answer.add({"verdict": made.verdict.to_json(), "not_included": [need.to_json() for need in needs]})
    console.show(f"{made.path}: {made.files} files, SHA-256 {made.sha256}")
    console.out.print(made.verdict.text, markup=False, soft_wrap=True)


def _signer(key: Path | None, certificates: list[Path]) -> ModelSigner | None:
    from csa_deploy.bundle.model_signature import ModelSigner
    from csa_deploy.errors import UsageError

    if key is None:
        if certificates:
            raise UsageError("--certificate is of a key", fix="give the key with --sign-model")
        return None
    return ModelSigner(key, certificates[0] if certificates else None, tuple(certificates[1:]))


@flags("verify-bundle", workspace=False)
def verify_bundle(
    console: Console,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The bundle.")],
    allowed_signers: Annotated[
        Path | None, typer.Option("--allowed-signers", help="Only these may have signed (see man ssh-keygen).")
    ] = None,
    trusted_key: Annotated[
        Path | None, typer.Option("--trusted-key", help="Only this public PEM key may have signed by model signing.")
    ] = None,
    trusted_certificate: Annotated[
        list[Path] | None,
        typer.Option("--trusted-certificate", help="Only a certificate of these PEM roots may have (repeatable)."),
    ] = None,
    unpack: Annotated[Path | None, typer.Option("--unpack", help="Unpack there when it is as it should be.")] = None,
) -> None:
    """Prove a bundle: form, hashes, passport, statements, model card, signatures.

    Exit 2 when it is damaged, changed or contradicts itself, or is not signed by one of those who are given as trusted.
    """
    from csa_deploy.bundle.model_signature import Trusted
    from csa_deploy.bundle.verify import unpack_bundle
    from csa_deploy.bundle.verify import verify_bundle as check
    from csa_deploy.errors import UsageError

    trusted = Trusted(trusted_key, tuple(trusted_certificate or ()))
    report = check(file, allowed_signers, trusted)
    console.answer.add(report.to_json())
    index = report.index
    what = f"{index.kind} of {index.network} in {index.precision}"
    lines = [
        f"{file}: {report.verdict}; {what}, {report.files} files",
        f"signature by ssh: {_signed(report.signature)}",
        f"signature by model signing: {_signed(report.model_signature)}",
        f"verdict of its gates: {_gates(index.verdict)}",
        f"statements of its gates: {report.attestations}",
        f"model card: {report.model_card}",
        *_evidence(index.evidence),
        *report.problems,
    ]
    console.plain(*lines)
    if report.verdict != "intact":
        both = f"by ssh {report.signature.state}, by model signing {report.model_signature.state}"
        reason = "; ".join(report.problems) or f"signature: {both}"
        raise UsageError(f"{file}: {report.verdict}: {reason}", fix="ask for the bundle again, from its maker")
    if unpack is not None:
        unpack_bundle(file, unpack, allowed_signers, trusted)


def _signed(said: Signature) -> str:
    return f"{said.state} ({said.who})" if said.who else said.state


def _evidence(stated: dict[str, str | None]) -> list[str]:
    """What the build showed, and why no more."""
    why = f"; not {stated['why_not_next']}" if stated.get("why_not_next") else ""
    return [f"{stated['statement']}{why}"] if stated.get("level") else []


def _gates(said: Verdict | None) -> str:
    """What the gates had said when the bundle was made."""
    return said.text if said else "not stated; an older csa-deploy made the bundle"
