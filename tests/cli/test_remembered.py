"""What a verb takes over from earlier ones is said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from csa_deploy.cli.main import app
from csa_deploy.cli.session import remembered, resolve
from csa_deploy.options import OPTIONS, flag_words


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    app([*arguments], standalone_mode=False)
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("remembered: ")]


def test_settings_of_earlier_verbs_are_said(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lab)
    assert said(capsys, "profile", "tiny.onnx", "--fp16", "--keep-fp32", "head", "--iterations", "3") == []
    assert said(capsys, "profile", "tiny.onnx") == ["remembered: --precision fp16 --keep-fp32 head --iterations 3"]
    assert said(capsys, "profile", "tiny.onnx", "--fp16", "--keep-fp32", "conv") == ["remembered: --iterations 3"]
    assert said(capsys, "export", "tiny.onnx") == []  # nothing that it reads


def test_what_is_said_is_what_makes_the_same_configuration(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flags, typed in an empty workspace, give the settings that were remembered."""
    monkeypatch.chdir(lab)
    first = {"precision": ["int8"], "calib": "x.npz", "samples": 5, "strict": True, "size": "16x24", "search": False}
    first |= {"input_shape": ["x=1x3x16x16"], "mean": "0.5,0.25,0.5", "scale": 0.5, "crop": 1.0, "layout": "nchw"}
    first |= {"techniques": ["none"], "scope": ["drive-os-6", "drive-os-7"], "limit": ["engine-fp16.p99_ms=5"]}
    config, root = resolve("tiny.onnx", first, inherit=False)
    root.mkdir(parents=True)
    from csa_deploy.workspace import Workspace

    workspace = Workspace(root)
    workspace.config = config.to_json()
    workspace.save()
    words = remembered(root, config, {}, ["profile", "verify", "build", "check", "precision"]).split()
    pairs: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            pairs.setdefault(last := word[2:].removeprefix("no-").replace("-", "_"), [])
            negated = word.startswith("--no-")
            pairs[last] += [str(not negated)] if OPTIONS[last].type is bool else []
        else:
            pairs[last].append(word)
    typed = {k: v if OPTIONS[k].type == list[str] else v[0] for k, v in pairs.items()}
    again, _ = resolve("tiny.onnx", {"workspace": "other", **typed}, inherit=False)
    assert again == config


def test_no_setting_is_written_as_a_python_object() -> None:
    assert flag_words("size", (16, 24)) == ["--size", "16x24"]
    assert flag_words("restricted", False) == ["--no-restricted"]
    assert flag_words("limit", {"engine fp16": {"p99_ms": 5.0}}) == ["--limit", "engine-fp16.p99_ms=5.0"]
    assert flag_words("techniques", ()) == ["--techniques", "none"]
    assert flag_words("mean", (0.5, 0.25, 0.5)) == ["--mean", "0.5,0.25,0.5"]
    assert flag_words("input_shape", {"x": (1, 3, 48, 192)}) == ["--input-shape", "x=1x3x48x192"]


@pytest.mark.parametrize(
    "verb", [("export",), ("check", "--scope", "drive-os-7"), ("profile", "--fp32", "--iterations", "2")]
)
def test_a_workspace_alone_names_its_network(lab: Path, csa: Any, verb: tuple[str, ...]) -> None:
    """The default network took its place, and all that was there was gone."""
    assert csa(lab, "export", "tiny.onnx", "-w", "mine").returncode == 0
    before = (lab / "mine/records/export.json").read_bytes()
    done = csa(lab, *verb, "-w", "mine")
    assert done.returncode in (0, 4), done.stderr
    assert (lab / "mine/records/export.json").read_bytes() == before
    assert json.loads((lab / "mine/manifest.json").read_text())["config"]["network"] == "tiny.onnx"
