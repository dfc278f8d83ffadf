"""A policy held against bundles: nothing of a changed one is believed, and who signed counts."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from csa_deploy.bundle.archive import Archive, write_archive
from csa_deploy.bundle.make import Made, make_bundle
from csa_deploy.errors import UsageError
from csa_deploy.policy.deployment import of_bundle, of_workspace
from csa_deploy.policy.judging import judge_policy
from csa_deploy.policy.verdict import PolicyVerdict
from csa_deploy.workspace import Workspace


def judged(bundle: Path, folder: Path, **keys: Any) -> PolicyVerdict:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"schema_version": 1, "name": "of the tests", **keys}))
    return judge_policy(path, of_bundle(bundle))


def states(verdict: PolicyVerdict) -> dict[str, str]:
    return {r.kind: r.state for r in verdict.requirements}


@pytest.fixture(scope="session")
def signers(signing_key: Path) -> Path:
    """Who is trusted: the maker, and somebody else with another key."""
    other = signing_key.with_name("other")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    public = {
        name: (signing_key.with_name(f"{file}.pub")).read_text()
        for name, file in (("a@b.c", "key"), ("x@y.z", "other"))
    }
    path = signing_key.with_name("signers")
    path.write_text("".join(f"{name} {' '.join(key.split()[:2])}\n" for name, key in public.items()))
    return path


def test_a_bundle_and_its_workspace_are_judged_alike(bundle: Made, workspace: Workspace, tmp_path: Path) -> None:
    keys = {"limits": {"engine fp16": {"engine_mib": 1000}}, "budgets": {"fp16": {"snr_db": 1}}}
    of_file = judged(bundle.path, tmp_path, **keys)
    of_folder = judge_policy(tmp_path / "policy.yaml", of_workspace(workspace.root))
    assert states(of_file) == {"bundle": "pass", **states(of_folder)}
    assert {r.state for r in of_file.requirements if r.kind in ("accuracy", "limit")} == {"not measured"}


def test_of_a_changed_bundle_nothing_is_judged(bundle: Made, tmp_path: Path) -> None:
    with Archive(bundle.path) as archive:
        files: dict[str, Any] = {name: archive.read(name) for name in archive.names}
    files["records/export.json"] += b" "
    write_archive(tmp_path / "changed.tar", files)
    verdict = judged(tmp_path / "changed.tar", tmp_path, scopes={"drive-os-6": {}})
    assert states(verdict) == {"bundle": "fail"} and verdict.verdict == "rejected"
    assert "records/export.json: changed" in verdict.requirements[0].found
    with tarfile.open(tmp_path / "no.tar", "w"):
        pass
    with pytest.raises(UsageError, match="nothing is in it"):
        of_bundle(tmp_path / "no.tar")


@pytest.mark.parametrize(
    ("signed", "signer", "state"),
    [(True, "a@b.c", "pass"), (True, None, "pass"), (True, "x@y.z", "fail"), (False, None, "fail")],
)
def test_who_signed(
    workspace: Workspace,
    feeds: list[Any],
    signing_key: Path,
    signers: Path,
    tmp_path: Path,
    signed: bool,
    signer: str | None,
    state: str,
) -> None:
    path = tmp_path / "net.tar"
    make_bundle(workspace, "fp16", path, feeds, key=signing_key if signed else None)
    wanted = {"method": "ssh", "trusted": str(signers), **({"signer": signer} if signer else {})}
    verdict = judged(path, tmp_path, signatures=[wanted])
    assert states(verdict)["signature"] == state
    said = next(r.found for r in verdict.requirements if r.kind == "signature")
    assert ("valid: a@b.c" in said) == signed and ("unsigned" in said) != signed


def test_a_file_of_signers_that_is_not_there_is_an_error_of_the_policy(bundle: Made, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nobody: no such file, which signatures\.trusted names"):
        judged(bundle.path, tmp_path, signatures=[{"method": "ssh", "trusted": "nobody"}])
