"""The key of this installation: it signs receipts, and hashes what was erased.

It lies in `DATA_DIR`, readable by the server's account only, and in no backup: a backup that held it
would tell everybody who guesses an id whether it was erased. A new machine gets a copy of the file.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.conf import settings
from django.utils.translation import gettext

from recognition.exceptions import RecognitionError
from recognition.private_file import private_file

FILE: Final = "installation_key"
NAME_LENGTH: Final = 16  # hexadecimal digits


class KeyRefused(RecognitionError):
    """A key file is damaged, or of another kind."""

    code = "key_refused"
    status = 503


class InstallationKey:
    """An Ed25519 key pair. `name` tells keys apart and reveals nothing of them."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self._secret = hashlib.sha256(b"erased ids" + private.private_bytes_raw()).digest()
        self.name = name_of(private.public_key())

    @property
    def public_pem(self) -> str:
        """The public half as PEM, which verifies signatures and can be given to anybody."""
        return (
            self._private.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode()
        )

    def sign(self, content: bytes) -> bytes:
        """Return the signature (64 bytes), which is the same each time."""
        return self._private.sign(content)

    def digest_of(self, text: str) -> str:
        """Return the keyed hash (HMAC-SHA-256, hexadecimal) of a text."""
        return hmac.new(self._secret, text.encode(), "sha256").hexdigest()


def name_of(public: Ed25519PublicKey) -> str:
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:NAME_LENGTH]


def installation_key() -> InstallationKey:
    """Return this installation's key, made at the first use. Raise `KeyRefused` for a bad file."""
    return _read(settings.DATA_DIR / FILE)


@lru_cache(maxsize=4)
def _parsed(pem: str) -> InstallationKey:
    private = serialization.load_pem_private_key(pem.encode(), None)
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return InstallationKey(private)


def _read(path: Path) -> InstallationKey:
    try:
        return _parsed(private_file(path, _fresh))
    except OSError as error:
        message = gettext(
            "The file %(file)s in DATA_DIR cannot be read or made: %(reason)s. Have the administrator "
            "check the free space and the rights of DATA_DIR."
        )
        raise KeyRefused(message % {"file": FILE, "reason": error.strerror}) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        message = gettext(
            "The file %(file)s in DATA_DIR is no Ed25519 private key in PEM. Bring the right one "
            "back; without it a new one is made, and older receipts need the old public key."
        )
        raise KeyRefused(message % {"file": FILE}) from error


def _fresh() -> str:
    return (
        Ed25519PrivateKey.generate()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


def public_key(pem: str) -> Ed25519PublicKey:
    """Return the public key in the PEM text. Raise `KeyRefused`."""
    try:
        found = serialization.load_pem_public_key(pem.encode())
        if isinstance(found, Ed25519PublicKey):
            return found
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise KeyRefused(
        gettext(
            "This is no Ed25519 public key in PEM. 'manage.py receipt --public-key' writes the right one."
        )
    )


def is_signed(content: bytes, signature: bytes, by: Ed25519PublicKey) -> bool:
    """Return whether the key made the signature of the content."""
    try:
        by.verify(signature, content)
    except InvalidSignature:
        return False
    return True
