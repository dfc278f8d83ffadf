"""Bundles of a real workspace: the same bytes twice, any change found, and the script of the bundle under dash."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csa_deploy.bundle.archive import Archive, write_archive
from csa_deploy.bundle.make import Made, _script, make_bundle
from csa_deploy.bundle.samples import Samples
from csa_deploy.bundle.verify import unpack_bundle, verify_bundle
from csa_deploy.errors import UsageError
from csa_deploy.records.build import BuildRecord
from csa_deploy.workspace import Workspace

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


def test_made_twice_it_is_the_same_file(bundle: Made, workspace: Workspace, feeds: list, tmp_path: Path) -> None:
    again = make_bundle(workspace, "fp16", tmp_path / "other name.tar", feeds)
    assert again.path.read_bytes() == bundle.path.read_bytes()


def test_what_is_in_it(bundle: Made) -> None:
    with Archive(bundle.path) as archive:
        names = set(archive.names)
        index = json.loads(archive.read("bundle.json"))
        sbom = json.loads(archive.read("sbom.cdx.json"))
        passport = json.loads(archive.read("engine/net.fp16.engine.passport.json"))
        text = b"".join(archive.read(name) for name in names if name.endswith((".json", ".sh", "SUMS")))
    assert {"engine/net.fp16.engine", "engine/net.fp16.engine.passport.json", "graph/net.fp16.onnx"} <= names
    assert "engine/net.fp16.engine.layers.json" in names  # for `inspect` and `diff` where it arrived
    assert passport["graph"]["sha256"] == index["files"][index["graph"]]
    assert {"verify.sh", "LICENSE", "SHA256SUMS", "samples/1/input.0.raw", "records/build.json"} <= names
    assert index["builder"] == {"backend": "trtexec", "version": "10.3.0"}
    assert ("accuracy", "not verified in this workspace") in {(n["what"], n["reason"]) for n in index["not_included"]}
    assert index["rebuild"][:2] == ["csa-deploy", "build"]
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    named = {c["name"]: c for c in sbom["components"]}
    assert {"onnx", "onnxruntime"} <= named.keys()
    assert (named["TensorRT"]["version"], "tensorrt-rtx" in named) == ("10.3.0", False)
    assert b"timestamp" not in text


def test_the_sbom_fits_its_schema(bundle: Made) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason="no cyclonedx-python-lib here")
    from cyclonedx.schema import SchemaVersion
    from packageurl import PackageURL

    with Archive(bundle.path) as archive:
        text = archive.read("sbom.cdx.json").decode()
    validator = validation.JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"library"', '"libary"')) is not None
    for component in json.loads(text)["components"]:
        if "purl" in component:
            assert PackageURL.from_string(component["purl"]).to_string() == component["purl"]


@pytest.mark.shows("MEA-36", "ERR-20")
def test_an_engine_of_another_graph_is_not_bundled(workspace: Workspace, feeds: list, tmp_path: Path) -> None:
    """The graph was made anew since the engine was built of it."""
    copy = tmp_path / "copy"
    shutil.copytree(workspace.root, copy)
    graph = copy / "onnx" / "net.fp16.onnx"
    graph.write_bytes(graph.read_bytes() + b"\x00")
    with pytest.raises(UsageError, match="not the graph that the engine was built of"):
        make_bundle(Workspace(copy), "fp16", tmp_path / "b.tar", feeds)


def test_it_is_intact_and_unsigned(bundle: Made) -> None:
    report = verify_bundle(bundle.path)
    assert (report.verdict, report.problems, report.signature.state) == ("intact", (), "unsigned")


@pytest.mark.shows("MEA-36", "ERR-30")
def test_a_flipped_byte_anywhere_is_found(bundle: Made, tmp_path: Path) -> None:
    whole = bundle.path.read_bytes()
    path = tmp_path / "flipped.tar"
    with tarfile.open(bundle.path) as archive:
        members = [member for member in archive if member.size]
    for member in members:
        for offset in (member.offset_data, member.offset_data + member.size - 1):
            path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1 :])
            try:
                found = verify_bundle(path).verdict == "damaged"
            except UsageError:
                found = True  # the list of hashes itself is not readable any more
            assert found, (member.name, offset)


def test_a_bundle_that_is_cut_short(bundle: Made, tmp_path: Path) -> None:
    """Wherever it is cut, also within a member's header: refused, or damaged; only zeros at the end may be missing."""
    path, content = tmp_path / "cut.tar", bundle.path.read_bytes()
    end = len(content.rstrip(b"\0"))
    for length in (*range(0, end, 1_717), *range(end - 6_000, end, 500)):
        path.write_bytes(content[:length])
        with contextlib.suppress(UsageError):
            assert verify_bundle(path).verdict == "damaged", length


def rebuilt(bundle: Made, path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with Archive(bundle.path) as archive:
        files = {name: archive.read(name) for name in archive.names}
    change(files)
    write_archive(path, files)
    return path


@pytest.mark.shows("MEA-36", "ERR-30")
def test_added_and_missing_files_are_named(bundle: Made, tmp_path: Path) -> None:
    added = rebuilt(bundle, tmp_path / "added.tar", lambda files: files.update({"extra.txt": b"x"}))
    assert "extra.txt: added" in verify_bundle(added).problems[0]
    missing = rebuilt(bundle, tmp_path / "missing.tar", lambda files: files.pop("LICENSE") and None)
    assert verify_bundle(missing).problems == ("LICENSE: missing",)


def with_right_sums(files: dict[str, bytes]) -> None:
    """The list of hashes of somebody who edits files and forgets that the index states them too."""
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != "SHA256SUMS"}
    files["SHA256SUMS"] = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()


@pytest.mark.shows("MEA-36", "ERR-30")
def test_a_file_that_is_not_the_index_s_is_found_although_its_hash_is_listed(bundle: Made, tmp_path: Path) -> None:
    """Every file is exchanged, taken out, and one is added, with a list of hashes that fits."""
    with Archive(bundle.path) as archive:
        names = [name for name in archive.names if name not in ("SHA256SUMS", "bundle.json", "sbom.cdx.json")]
    for name in names:
        for content in (b"another", None):

            def exchange(files: dict[str, bytes], name: str = name, content: bytes | None = content) -> None:
                files.pop(name)
                files |= {} if content is None else {name: content}
                with_right_sums(files)

            report = verify_bundle(rebuilt(bundle, tmp_path / "b.tar", exchange))
            assert report.verdict == "damaged" and f"{name}: not the file that bundle.json states" in report.problems

    def add(files: dict[str, bytes]) -> None:
        files["extra.txt"] = b"x"
        with_right_sums(files)

    added = verify_bundle(rebuilt(bundle, tmp_path / "added.tar", add))
    assert added.problems == ("extra.txt: not the file that bundle.json states",)


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 1, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([member("../evil")], "lead outside"),
        ([member("/etc/passwd")], "lead outside"),
        ([member("a/../../b")], "lead outside"),
        ([member("a\nb")], "no plain name"),
        ([member("-rf")], "no plain name"),
        ([member("link", tarfile.SYMTYPE, 0, "/etc/passwd")], "no plain file"),
        ([member("link", tarfile.LNKTYPE, 0, "verify.sh")], "no plain file"),
        ([member("pipe", tarfile.FIFOTYPE, 0)], "no plain file"),
        ([member("dev", tarfile.CHRTYPE, 0)], "no plain file"),
        ([member("folder", tarfile.DIRTYPE, 0)], "no plain file"),
        ([member("twice"), member("twice")], "twice"),
    ],
)
def test_hostile_members_are_refused(members: list[tarfile.TarInfo], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(b"x" * info.size))
    with pytest.raises(UsageError, match=reason):
        verify_bundle(path)
    with pytest.raises(UsageError):
        unpack_bundle(path, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hostile.tar"]


def test_bombs_are_refused(tmp_path: Path) -> None:
    many = tmp_path / "many.tar"
    with tarfile.open(many, "w") as archive:
        for index in range(10_001):
            archive.addfile(member(f"f{index}", size=0))
    with pytest.raises(UsageError, match="more than"):
        verify_bundle(many)
    packed = tmp_path / "packed.tar"
    with tarfile.open(packed, "w:gz") as archive:
        archive.addfile(member("zeros", size=10_000_000), io.BytesIO(bytes(10_000_000)))
    with pytest.raises(UsageError, match="no bundle"):
        verify_bundle(packed)
    huge = tmp_path / "huge.tar"
    huge.write_bytes(member("SHA256SUMS", size=1 << 40).tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(UsageError):
        verify_bundle(huge)


@pytest.mark.parametrize("content", [b"", b"\0" * 10240, b"not a tar", b"PK\3\4" + bytes(600)])
def test_what_is_no_bundle(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        verify_bundle(path)


@pytest.mark.shows("MEA-36", "ERR-30")
def test_signatures_are_told_apart(
    workspace: Workspace, feeds: list, bundle: Made, signing_key: Path, tmp_path: Path
) -> None:
    signed = make_bundle(workspace, "fp16", tmp_path / "signed.tar", feeds, key=signing_key)
    again = make_bundle(workspace, "fp16", tmp_path / "again.tar", feeds, key=signing_key)
    assert signed.sha256 == again.sha256  # Ed25519 signs the same way every time
    public = signing_key.with_suffix(".pub").read_text()
    allowed, others = tmp_path / "allowed", tmp_path / "others"
    allowed.write_text(f"maker@example.com {public}")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    others.write_text(f"other@example.com {(tmp_path / 'k.pub').read_text()}")

    def told(path: Path, signers: Path | None) -> tuple[str, str]:
        report = verify_bundle(path, signers)
        return report.verdict, report.signature.state

    assert told(signed.path, allowed) == ("intact", "valid")
    assert verify_bundle(signed.path, allowed).signature.who.startswith("maker@example.com")
    assert told(signed.path, others) == ("not trusted", "unknown signer")
    assert told(signed.path, None) == ("intact", "unknown signer")
    assert told(bundle.path, allowed) == ("not trusted", "unsigned")

    def forge(files: dict[str, bytes]) -> None:
        """Change a file and its hash, and leave the signature."""
        import hashlib

        before = hashlib.sha256(files["LICENSE"]).hexdigest().encode()
        files["LICENSE"] += b"."
        after = hashlib.sha256(files["LICENSE"]).hexdigest().encode()
        files["SHA256SUMS"] = files["SHA256SUMS"].replace(before, after)

    assert told(rebuilt(signed, tmp_path / "forged.tar", forge), allowed) == ("damaged", "tampered")


def run_script(shell: str, folder: Path, trtexec: Path | None = None) -> subprocess.CompletedProcess[str]:
    words = [shell, "sh"] if shell == "busybox" else [shell]
    environment = {"PATH": os.environ["PATH"]} | ({"TRTEXEC": str(trtexec / "trtexec")} if trtexec else {})
    return subprocess.run(
        [*words, str(folder / "verify.sh")], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def unpacked(bundle: Made, tmp_path: Path) -> Path:
    unpack_bundle(bundle.path, tmp_path / "arrived here")
    return tmp_path / "arrived here"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_proves_the_bundle(shell: str, unpacked: Path, trtexec_folder: Path) -> None:
    done = run_script(shell, unpacked, trtexec_folder)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "expected outputs on 2 samples" in done.stdout


@pytest.mark.parametrize("shell", SHELLS[:1])
def test_the_script_finds_what_is_wrong(shell: str, unpacked: Path, trtexec_folder: Path, tmp_path: Path) -> None:
    def said(trtexec: Path | None = trtexec_folder) -> tuple[int, str]:
        done = run_script(shell, unpacked, trtexec)
        return done.returncode, done.stdout + done.stderr

    def restore() -> None:
        for name, content in kept.items():
            (unpacked / name).write_bytes(content)

    kept = {name: (unpacked / name).read_bytes() for name in ("LICENSE", "samples/1/output.0.bounds", "SHA256SUMS")}
    (unpacked / "LICENSE").write_bytes(b"x" + kept["LICENSE"][1:])
    code, text = said()
    assert code == 1
    assert "LICENSE: FAILED" in text
    restore()
    (unpacked / "samples" / "added").write_text("")
    assert said()[0] == 1
    (unpacked / "samples" / "added").unlink()
    (unpacked / "linked").symlink_to("LICENSE")
    assert said()[0] == 1
    (unpacked / "linked").unlink()
    assert said(None)[0] == 3
    # Other outputs than expected: the bounds are moved, and listed again.
    bounds = kept["samples/1/output.0.bounds"].decode().splitlines(True)
    high = int(bounds[7].split()[1])
    moved = "".join([*bounds[:7], f"{high + 1} {high + 2}\n", *bounds[8:]])
    (unpacked / "samples/1/output.0.bounds").write_text(moved)
    sums = subprocess.run(
        ["sha256sum", "samples/1/output.0.bounds"], cwd=unpacked, capture_output=True, text=True, check=True
    ).stdout
    lines = [
        sums if "samples/1/output.0.bounds" in line else line for line in kept["SHA256SUMS"].decode().splitlines(True)
    ]
    (unpacked / "SHA256SUMS").write_text("".join(lines))
    code, text = said()
    assert code == 2
    assert "value 7 is" in text
    restore()
    assert said()[0] == 0
    # An engine that trtexec refuses.
    other = tmp_path / "other"
    other.mkdir()
    (other / "trtexec").write_text((trtexec_folder / "trtexec").read_text().replace("10.3.0", "10.16.0"))
    (other / "trtexec").chmod(0o755)
    code, text = said(other)
    assert code == 2
    assert "Version tag does not match" in text


def test_nothing_to_bundle(workspace: Workspace, feeds: list, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no int8 graph; made is fp16, fp32"):
        make_bundle(workspace, "int8", tmp_path / "x.tar", feeds)
    with pytest.raises(UsageError, match="no such key"):
        make_bundle(workspace, "fp16", tmp_path / "x.tar", feeds, key=tmp_path / "missing")
    assert not (tmp_path / "x.tar").exists()


@pytest.mark.parametrize("shell", SHELLS[:1])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1", 10**6),
        ("-1.5", -1_500_000),
        ("1e-05", 10),
        ("-2.25e+02", -225_000_000),
        ("0.0000004", 0),
        ("1.23457e-08", 0),
        ("007.50", 7_500_000),
    ],
)
def test_decimals_in_shell(shell: str, text: str, expected: int, unpacked: Path) -> None:
    script = (unpacked / "verify.sh").read_text()
    function = script[script.index("scaled() {") : script.index("# Reads trtexec's values")]
    words = [shell, "-c", f'SCALE=6\n{function}\nscaled "$1" && echo "$digits"', "sh", text]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(done.stdout) == expected
    for bad in ("nan", "inf", "1e99", ""):
        assert subprocess.run([*words[:-1], bad], capture_output=True, check=False).returncode != 0


def test_values_are_exact_in_raw_files(bundle: Made, feeds: list) -> None:
    with Archive(bundle.path) as archive:
        raw = np.frombuffer(archive.read("samples/0/input.0.raw"), np.float32).reshape(1, 3, 8, 8)
    assert np.array_equal(raw, feeds[0]["x"])


def test_the_script_says_why_an_engine_of_tensorrt_rtx_is_not_run(digits: Any) -> None:
    samples = Samples({}, (), (), 6, 0.01)
    engine = Workspace(digits.root).read(BuildRecord).engines["fp16"]
    assert engine.backend == "tensorrt-rtx"
    of_rtx = _script(engine, samples)
    assert "trtexec of TensorRT does not run those" in of_rtx and "no engine" not in of_rtx
    assert "this bundle holds a graph and no engine" in _script(None, samples)
