"""What the gallery refuses, in the family of `recognition.exceptions`."""

from __future__ import annotations

from recognition.exceptions import RecognitionError


class PersonExists(RecognitionError):
    """The person id is somebody else's."""

    code = "person_exists"
    status = 409


class PersonNotFound(RecognitionError):
    """Nobody has this id, or not any more."""

    code = "person_not_found"
    status = 404


class PictureNotFound(RecognitionError):
    """The person has no such picture, or not any more."""

    code = "picture_not_found"
    status = 404


class LowQuality(RecognitionError):
    """The face is doubtful, and `ENROLL_QUALITY=refuse` admits none that is."""

    code = "low_quality"
    status = 422


class DoubtfulIdentity(RecognitionError):
    """The picture resembles the wrong person, and `ENROLL_IDENTITY=refuse` admits none that does."""

    code = "doubtful_identity"
    status = 422


class NotSearchableYet(RecognitionError):
    """The picture is stored, and a search does not find it yet."""

    code = "not_searchable_yet"
    status = 503


class PictureMissing(RecognitionError):
    """The storage has no file of the picture."""

    code = "picture_missing"
    status = 404


class StorageUnavailable(RecognitionError):
    """The storage of the pictures does not give or take a file."""

    code = "storage_unavailable"
    status = 503


class PersonNotComparable(RecognitionError):
    """The person has no vector of the weights in use."""

    code = "person_not_comparable"
    status = 422
