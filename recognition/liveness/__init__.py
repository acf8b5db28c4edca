"""Whether a face stands before the camera."""

from recognition.liveness.check import has_liveness, liveness_of, liveness_problem, load_liveness

__all__ = ["has_liveness", "liveness_of", "liveness_problem", "load_liveness"]
