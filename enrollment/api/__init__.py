"""The calls about the gallery; `recognition.api` has those that store nothing."""

from enrollment.api.paths import ENCODED_SLASH

__all__ = ["ENCODED_SLASH"]
