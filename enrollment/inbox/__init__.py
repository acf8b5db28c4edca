"""The inbox: what needs a person, and what settles it; and searched faces, kept until then."""

from enrollment.inbox.card import Action, Candidate, Card, Filters, Kind
from enrollment.inbox.faces import FacePicture, face_pictures, face_pictures_of
from enrollment.inbox.keeping import (
    SearchedFace,
    answer_of,
    forget_old_faces,
    keep_answer,
    keep_refused,
    keeps,
    probe_of,
    read_face,
    read_record,
)
from enrollment.inbox.sealing import SealBroken, hash_of_face, seal, unseal

__all__ = [
    "Action",
    "Candidate",
    "Card",
    "FacePicture",
    "Filters",
    "Kind",
    "SealBroken",
    "SearchedFace",
    "answer_of",
    "face_pictures",
    "face_pictures_of",
    "forget_old_faces",
    "hash_of_face",
    "keep_answer",
    "keep_refused",
    "keeps",
    "probe_of",
    "read_face",
    "read_record",
    "seal",
    "unseal",
]
