"""The run directory: artifacts with their hashes, one record per stage, a manifest that says what is current.

Layout of a workspace::

    manifest.json            what is current: configuration, and per stage its key, verdict and artifact hashes
    records/<stage>.json     the stage's result; the same inputs give the same bytes
    measurements/<stage>.json  what differs from run to run: seconds, latencies, the host
    <artifacts>              onnx/..., engines/..., report.html

A stage is *current* when its key (a hash over settings, input hashes and tool versions) is the manifest's and every
file has the hash that the manifest states. Files are made in a scratch directory and renamed into place, the
manifest last, so a killed run never leaves half an artifact that counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from csa_deploy.errors import CsaDeployError, EnvironmentLacksError, UsageError
from csa_deploy.manifest import SCHEMA_VERSION, Artifact, Manifest, StageEntry
from csa_deploy.results import StageRecord, dump_json

MANIFEST = "manifest.json"
SCRATCH = ".scratch"
_LOCK = ".lock"

R = TypeVar("R", bound=StageRecord)
Written = TypeVar("Written", bound=StageRecord, covariant=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def key_of(parts: Mapping[str, Any]) -> str:
    """Hash of a JSON-serialisable description."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, flush it to disk and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class StageOutput(Generic[Written]):
    """What a stage hands to the workspace.

    Attributes:
        record: the result, the same for the same inputs.
        measured: what differs from run to run.
        artifacts: path inside the workspace -> file in the scratch directory.
        unhashed: like artifacts, for files whose bytes differ between runs of the same inputs.
        failure: the gate that failed; the results are kept all the same, and the stage runs again next time.
        remarks: parts of the record that are measured or said, on which no later stage rests.
    """

    record: Written
    measured: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)
    unhashed: dict[str, Path] = field(default_factory=dict)
    failure: CsaDeployError | None = None
    remarks: tuple[str, ...] = ()

    @property
    def stated(self) -> dict[str, Any]:
        """The record as plain data."""
        return self.record.to_json()


class Workspace:
    """A run directory.

    Attributes:
        config: the settings of the stages that ran.
        stages: the stages that ran, by name.

    Raises:
        UsageError: the directory holds a manifest that cannot be read or is of another schema version.
        EnvironmentLacksError: the directory cannot be created or written.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.reload()

    def reload(self) -> None:
        """Read the manifest again, which another process or object may have written."""
        manifest = self._read_manifest()
        self.config, self.stages = manifest.config, manifest.stages

    def _read_manifest(self) -> Manifest:
        path = self.root / MANIFEST
        if not path.exists():
            return Manifest({}, {})
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            version = data["schema_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable(str(error)) from None
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{path}: schema version {version}, this csa-deploy writes {SCHEMA_VERSION}",
                fix="use another --workspace, or the csa-deploy that made it",
            )
        try:
            return Manifest.from_json(data)
        except UsageError as error:
            raise self._unreadable(error.message) from None

    def _unreadable(self, why: str) -> UsageError:
        path = self.root / MANIFEST
        return UsageError(f"{path}: not a readable manifest ({why})", fix=f"delete {self.root} and run again")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the workspace against other processes; clears what a killed run left behind.

        Raises:
            UsageError: another csa-deploy works in this workspace.
        """
        from filelock import FileLock, Timeout

        try:
            made = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / _LOCK, timeout=0)
            lock.acquire()
        except Timeout:
            raise UsageError(
                f"{self.root}: another csa-deploy is at work in this workspace", fix="wait for it, or use --workspace"
            ) from None
        except (OSError, NotImplementedError) as error:
            raise EnvironmentLacksError(
                f"{self.root}: cannot be written ({error})", fix="use --workspace with a writable directory"
            ) from None
        try:
            self.reload()
            shutil.rmtree(self.root / SCRATCH, ignore_errors=True)
            for leftover in self.root.rglob(".*.tmp"):
                leftover.unlink(missing_ok=True)
            yield
        finally:
            shutil.rmtree(self.root / SCRATCH, ignore_errors=True)
            if made and [path.name for path in self.root.iterdir()] == [_LOCK]:
                _remove(self.root / _LOCK, made)
            lock.release()

    @contextmanager
    def scratch(self, stage: str) -> Iterator[Path]:
        """An empty directory for the files of a stage in the making."""
        path = self.root / SCRATCH / stage
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        yield path
        shutil.rmtree(path, ignore_errors=True)

    def read(self, kind: type[R]) -> R:
        """The stored result of a stage, by the class of its record.

        Raises:
            UsageError: it is not there or damaged.
        """
        return kind.from_json(self.record(kind.stage))

    def find(self, kind: type[R]) -> R | None:
        """The same; None where the stage did not run."""
        return self.read(kind) if kind.stage in self.stages else None

    def summary(self, name: str) -> str:
        """The result of a stage in one line."""
        return str(self.record(name)["summary"])

    def record(self, name: str) -> dict[str, Any]:
        """The same as plain data, by the name of the stage."""
        return self._json(f"records/{name}.json")

    def measured(self, name: str) -> dict[str, Any]:
        """The stored measurements of a stage."""
        return self._json(f"measurements/{name}.json")

    def _json(self, relative: str) -> dict[str, Any]:
        path = self.root / relative
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: cannot be read ({error})", fix="run the stage again") from None

    def hash_of(self, relative: str) -> str:
        """SHA-256 that the manifest states for an artifact."""
        for entry in self.stages.values():
            if relative in entry.artifacts:
                return entry.artifacts[relative].sha256
        raise KeyError(relative)

    def is_current(self, name: str, key: str) -> bool:
        """Whether the stage was done with this key and all of its files are still what they were."""
        entry = self.stages.get(name)
        if entry is None or entry.key != key or not entry.passed or not entry.outcome:
            return False
        if not all((self.root / path).is_file() for path in entry.unhashed):
            return False
        return all(
            (self.root / path).is_file() and sha256_of(self.root / path) == stated.sha256
            for path, stated in entry.artifacts.items()
        )

    def commit(self, name: str, key: str, output: StageOutput, compared: Callable[[], str] = str) -> bool:
        """Move a stage's files into place, then state them in the manifest.

        Args:
            key: what decides what it writes.
            compared: tells, once the record is there, what decides no more than its measurements.

        Returns:
            Whether what later stages rest on is another than before.
        """
        previous = self.stages.get(name)
        artifacts = {**output.artifacts, **_weights_beside(output.artifacts)}
        if previous:  # files that this run does not make any more
            for relative in {*previous.artifacts, *previous.unhashed} - {*artifacts, *output.unhashed}:
                (self.root / relative).unlink(missing_ok=True)
        record, measured = f"records/{name}.json", f"measurements/{name}.json"
        for relative, source in {**artifacts, **output.unhashed}.items():
            target = self.root / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        write_atomic(self.root / record, dump_json(output.stated))
        write_atomic(self.root / measured, dump_json(output.measured))
        stated = {relative: self._artifact(relative) for relative in [*artifacts, record]}
        outcome, unhashed = _outcome(stated, record, output), tuple(sorted([*output.unhashed, measured]))
        entry = StageEntry(key, output.failure is None, stated, unhashed, outcome=outcome)
        self.stages[name] = entry
        self.stages[name] = replace(entry, compared=compared())
        self.save()
        return previous is None or previous.outcome != outcome

    def amend(self, name: str, output: StageOutput, compared: str) -> None:
        """Replace a stage's record by one with other measurements; its artifacts stay."""
        record, entry = f"records/{name}.json", self.stages[name]
        write_atomic(self.root / record, dump_json(output.stated))
        artifacts = {**entry.artifacts, record: self._artifact(record)}
        self.stages[name] = replace(entry, artifacts=artifacts, compared=compared, passed=output.failure is None)
        self.save()

    def _artifact(self, relative: str) -> Artifact:
        path = self.root / relative
        return Artifact(sha256_of(path), path.stat().st_size)

    def forget(self, names: Iterable[str]) -> None:
        """Take stages out of the manifest: their inputs changed. Their files stay until they are made again."""
        known = [name for name in names if name in self.stages]
        for name in known:
            del self.stages[name]
        if known:
            self.save()

    def save(self) -> None:
        """Write the manifest."""
        write_atomic(self.root / MANIFEST, dump_json(Manifest(self.config, self.stages).to_json()))


def _outcome(artifacts: Mapping[str, Artifact], record: str, output: StageOutput) -> str:
    """Hash of what later stages rest on: the files, and the record without its words and measurements."""
    stated = {key: value for key, value in output.stated.items() if key not in ("summary", *output.remarks)}
    files = {relative: item.sha256 for relative, item in artifacts.items() if relative != record}
    return key_of({"files": files, "record": json.loads(dump_json(stated))})


def _weights_beside(artifacts: Mapping[str, Path]) -> dict[str, Path]:
    """The weights of graphs that are too large to hold them, which lie in a file of their own (graph/load.py)."""
    graphs = {relative: source for relative, source in artifacts.items() if relative.endswith(".onnx")}
    beside = {f"{relative}.data": source.with_name(f"{source.name}.data") for relative, source in graphs.items()}
    return {relative: source for relative, source in beside.items() if source.is_file()}


def _remove(lock: Path, made: Iterable[Path]) -> None:
    """Leave nothing behind of a run that was refused before it made anything."""
    with suppress(OSError):  # a folder that another process uses by now stays
        lock.unlink()
        for folder in made:
            folder.rmdir()
