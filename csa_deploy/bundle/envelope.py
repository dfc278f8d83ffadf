"""Signed statements: DSSE envelopes (https://github.com/secure-systems-lab/dsse) by the library securesystemslib."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from csa_deploy.bundle.archive import Archive
from csa_deploy.bundle.attestations import statement_files
from csa_deploy.bundle.model_signature import MODEL_SIGNATURE, ModelSigner, Trusted, signing_certificate
from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.results import dump_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_SUFFIX = ".dsse.json"
_FIX = "pip install csa-deploy[sign]"


def envelope_of(statement: str) -> str:
    """Name of the envelope of a statement."""
    return statement.removesuffix(".json") + _SUFFIX


def sign_statement(statement: bytes, signer: ModelSigner) -> bytes:
    """An envelope with the statement and its signature.

    Raises:
        EnvironmentLacksError: securesystemslib is not installed.
        UsageError: a key that cannot sign.
    """
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib.dsse import Envelope
        from securesystemslib.signer import CryptoSigner, SSlibKey
    except ImportError:
        raise EnvironmentLacksError("signing attestations needs securesystemslib[crypto]", fix=_FIX) from None
    try:
        private: Any = load_pem_private_key(signer.key.read_bytes(), None)
        crypto_signer = CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{signer.key} does not sign: {error}", fix="give an unencrypted PEM key on P-256") from None
    envelope = Envelope(statement, PAYLOAD_TYPE, {})
    envelope.sign(crypto_signer)
    return dump_json(envelope.to_dict()).encode()


def check_envelopes(archive: Archive, trusted: Trusted) -> tuple[str, list[str]]:
    """What the envelopes of a bundle say, in words, and what contradicts its statements.

    The key is the trusted one, or that of the certificate in ``model.sig``, which the caller has checked.
    """
    names = [name for name in statement_files(archive.names) if name.endswith(_SUFFIX)]
    if not names:
        return "not in envelopes", []
    problems = [
        f"{name}: not the statement beside it"
        for name in names
        if _payload(archive.read(name)) != _statement(archive, name)
    ]
    if problems:
        return "contradictory", problems
    key = _key(archive, trusted)
    if key is None:
        return f"{len(names)} envelopes, not checked: no key and no certificate were given that are trusted", []
    try:
        from securesystemslib.dsse import Envelope
        from securesystemslib.exceptions import VerificationError
        from securesystemslib.signer import SSlibKey
    except ImportError:
        return f"{len(names)} envelopes, not checked: pip install csa-deploy[sign]", []
    public = SSlibKey.from_crypto(key)
    for name in names:
        try:
            Envelope.from_dict(json.loads(archive.read(name))).verify([public], 1)
        except (VerificationError, ValueError, KeyError, TypeError):
            return f"{name} is not signed by the key that is trusted", []
    return f"{len(names)} envelopes signed", []


def _statement(archive: Archive, envelope: str) -> bytes | None:
    name = envelope.removesuffix(_SUFFIX) + ".json"
    return archive.read(name) if name in archive.names else None


def _payload(envelope: bytes) -> bytes | None:
    import base64

    try:
        data = json.loads(envelope)
        return base64.b64decode(data["payload"]) if data["payloadType"] == PAYLOAD_TYPE else None
    except (ValueError, KeyError, TypeError):
        return None


def _key(archive: Archive, trusted: Trusted) -> Any:
    """The public key that has to have signed; None where nobody is trusted."""
    if trusted.key is not None:
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        return load_pem_public_key(Path(trusted.key).read_bytes())
    if trusted.certificates and MODEL_SIGNATURE in archive.names:
        certificate = signing_certificate(archive.read(MODEL_SIGNATURE))
        return certificate.public_key() if certificate is not None else None
    return None
