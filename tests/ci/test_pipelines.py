"""What runs csa-deploy in other people's pipelines: its scripts on real graphs, its files against their schemas."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

import csa_deploy
from tests.conftest import Misfits
from tools import constraints

ROOT = Path(csa_deploy.__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(not (ROOT / "action.yml").is_file(), reason="not a checkout")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def graph(path: Path, *, allowed: bool) -> Path:
    """A convolution; where it is not to be allowed, the mean of its map behind it, which drive-os-6 denies."""
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y" if allowed else "c"])]
    nodes += [] if allowed else [helper.make_node("ReduceMean", ["c"], ["y"], axes=[1, 2], keepdims=0)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6] if allowed else [1, 6])]
    made = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def shell(script: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **variables}
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script], cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        *(("vendor.github-workflows", path) for path in WORKFLOWS),
        ("vendor.github-actions", ROOT / "action.yml"),
        ("vendor.gitlab-ci", ROOT / "templates" / "gitlab.yml"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_files_fit_the_schemas_of_those_who_read_them(
    schema: str, path: Path, tmp_path: Path, misfits: Misfits
) -> None:
    # A hidden job of GitLab is not held against the schema; a job that is made of it is.
    right = path.read_text(encoding="utf-8").replace(".csa-deploy-check:", "check:")
    wrong = re.sub(r"\b(runs|runs-on):", r"x\1:", right).replace("junit: ", "junit: {} # ")
    for text, fits in ((right, True), (wrong, False)):
        (tmp_path / "file.yml").write_text(text, encoding="utf-8")
        assert (misfits(schema, tmp_path / "file.yml") == "") is fits


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_few_rights_and_an_end(path: Path) -> None:
    flow = read(path)
    assert flow["permissions"] == {"contents": "read"}
    assert all(job.get("timeout-minutes") for job in flow["jobs"].values())
    steps = [step for job in flow["jobs"].values() for step in job["steps"]]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)
    # What a stranger names (a branch, a title) reaches a script by its environment only.
    assert not [step["run"] for step in steps if "${{" in step.get("run", "")]


def test_a_release_is_attested_and_holds_no_password() -> None:
    publish = read(ROOT / ".github/workflows/release.yml")["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    (step,) = (step for step in publish["steps"] if "pypi-publish" in step["uses"])
    assert step["with"] == {"attestations": True}


USED = [
    (path, used)
    for path in (*WORKFLOWS, ROOT / "action.yml", ROOT / "examples/my-network/.github/workflows/deploy.yml")
    for used in re.findall(r"(?m)^\s*(?:- )?uses: (.+)$", path.read_text(encoding="utf-8") if path.is_file() else "")
]


@pytest.mark.parametrize(("path", "used"), USED, ids=lambda value: getattr(value, "name", value))
def test_an_action_is_named_by_its_commit(path: Path, used: str) -> None:
    assert (
        re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used)
        or used == "pypa/gh-action-pypi-publish@release/v1"
    )


def test_the_wheel_carries_its_bill_of_materials(tmp_path: Path) -> None:
    """The step of the release on a small wheel: PEP 770, and RECORD names the file with its hash."""
    wheelfile = pytest.importorskip("wheel.wheelfile", reason="the package wheel is not installed")
    steps = {step.get("name"): step for step in read(ROOT / ".github/workflows/release.yml")["jobs"]["build"]["steps"]}
    (tmp_path / "dist").mkdir()
    (tmp_path / "sbom").mkdir()
    bill = b'{"bomFormat": "CycloneDX"}'
    (tmp_path / "sbom" / "csa-deploy.cdx.json").write_bytes(bill)
    made, info = tmp_path / "dist" / "a-1-py3-none-any.whl", "a-1.dist-info"
    with wheelfile.WheelFile(made, "w") as file:  # with its RECORD
        file.writestr("a.py", "")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: a\nVersion: 1\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    script = steps["The wheel carries it (PEP 770)"]["run"].replace("python ", f"{sys.executable} ")
    done = shell(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "dist").iterdir()] == [made.name]
    with zipfile.ZipFile(made) as file:
        assert file.read(f"{info}/sboms/csa-deploy.cdx.json") == bill
        digest = base64.urlsafe_b64encode(hashlib.sha256(bill).digest()).decode().rstrip("=")
        assert f"{info}/sboms/csa-deploy.cdx.json,sha256={digest},{len(bill)}" in file.read(f"{info}/RECORD").decode()


def test_constraints_are_what_pip_would_install() -> None:
    rows = [("b", "2.0+cpu"), ("A", "1"), ("csa-deploy", "9")]
    report = {"install": [{"metadata": {"name": name, "version": version}} for name, version in rows]}
    assert constraints.lines(report).splitlines()[1:] == ["A==1", "b==2.0"]
    kept = constraints.PAGE.read_text(encoding="utf-8")
    stored = [
        {"metadata": dict(zip(("name", "version"), line.split("=="), strict=True))} for line in kept.splitlines()[1:]
    ]
    assert constraints.lines({"install": stored}) == kept


@pytest.mark.slow
@pytest.mark.parametrize(("allowed", "code"), [(True, 0), (False, 4)])
def test_the_action_checks_reports_and_ends_with_the_verdict(tmp_path: Path, allowed: bool, code: int) -> None:
    steps = {step.get("name"): step for step in read(ROOT / "action.yml")["runs"]["steps"]}
    assert not [step for step in steps.values() if "${{" in step.get("run", "")]
    (tmp_path / "csa-deploy").mkdir()
    (tmp_path / "csa-deploy" / "bin").symlink_to(BIN)
    files = {"GITHUB_OUTPUT": str(tmp_path / "out"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    given = {
        "NETWORK": str(graph(tmp_path / "g.onnx", allowed=allowed)),
        "SCOPE": "drive-os-6",
        "ARGUMENTS": "--strict",
    }
    done = shell(steps["Check"]["run"], tmp_path, RUNNER_TEMP=str(tmp_path), **files, **given)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_text() == f"exit-code={code}\n"
    summary = (tmp_path / "summary").read_text()
    assert f"| `drive-os-6` | {'✅ allowed' if allowed else '❌ denied'} | static |" in summary
    results = json.loads((tmp_path / "csa-deploy-check.sarif").read_text())["runs"][0]["results"]
    assert bool([one for one in results if one["level"] == "error"]) is not allowed
    assert shell(steps["Verdict"]["run"], tmp_path, CODE=str(code)).returncode == code


@pytest.mark.slow
def test_the_hook_checks_every_file(tmp_path: Path) -> None:
    (hook,) = read(ROOT / ".pre-commit-hooks.yaml")
    good, bad = (graph(tmp_path / name, allowed=name == "good.onnx") for name in ("good.onnx", "bad.onnx"))
    assert re.search(hook["files"], good.name)
    for files, code in (([good], 0), ([bad, good], 4)):
        done = shell(shlex.join([*shlex.split(hook["entry"]), *hook["args"], *map(str, files)]), tmp_path)
        assert done.returncode == code and done.stdout.count("drive-os-7:") == len(files), done.stderr


@pytest.mark.slow
def test_the_template_for_gitlab_ends_with_the_verdict(tmp_path: Path) -> None:
    job = read(ROOT / "templates" / "gitlab.yml")[".csa-deploy-check"]
    script = "\n".join(line for line in job["script"] if not line.startswith("pip "))
    assert len(script.splitlines()) == len(job["script"]) - 1
    done = shell(script, tmp_path, NETWORK=str(graph(tmp_path / "g.onnx", allowed=False)), SCOPE="drive-os-6")
    assert done.returncode == 4, done.stderr
    assert (tmp_path / job["artifacts"]["reports"]["junit"]).is_file()
    assert "❌ denied" in (tmp_path / job["artifacts"]["paths"][0]).read_text()
