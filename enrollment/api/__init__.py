"""REST endpoints that use the gallery. `recognition.api` has the endpoints that store nothing."""

from enrollment.api.paths import ENCODED_SLASH

__all__ = ["ENCODED_SLASH"]
