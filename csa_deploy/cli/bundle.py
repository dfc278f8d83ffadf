"""``csa-deploy bundle`` and ``csa-deploy verify-bundle``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.cli.stages import Network


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
    sign: Annotated[Path | None, typer.Option("--sign", metavar="KEY", help="SSH key to sign with.")] = None,
) -> None:
    """Make one file to hand over, which proves itself.

    Engine and graph, passport, calibration, sample inputs with expected outputs, records, report, SBOM and verify.sh,
    which needs a shell, sha256sum and trtexec. States the verdict of the gates, here and in the bundle; where one
    failed, nothing is made without --despite-failure (exit 4, 6 or 7, as the gate has it).
    """
    from csa_deploy.bundle.make import make_bundle
    from csa_deploy.bundle.needs import needs_of
    from csa_deploy.bundle.samples import sample_feeds
    from csa_deploy.bundle.verdict import refuse_failed, verdict_of
    from csa_deploy.cli.session import existing_workspace, opened, resolve

    existing_workspace(network, settings)
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
        )
    console.answer.add({"path": str(made.path), "files": made.files, "sha256": made.sha256})
    console.answer.add({"verdict": made.verdict.to_json(), "not_included": [need.to_json() for need in needs]})
    console.show(f"{made.path}: {made.files} files, SHA-256 {made.sha256}")
    console.out.print(made.verdict.text, markup=False, soft_wrap=True)


@flags("verify-bundle", workspace=False)
def verify_bundle(
    console: Console,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The bundle.")],
    allowed_signers: Annotated[
        Path | None, typer.Option("--allowed-signers", help="Only these may have signed (see man ssh-keygen).")
    ] = None,
    unpack: Annotated[Path | None, typer.Option("--unpack", help="Unpack there when it is as it should be.")] = None,
) -> None:
    """Prove a bundle: form, hashes, passport, signature.

    Exit 2 when it is damaged, changed, or not signed by one of --allowed-signers.
    """
    from csa_deploy.bundle.verify import unpack_bundle
    from csa_deploy.bundle.verify import verify_bundle as check
    from csa_deploy.errors import UsageError

    report = check(file, allowed_signers)
    console.answer.add(report.to_json())
    who = f" ({report.signature.who})" if report.signature.who else ""
    index = report.index
    what = f"{index['kind']} of {index['network']} in {index['precision']}"
    lines = [
        f"{file}: {report.verdict}; {what}, {report.files} files",
        f"signature: {report.signature.state}{who}",
        f"verdict of its gates: {_gates(report.index)}",
        *_evidence(report.index.get("evidence") or {}),
        *report.problems,
    ]
    console.plain(*lines)
    if report.verdict != "intact":
        reason = "; ".join(report.problems) or f"signature: {report.signature.state}"
        raise UsageError(f"{file}: {report.verdict}: {reason}", fix="ask for the bundle again, from its maker")
    if unpack is not None:
        unpack_bundle(file, unpack, allowed_signers)


def _evidence(stated: dict[str, Any]) -> list[str]:
    """What the build showed, and why no more."""
    why = f"; not {stated['why_not_next']}" if stated.get("why_not_next") else ""
    return [f"{stated['statement']}{why}"] if stated.get("level") else []


def _gates(index: dict[str, Any]) -> str:
    """What the gates had said when the bundle was made."""
    said = index.get("verdict")
    if said is None:
        return "not stated; an older csa-deploy made the bundle"
    return ": ".join(filter(None, (said["state"].upper(), "; ".join(said["reasons"]))))
