"""What to deploy: a registered network, ``file.py:factory``, ``package.module:factory``, or an ``.onnx`` file."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from csa_deploy import registry
from csa_deploy.errors import UsageError
from csa_deploy.installing import require_torch
from csa_deploy.naming import did_you_mean, unused
from csa_deploy.network import NetworkEntry, Sample
from csa_deploy.workspace import sha256_of

if TYPE_CHECKING:
    from csa_deploy.instance import Network

Kind = Literal["registry", "file", "module", "onnx"]

WEIGHT_SUFFIXES = (".bin", ".ckpt", ".npy", ".npz", ".pt", ".pth", ".safetensors")
_FORMS = "a registered name (see csa-deploy models), file.py:factory, package.module:factory or file.onnx"


@dataclass(frozen=True)
class Source:
    """A network that was named and found, but not yet made.

    Attributes:
        kind: which of the four forms.
        name: directory and file stem for its artifacts.
        entry: of a registered network, else None.
        path: the ``.py`` or ``.onnx`` file, else None.
        factory: name of the factory in its file or module, else None.
        module: full name of the Python module of a registered or module source, else None.
        input_size: (height, width) asked for, else None.
        checkpoint: file with the weights asked for, else None.
    """

    kind: Kind
    spec: str
    name: str
    entry: NetworkEntry | None = None
    path: Path | None = None
    factory: str | None = None
    module: str | None = None
    input_size: tuple[int, int] | None = None
    checkpoint: Path | None = None

    def fingerprint(self) -> str:
        """SHA-256 (hex) over what determines the network.

        That is the ONNX file and its external data; or the code and weight files beside a ``.py`` file (not in
        sub-folders), or of the factory's whole top-level package. In any case the input size, the checkpoint's bytes
        and a registered network's preprocessing. Code of other packages and files elsewhere are not seen.
        """
        preprocessing = self.entry.preprocessing.to_json() if self.entry else None
        digest = hashlib.sha256(json.dumps([self.kind, self.factory, self.input_size, preprocessing]).encode())
        for label, path in self.files():
            digest.update(f"{label}\0{_sha256(path)}\0".encode())
        return digest.hexdigest()

    def make_network(
        self,
        *,
        input_size: tuple[int, int] | None = None,
        batch: int | None = None,
        checkpoint: Path | None = None,
        checkpoint_key: str | None = None,
        sample: Sample | None = None,
    ) -> Network:
        """Make the network; see :func:`csa_deploy.instance.make_network`. Not for ONNX files.

        Raises:
            UsageError: the code cannot be imported, the factory fails, or the checkpoint does not fit.
            EnvironmentLacksError: PyTorch is not installed.
        """
        from csa_deploy.instance import make_network

        with self.opened() as (factory, declared):
            return make_network(
                factory,
                self.spec,
                declared=declared,
                input_size=input_size or self.input_size,
                batch=batch,
                checkpoint=checkpoint or self.checkpoint,
                checkpoint_key=checkpoint_key,
                sample=sample,
            )

    def require_factory(self) -> None:
        """Raise where PyTorch or the factory is not there; code is run only where reading it does not tell."""
        if self.kind != "onnx":
            require_torch(self.spec)
        if self.factory is None:
            return
        found = importlib.util.find_spec(self.module) if self.module else None
        path = self.path or (Path(found.origin) if found and found.origin else None)
        if path is None or self.factory not in _top_level_names(path):
            with self.opened():
                pass

    @contextmanager
    def opened(self) -> Iterator[tuple[Any, Any]]:
        """The factory and the preprocessing declared beside it, while what lies beside its code can be imported.

        Raises:
            UsageError: the code cannot be imported, or has no such factory.
            EnvironmentLacksError: PyTorch is not installed.
        """
        if self.kind != "onnx":
            require_torch(self.spec)
        with _importable(self.path.parent if self.path else Path.cwd()):
            if self.entry is not None:
                yield self.entry, None
                return
            namespace = self._import()
            yield _attribute(namespace, self.factory or "", self.spec), _declared(namespace)

    def _import(self) -> ModuleType:
        try:
            if self.module:
                return importlib.import_module(self.module)
            if self.kind == "file" and self.path:
                return _execute(self.path)
        except (Exception, SystemExit) as error:  # other people's code
            reason = str(error).strip().split("\n")[0]
            raise UsageError(f"{self.spec}: importing it fails: {type(error).__name__}: {reason}") from error
        raise UsageError(f"{self.spec}: an ONNX file has no PyTorch module", fix="name the network that it came from")

    def untrained(self, checkpoint: str | None) -> str:
        """Why the weights are not known to be trained, in words; empty where they are, or where a file holds them."""
        if checkpoint or self.kind == "onnx" or (self.entry and self.entry.pretrained):
            return ""
        told = self.entry.weights if self.entry else "unless the factory loads its own"
        return f"no checkpoint: random weights ({told})"

    def files(self) -> Iterator[tuple[str, Path]]:
        """The files that determine the network, each with a label that holds on every machine."""
        if self.checkpoint is not None:
            yield "checkpoint", self.checkpoint
        if self.kind == "onnx":
            assert self.path is not None
            yield from _onnx_files(self.path)
        elif self.path is not None:
            yield from _relevant(self.path.parent, self.path.parent.iterdir())
        else:
            assert self.module is not None
            with _importable(Path.cwd()):
                yield from _package_files(self.module)


def load_source(
    spec: str, *, input_size: tuple[int, int] | None = None, checkpoint: str | Path | None = None
) -> Source:
    """Find what ``spec`` names, without making the network and without importing torch.

    An existing ``.onnx`` file goes first, then ``...:factory``, then the registry.

    Raises:
        UsageError: nothing there, or not one of the four forms.
    """
    weights = Path(checkpoint) if checkpoint is not None else None
    if weights is not None and not weights.is_file():
        raise UsageError(f"{weights}: no such checkpoint file")
    path, (left, colon, factory) = Path(spec), spec.rpartition(":")
    name = slug_of(spec)
    if path.suffix == ".onnx":
        return Source("onnx", spec, name, path=_existing(path), input_size=input_size, checkpoint=weights)
    if colon and factory.isidentifier():
        if left.endswith(".py"):
            file = _existing(Path(left))
            return Source("file", spec, name, None, file, factory, None, input_size, weights)
        if all(part.isidentifier() for part in left.split(".")):
            return Source("module", spec, name, None, None, factory, _found(left, spec), input_size, weights)
    if spec not in registry.names():
        raise _unknown(spec, path)
    entry = registry.get(spec)
    return Source("registry", spec, name, entry, None, None, registry.module_of(spec), input_size, weights)


def slug_of(spec: str) -> str:
    """Directory name for a network's artifacts: ``nets/small.py:tiny`` becomes ``small-tiny``."""
    left, colon, factory = spec.rpartition(":")
    if colon:
        stem = Path(left).stem if left.endswith(".py") else left.rpartition(".")[2]
        stem = f"{stem}-{factory}"
    else:
        stem = Path(spec).stem if spec.endswith(".onnx") else spec
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip(".-") or "network"


def slugs_of(labels: Iterable[str]) -> dict[str, str]:
    """By label a file name of its own: ``a b`` and ``a-b`` have the same slug, and the second becomes ``a-b-2``."""
    found: dict[str, str] = {}
    for label in labels:
        found[label] = unused(slug_of(label), found.values(), "-")
    return found


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}", fix="check the file's permissions") from error


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    if path.exists():
        raise UsageError(f"{path}: is a folder, not a file", fix=f"name {_FORMS}")
    beside = [p.name for p in path.parent.glob(f"*{path.suffix}")] if path.parent.is_dir() else []
    raise UsageError(f"{path}: no such file", fix=did_you_mean(path.name, beside) or None)


def _found(module: str, spec: str) -> str:
    with _importable(Path.cwd()):
        try:
            found = importlib.util.find_spec(module)
        except (Exception, SystemExit) as error:  # finding a sub-module imports its parents
            raise UsageError(f"{spec}: importing it fails: {type(error).__name__}: {error}") from error
    if found is None:
        raise UsageError(f"{spec}: no Python module is named {module}", fix="install its package, or name a file.py")
    return module


def _unknown(spec: str, path: Path) -> UsageError:
    if spec.endswith(".py"):
        return UsageError(f"{spec}: which factory in this file?", fix=f"write {spec}:NAME_OF_THE_FUNCTION")
    if not spec:
        return UsageError("no network is named", fix=f"name {_FORMS}")
    if path.is_dir():
        return UsageError(f"{spec}: is a folder", fix=f"name {_FORMS}")
    if path.is_file():
        return UsageError(f"{spec}: a network cannot be read from a file of this kind", fix=f"name {_FORMS}")
    return UsageError(f"{spec}: no such network", fix=did_you_mean(spec, registry.names(), f"name {_FORMS}", most=3))


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let code import its neighbours, as Python does for a script."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _execute(path: Path) -> ModuleType:
    name = f"csa_deploy_source_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up there
    spec.loader.exec_module(module)
    return module


def _top_level_names(path: Path) -> set[str]:
    """Names that a file surely defines: functions, classes and plain assignments; none of one that is no Python."""
    try:
        statements = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return set()
    names = {s.name for s in statements if isinstance(s, (ast.FunctionDef, ast.ClassDef))}
    assigned = (target for s in statements if isinstance(s, ast.Assign) for target in s.targets)
    return names | {target.id for target in assigned if isinstance(target, ast.Name)}


def _attribute(module: ModuleType, name: str, spec: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    offered = [n for n, value in vars(module).items() if _makes_networks(value, module) and not n.startswith("_")]
    defined = f"defined there: {', '.join(offered[:12]) or 'no factory'}"
    raise UsageError(f"{spec}: there is no '{name}'", fix=did_you_mean(name, offered, defined))


def _makes_networks(value: object, module: ModuleType) -> bool:
    defined_here = getattr(value, "__module__", None) == module.__name__
    return isinstance(value, NetworkEntry) or (callable(value) and defined_here)


def _declared(module: ModuleType) -> Any:
    return getattr(module, "preprocessing", None)


def _package_files(module: str) -> Iterator[tuple[str, Path]]:
    top = importlib.util.find_spec(module.partition(".")[0])
    folders = [Path(p) for p in (top.submodule_search_locations or ())] if top else []
    if folders:
        for folder in folders:
            yield from _relevant(folder, folder.rglob("*"))
    elif top and top.origin:
        yield Path(top.origin).name, Path(top.origin)


def _relevant(folder: Path, paths: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    for path in sorted(paths):
        if path.suffix in (".py", *WEIGHT_SUFFIXES) and path.is_file():
            yield path.relative_to(folder).as_posix(), path


def _onnx_files(path: Path) -> Iterator[tuple[str, Path]]:
    """The model file and its external data; files that are damaged or elsewhere are left to the reader to refuse."""
    import onnx
    from google.protobuf.message import DecodeError

    from csa_deploy.graph.external import ExternalDataError, external_data, external_file, is_external
    from csa_deploy.graph.facts import all_tensors

    yield "onnx", path
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError:
        return
    files = {}
    for tensor in filter(is_external, all_tensors(model)):
        with suppress(ExternalDataError):
            location = external_data(tensor).location
            files[location] = external_file(location, path.parent)
    yield from sorted(files.items())
