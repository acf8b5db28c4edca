"""Encryption at rest (AES-256-GCM) of what is kept of searched faces, by a key of the installation.

The key lies in `DATA_DIR`, readable by the server's account only, and in no backup. Without it what
was sealed is lost, which is the way to make sure of it.
"""

from __future__ import annotations

import base64
import hashlib
import os
from functools import lru_cache
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.utils.translation import gettext

from enrollment.installation_key import installation_key
from recognition.exceptions import RecognitionError
from recognition.private_file import private_file

FILE: Final = "sealing_key"
_NONCE: Final = 12  # bytes, random and never used twice


class SealBroken(RecognitionError):
    """What is kept was sealed with another key, or is damaged; or the key cannot be read."""

    code = "seal_broken"
    status = 503


def seal(content: bytes) -> bytes:
    """Return the content encrypted, for a column that nobody reads without the key."""
    nonce = os.urandom(_NONCE)
    return nonce + _cipher().encrypt(nonce, content, None)


def unseal(sealed: bytes | memoryview) -> bytes:
    """Return what `seal` was given. Raise `SealBroken`."""
    sealed = bytes(sealed)
    try:
        return _cipher().decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
    except (InvalidTag, ValueError) as error:
        message = gettext(
            "What is kept of a searched face cannot be read: it was encrypted with another key than the "
            "file %(file)s in DATA_DIR. Bring that file back, or discard what is kept."
        )
        raise SealBroken(message % {"file": FILE}) from error


def hash_of_face(pixels: np.ndarray) -> str:
    """Return the keyed hash of an aligned crop (112×112×3 uint8 RGB): the same for the same picture.

    Without the key of the installation nobody can tell which picture it is of.
    """
    return installation_key().digest_of(f"face {hashlib.sha256(pixels.tobytes()).hexdigest()}")


def _cipher() -> AESGCM:
    try:
        return _of(private_file(settings.DATA_DIR / FILE, _fresh))
    except OSError as error:
        message = gettext(
            "The file %(file)s in DATA_DIR cannot be read or made: %(reason)s. Have the administrator "
            "check the free space and the rights of DATA_DIR."
        )
        raise SealBroken(message % {"file": FILE, "reason": error.strerror}) from error
    except ValueError as error:
        message = gettext(
            "The file %(file)s in DATA_DIR is no key. Bring the right one back; "
            "without it a new one is made, and what is kept of searched faces cannot be read."
        )
        raise SealBroken(message % {"file": FILE}) from error


@lru_cache(maxsize=4)
def _of(text: str) -> AESGCM:
    return AESGCM(base64.b64decode(text, validate=True))


def _fresh() -> str:
    return base64.b64encode(AESGCM.generate_key(256)).decode()
