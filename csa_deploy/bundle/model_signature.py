"""Signs and checks a bundle's files the way of OpenSSF model signing, by the library model-signing: offline, with a key
or with a certificate, beside the ssh signature.

``model.sig`` is over every file of the bundle but itself and the ssh signature, so model-signing's own command proves
an unpacked bundle as well. An ECDSA signature is another one each time.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csa_deploy.bundle.archive import Archive
from csa_deploy.bundle.signature import SIGNATURE, Signature
from csa_deploy.errors import EnvironmentLacksError, UsageError

MODEL_SIGNATURE = "model.sig"
_FIX = "pip install csa-deploy[sign]"


@dataclass(frozen=True)
class ModelSigner:
    """Who signs.

    Attributes:
        key: PEM file of a private key on the curve P-256, P-384 or P-521, without a password.
        certificate: PEM file of the key's certificate; None signs with the key alone.
        chain: PEM files of the certificates between that and the root.
    """

    key: Path
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Trusted:
    """Whom a user trusts: the public key (PEM), or the certificates that a signer's has to lead to."""

    key: Path | None = None
    certificates: tuple[Path, ...] = ()


def sign_model(files: Mapping[str, bytes | Path], signer: ModelSigner) -> bytes:
    """The content of ``model.sig``.

    Raises:
        EnvironmentLacksError: model-signing is not installed.
        UsageError: a key or certificate that cannot sign.
    """
    signing = _library("signing")
    _require(signer.key, signer.certificate, *signer.chain)
    config = signing.Config()
    try:
        if signer.certificate is None:
            config.use_elliptic_key_signer(private_key=signer.key)
        else:
            config.use_certificate_signer(
                private_key=signer.key,
                signing_certificate=signer.certificate,
                certificate_chain=signer.chain or (signer.certificate,),  # the library cannot read none
            )
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{signer.key} does not sign: {_line(error)}",
            fix="give an unencrypted PEM key on P-256, P-384 or P-521, and its own certificate",
        ) from None
    with tempfile.TemporaryDirectory(prefix="csa-sign-") as folder:
        root, signature = Path(folder) / "bundle", Path(folder) / MODEL_SIGNATURE
        for name, content in files.items():
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                shutil.copyfile(content, target)
        hashing = _library("hashing").Config()
        hashing.set_ignored_paths(paths=[MODEL_SIGNATURE, SIGNATURE], ignore_git_paths=False)
        config.set_hashing_config(hashing).sign(root, signature)
        return signature.read_bytes()


def check_model(archive: Archive, trusted: Trusted) -> Signature:
    """What ``model.sig`` of a bundle says; of a certificate also whose it is.

    Raises:
        UsageError: a file of what is trusted is missing or no PEM.
    """
    if MODEL_SIGNATURE not in archive.names:
        return Signature("unsigned")
    if trusted.key is None and not trusted.certificates:
        return Signature("unknown signer", "no key and no certificate were given that are trusted")
    _require(trusted.key, *trusted.certificates)
    try:
        config = _library("verifying").Config()
    except EnvironmentLacksError as error:
        return Signature("not checked", str(error))
    try:
        if trusted.key is not None:
            config.use_elliptic_key_verifier(public_key=trusted.key)
        else:
            config.use_certificate_verifier(certificate_chain=trusted.certificates)
    except (ValueError, AttributeError) as error:
        raise UsageError(f"what is trusted cannot be read: {_line(error)}", fix="give PEM files") from None
    content = archive.read(MODEL_SIGNATURE)
    try:
        by_certificate = signing_certificate(content) is not None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        return Signature("tampered", f"{MODEL_SIGNATURE} is not readable: {_line(error)}")
    if by_certificate == (trusted.key is not None):
        how = ("a key", "a certificate")
        return Signature("unknown signer", f"{how[by_certificate]} signed, and {how[not by_certificate]} is trusted")
    with tempfile.TemporaryDirectory(prefix="csa-check-") as folder:
        root = Path(folder) / "bundle"
        archive.unpack(root)
        try:
            config.verify(root, root / MODEL_SIGNATURE)
        except Exception as error:  # the library raises what its parts raise: an attacker's file may meet any of them
            mismatch = "Signature mismatch" in str(error)
            return Signature("tampered" if mismatch else "unknown signer", _line(error))
    who = _subject(content) if trusted.key is None else f"the key {trusted.key.name}"
    return Signature("valid", who, who if trusted.key is None else "")


def signing_certificate(content: bytes) -> Any:
    """The certificate in ``model.sig``; None where a key signed."""
    from cryptography import x509

    chain = json.loads(content)["verificationMaterial"].get("x509CertificateChain")
    return x509.load_der_x509_certificate(base64.b64decode(chain["certificates"][0]["rawBytes"])) if chain else None


def _subject(content: bytes) -> str:
    return str(signing_certificate(content).subject.rfc4514_string())


def _library(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"model_signing.{module}")
    except ImportError as error:
        raise EnvironmentLacksError(
            f"model signing needs the package model-signing ({_line(error)})", fix=_FIX
        ) from None


def _require(*files: Path | None) -> None:
    for file in files:
        if file is not None and not file.is_file():
            raise UsageError(f"no such key or certificate: {file}", fix="give a PEM file")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
