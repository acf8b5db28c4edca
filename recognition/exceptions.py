"""Errors of recognition.

Each class has a machine-readable `code` and the HTTP status for a client. The message is written
for that client: what was given, what was expected, what to do next. It never contains a server
path, a traceback or a vector.
"""

from __future__ import annotations

from typing import ClassVar


class RecognitionError(Exception):
    """The base class of all expected errors. `str(error)` can be shown to a user.

    `for_programs` is a further sentence, for clients of the API: what only they can send.
    """

    code: ClassVar[str] = "recognition_error"
    status: ClassVar[int] = 500

    def __init__(self, message: object = "", *, for_programs: str = "") -> None:
        super().__init__(message)
        self.for_programs = for_programs

    @property
    def message(self) -> str:
        return str(self)

    @property
    def api_message(self) -> str:
        """The message as the API answers it."""
        return f"{self} {self.for_programs}" if self.for_programs else str(self)


class InvalidImage(RecognitionError):
    """The bytes are not a readable picture: wrong type, damaged, too small, or too many pixels."""

    code = "invalid_image"
    status = 400


class UnknownModel(RecognitionError):
    """No model with this name is registered."""

    code = "unknown_model"
    status = 400


class NoFaceDetected(RecognitionError):
    """A face was required and the detector found none."""

    code = "no_face_detected"
    status = 422


class SeveralFaces(RecognitionError):
    """There are several faces, one was expected, and the request does not choose one."""

    code = "several_faces"
    status = 422


class NoSuchFace(RecognitionError):
    """The picture has no face with this index."""

    code = "no_such_face"
    status = 422


class WeightsUnavailable(RecognitionError):
    """The weights file of a model is missing, damaged, or belongs to another network."""

    code = "weights_unavailable"
    status = 503


class DetectorUnavailable(RecognitionError):
    """The configured face detector is not installed, or its weights cannot be loaded."""

    code = "detector_unavailable"
    status = 503


class LivenessUnavailable(RecognitionError):
    """The liveness check was asked for, and its networks are missing or cannot be loaded."""

    code = "liveness_unavailable"
    status = 503


class Overloaded(RecognitionError):
    """More faces than `MAX_WAITING_FACES` wait for the network; `retry_after` is in seconds."""

    code = "overloaded"
    status = 503

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OutOfDeviceMemory(RecognitionError):
    """The accelerator has too little memory for the batch."""

    code = "out_of_device_memory"
    status = 503


class VectorStoreUnavailable(RecognitionError):
    """Milvus cannot be reached, or it returned an error."""

    code = "vector_store_unavailable"
    status = 503


class VectorStoreLocked(VectorStoreUnavailable):
    """The embedded database is open in another process."""

    code = "vector_store_locked"
