"""Signs and checks with ``ssh-keygen -Y``: keys that people have, and no cryptography of our own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from csa_deploy.errors import EnvironmentLacksError, UsageError

NAMESPACE = "csa-deploy-bundle"
SIGNATURE = "SHA256SUMS.sig"
State = Literal["unsigned", "valid", "unknown signer", "tampered", "not checked"]


@dataclass(frozen=True)
class Signature:
    """What a signature says.

    Attributes:
        state: ``"valid"`` by a signer that is allowed; ``"unknown signer"``: it fits the content, by a key that nobody
            allowed; ``"tampered"``: it does not fit the content; ``"not checked"``: no ssh-keygen here.
        who: the signer, or the key's fingerprint, or the reason.
        signer: of a valid one, whose it is, as the file of allowed signers names him.
    """

    state: State
    who: str = ""
    signer: str = ""


def sign(content: bytes, key: Path) -> bytes:
    """A detached signature.

    Args:
        key: private SSH key, or its public half when ssh-agent holds it.

    Raises:
        EnvironmentLacksError: no ssh-keygen.
        UsageError: a key that cannot sign.
    """
    if not key.is_file():
        raise UsageError(f"no such key: {key}", fix="make one with `ssh-keygen -t ed25519`")
    with tempfile.TemporaryDirectory(prefix="csa-sign-") as folder:
        file = Path(folder) / "content"
        file.write_bytes(content)
        done = _keygen("sign", "-f", str(key), "-n", NAMESPACE, str(file))
        if done.returncode:
            raise UsageError(f"{key} does not sign: {_line(done)}", fix="give a private key, or load it into ssh-agent")
        return file.with_name("content.sig").read_bytes()


def check(content: bytes, signature: bytes | None, allowed: Path | None) -> Signature:
    """Hold a signature against content.

    Args:
        signature: the detached signature; None when there is none.
        allowed: file of allowed signers (``man ssh-keygen``, ALLOWED SIGNERS); None allows nobody by name.

    Raises:
        UsageError: the file of allowed signers is missing.
    """
    if signature is None:
        return Signature("unsigned")
    if allowed is not None and not allowed.is_file():
        raise UsageError(f"no such file of allowed signers: {allowed}", fix="lines such as `name ssh-ed25519 AAAA...`")
    if shutil.which("ssh-keygen") is None:
        return Signature("not checked", "no ssh-keygen on this machine")
    with tempfile.TemporaryDirectory(prefix="csa-sign-") as folder:
        file = Path(folder) / "signature"
        file.write_bytes(signature)
        sealed = _keygen("check-novalidate", "-n", NAMESPACE, "-s", str(file), content=content)
        if sealed.returncode:
            return Signature("tampered", _line(sealed))
        fingerprint = _line(sealed).rpartition(" key ")[2]
        if allowed is None:
            return Signature("unknown signer", f"{fingerprint}; no file of allowed signers was given")
        found = _keygen("find-principals", "-s", str(file), "-f", str(allowed))
        for principal in found.stdout.decode(errors="replace").split("\n") if found.returncode == 0 else []:
            arguments = ("-f", str(allowed), "-I", principal, "-n", NAMESPACE, "-s", str(file))
            if principal and _keygen("verify", *arguments, content=content).returncode == 0:
                return Signature("valid", f"{principal} ({fingerprint})", principal)
        return Signature("unknown signer", f"{fingerprint}; not among the allowed signers")


def _keygen(action: str, *arguments: str, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise EnvironmentLacksError("no ssh-keygen on this machine", fix="install an OpenSSH client")
    return subprocess.run([program, "-Y", action, *arguments], input=content, capture_output=True, check=False)


def _line(done: subprocess.CompletedProcess[bytes]) -> str:
    text = (done.stdout + done.stderr).decode(errors="replace").strip()
    return text.splitlines()[0] if text else f"status {done.returncode}"
