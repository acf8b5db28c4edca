"""Everything that recognition can refuse or fail at, as one family.

Each class carries a machine-readable `code` and the HTTP status a caller outside should see.
The message is written for that caller: what was given, what was expected, what to do next;
never a server path, a traceback or a vector.
"""

from __future__ import annotations

from typing import ClassVar


class RecognitionError(Exception):
    """Base of all announced failures; `str(error)` is fit to be shown to a user."""

    code: ClassVar[str] = "recognition_error"
    status: ClassVar[int] = 500

    @property
    def message(self) -> str:
        return str(self)


class InvalidImage(RecognitionError):
    """The bytes are not a picture that we read: wrong type, damaged, too small, too many pixels."""

    code = "invalid_image"
    status = 400


class ImageTooLarge(RecognitionError):
    """The file is larger than an upload may be."""

    code = "image_too_large"
    status = 413


class UnknownModel(RecognitionError):
    """No model of that name is registered."""

    code = "unknown_model"
    status = 400


class NoFaceDetected(RecognitionError):
    """A face was required and the detector found none."""

    code = "no_face_detected"
    status = 422


class SeveralFaces(RecognitionError):
    """There are several faces where one was expected, and nobody said which is meant."""

    code = "several_faces"
    status = 422


class NoSuchFace(RecognitionError):
    """The face that was named by its number is not in the picture."""

    code = "no_such_face"
    status = 422


class WeightsUnavailable(RecognitionError):
    """The weights file of a model is missing, damaged, or of another network."""

    code = "weights_unavailable"
    status = 503


class DetectorUnavailable(RecognitionError):
    """The chosen detector is not installed, or its weights are not to be had."""

    code = "detector_unavailable"
    status = 503


class OutOfDeviceMemory(RecognitionError):
    """The accelerator has too little memory for the batch."""

    code = "out_of_device_memory"
    status = 503


class VectorStoreUnavailable(RecognitionError):
    """Milvus cannot be reached, or answered with a failure."""

    code = "vector_store_unavailable"
    status = 503


class VectorStoreLocked(VectorStoreUnavailable):
    """The embedded database is open in another process."""

    code = "vector_store_locked"
