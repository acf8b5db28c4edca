"""Errors that the gallery raises, as subclasses of `recognition.exceptions.RecognitionError`."""

from __future__ import annotations

from recognition.exceptions import RecognitionError


class PersonExists(RecognitionError):
    """The person id already belongs to another person."""

    code = "person_exists"
    status = 409


class PersonNotFound(RecognitionError):
    """No enrolled person has this id."""

    code = "person_not_found"
    status = 404


class PersonMerged(PersonNotFound):
    """The id is of a person who was merged. `person_id` is whom it stands for since."""

    code = "person_merged"

    def __init__(self, message: str, person_id: str) -> None:
        super().__init__(message)
        self.person_id = person_id


class NotInTrash(RecognitionError):
    """The trash does not hold this: it never did, or it was restored or erased meanwhile."""

    code = "not_in_trash"
    status = 404


class NotUndoable(RecognitionError):
    """An act cannot be taken back, because what that takes has changed since."""

    code = "not_undoable"
    status = 409


class PictureNotFound(RecognitionError):
    """The person has no picture with this id."""

    code = "picture_not_found"
    status = 404


class LowQuality(RecognitionError):
    """The face is of low quality and `ENROLL_QUALITY=refuse` rejects such pictures."""

    code = "low_quality"
    status = 422


class DoubtfulIdentity(RecognitionError):
    """The picture looks like the wrong person and `ENROLL_IDENTITY=refuse` rejects such pictures."""

    code = "doubtful_identity"
    status = 422


class NotSearchableYet(RecognitionError):
    """The picture is stored, but searches do not find it yet."""

    code = "not_searchable_yet"
    status = 503


class PictureMissing(RecognitionError):
    """The stored file of the picture does not exist."""

    code = "picture_missing"
    status = 404


class StorageUnavailable(RecognitionError):
    """The picture storage failed to read or write a file."""

    code = "storage_unavailable"
    status = 503


class PersonNotComparable(RecognitionError):
    """The person has no vector computed with the current weights."""

    code = "person_not_comparable"
    status = 422


class BackupNotFound(RecognitionError):
    """No backup on record has this number."""

    code = "backup_not_found"
    status = 404


class ReceiptRefused(RecognitionError):
    """A receipt does not exist, or a file is none."""

    code = "receipt_refused"
    status = 404


class UnknownPurpose(RecognitionError):
    """No purpose has this name."""

    code = "unknown_purpose"
    status = 400


class ConsentNotFound(RecognitionError):
    """The person has no such consent."""

    code = "consent_not_found"
    status = 404


class AnswerNotFound(RecognitionError):
    """No kept answer has this number, or not any more."""

    code = "answer_not_found"
    status = 404


class FaceGone(RecognitionError):
    """A searched face is not kept any more."""

    code = "face_gone"
    status = 410


class CardNotFound(RecognitionError):
    """The inbox has no such card, or not any more."""

    code = "card_not_found"
    status = 404


class AlreadySettled(RecognitionError):
    """Somebody was faster."""

    code = "already_settled"
    status = 409


class ActionRefused(RecognitionError):
    """The action does not settle a card of this kind, or lacks whom it is about."""

    code = "action_refused"
    status = 400


class TooManyPersons(RecognitionError):
    """More persons than one act may change."""

    code = "too_many_persons"
    status = 409
