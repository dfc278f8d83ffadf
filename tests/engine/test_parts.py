"""An engine of several files: moved, proved and refused together, here and in a bundle."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csa_deploy.bundle.archive import write_archive
from csa_deploy.bundle.index import BundleIndex, EngineBuilder
from csa_deploy.bundle.samples import StatedSamples
from csa_deploy.bundle.verify import verify_bundle
from csa_deploy.engine.parts import artifact_hash, gather_parts, parts_folder, place_parts
from csa_deploy.engine.passport import check_engine, passport_of, sealed
from csa_deploy.errors import UsageError
from csa_deploy.records.build import Part, RestrictedFlag
from csa_deploy.records.passport import EngineFile, GraphFile, LayerPrecision, Passport
from csa_deploy.workspace import dump_json, sha256_of


def made(folder: Path, build: str) -> Path:
    """An engine with a companion and a checker blob, all of one build, and its passport."""
    folder.mkdir()
    for name in ("companion.so", "engine.plan.txt"):
        (folder / name).write_text(f"{name} of {build}")
    engine = folder / "e.engine"
    engine.write_text(f"engine of {build}")
    files = (("companion", folder / "companion.so", ""), ("checker-blob", folder / "engine.plan.txt", ""))
    parts = gather_parts(folder / "gathered", files)
    place_parts(folder / "gathered", engine)
    whole = artifact_hash(sha256_of(engine), parts)
    stated = (engine.name, sha256_of(engine), engine.stat().st_size, "trtexec", "11.3.0", ())
    passport = Passport(
        engine=EngineFile(*stated, parts=parts, artifact_sha256=whole),
        graph=GraphFile("g.onnx", hashlib.sha256(b"graph").hexdigest(), ""),
        calibration=None,
        timing_cache_sha256=None,
        versions={},
        device={},
        precision=LayerPrecision("fp32", None, ""),
        restricted=RestrictedFlag("trtexec", False, False, False, ""),
        gates=(),
        rebuild=(),
        command=(),
        not_done=(),
    )
    passport_of(engine).write_text(dump_json(sealed(passport).to_json()))
    return engine


@pytest.fixture
def builds(tmp_path: Path) -> tuple[Path, Path]:
    return made(tmp_path / "one", "one"), made(tmp_path / "two", "two")


def refusal(engine: Path) -> str:
    with pytest.raises(UsageError) as caught:
        check_engine(engine)
    assert ("\n" not in caught.value.message and "of one build" in str(caught.value)) or "build it again" in str(
        caught.value
    )
    return caught.value.message


def test_what_is_of_one_build_passes(builds: tuple[Path, Path]) -> None:
    for engine in builds:
        passport = check_engine(engine)
        assert passport is not None and len(passport.engine.parts) == 2


def test_a_companion_that_is_missing_or_of_another_build(builds: tuple[Path, Path]) -> None:
    engine, other = builds
    companion = parts_folder(engine) / "companion.so"
    stated = sha256_of(companion)
    shutil.copy(parts_folder(other) / "companion.so", companion)
    there = sha256_of(companion)
    said = refusal(engine)
    assert "its companion companion.so is of another build" in said and stated in said and there in said
    companion.unlink()
    said = refusal(engine)
    assert "its companion companion.so" in said and "is missing" in said and stated in said
    shutil.rmtree(parts_folder(engine))
    assert "is missing" in refusal(engine)


def test_an_engine_of_another_build(builds: tuple[Path, Path]) -> None:
    engine, other = builds
    stated, there = sha256_of(engine), sha256_of(other)
    shutil.copy(other, engine)
    said = refusal(engine)
    assert "not the engine that its passport describes" in said and stated in said and there in said


def test_a_part_that_was_added(builds: tuple[Path, Path]) -> None:
    (parts_folder(builds[0]) / "more.so").write_text("?")
    assert "more.so" in refusal(builds[0]) and "is no part of it" in refusal(builds[0])


def test_one_hash_over_all() -> None:
    parts = [Part("companion", "a", "1" * 64, 1), Part("other", "b", "2" * 64, 1)]
    whole = artifact_hash("0" * 64, parts)
    assert artifact_hash("0" * 64, parts[::-1]) == whole
    changed = [replace(parts[0], sha256="3" * 64), parts[1]], [replace(parts[0], file="c"), parts[1]], parts[:1]
    assert len({whole, artifact_hash("1" * 64, parts), *(artifact_hash("0" * 64, other) for other in changed)}) == 5


def test_two_files_of_one_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "p.so").write_text(folder)
    files = [("plugin-run", tmp_path / folder / "p.so", "::P") for folder in ("a", "b")]
    with pytest.raises(UsageError, match=r"two parts of the engine are called p\.so"):
        gather_parts(tmp_path / "gathered", files)


def bundle(engine: Path, out: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A bundle whose own hashes are right."""
    files: dict[str, Any] = {"engine/e.engine": engine, "engine/e.engine.passport.json": passport_of(engine)}
    files |= {f"engine/e.engine.parts/{path.name}": path for path in parts_folder(engine).iterdir()}
    files["graph/g.onnx"] = b"graph"
    change(files)

    def digest(content: Any) -> str:
        return hashlib.sha256(content if isinstance(content, bytes) else content.read_bytes()).hexdigest()

    hashes = {name: digest(content) for name, content in files.items()}
    index = BundleIndex(
        network="net",
        precision="fp32",
        kind="engine",
        engine="engine/e.engine",
        builder=EngineBuilder("trtexec", "11.3.0"),
        graph="graph/g.onnx",
        rebuild=(),
        evidence={},
        samples=StatedSamples(0, 0.0, ()),
        files=hashes,
        not_included=(),
    )
    files["sbom.cdx.json"] = b'{"metadata": {"component": {}}}'
    files["bundle.json"] = dump_json(index.to_json()).encode()
    files["SHA256SUMS"] = "".join(f"{digest(c)}  {name}\n" for name, c in sorted(files.items())).encode()
    write_archive(out, files)
    return out


@pytest.mark.shows("MEA-36", "ERR-30")
def test_a_bundle_of_two_builds_is_damaged(builds: tuple[Path, Path], tmp_path: Path) -> None:
    engine, other = builds
    name = "engine/e.engine.parts/companion.so"
    whole = verify_bundle(bundle(engine, tmp_path / "b.tar", lambda files: None))
    assert whole.verdict == "intact", whole.problems
    companion = parts_folder(other) / "companion.so"
    mixed = verify_bundle(bundle(engine, tmp_path / "m.tar", lambda files: files.update({name: companion})))
    assert mixed.verdict == "damaged"
    assert (
        sha256_of(companion) in mixed.problems[0]
        and sha256_of(parts_folder(engine) / "companion.so") in mixed.problems[0]
    )
    lacking = verify_bundle(bundle(engine, tmp_path / "l.tar", lambda files: files.pop(name)))
    assert lacking.verdict == "damaged" and "is missing" in lacking.problems[0]
