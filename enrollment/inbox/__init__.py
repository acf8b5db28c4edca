"""The inbox: what needs a person, and what settles it; and searched faces, kept until then."""

from enrollment.inbox.assigning import discard_faces, enroll_faces
from enrollment.inbox.card import Action, Candidate, Card, Filters, Kind
from enrollment.inbox.faces import FacePicture, face_pictures, face_pictures_of
from enrollment.inbox.feedback import Verdict, Word, give_feedback, rejections
from enrollment.inbox.keeping import (
    SearchedFace,
    answer_of,
    embeddings_of,
    forget_old_faces,
    keep_answer,
    keep_refused,
    keeps,
    probe_of,
    read_face,
    read_record,
)
from enrollment.inbox.remembering import (
    WITHDRAWN,
    Remembered,
    Said,
    feedback_on,
    remember,
    said_of,
    take_back_feedback,
)
from enrollment.inbox.sealing import SealBroken, hash_of_face, seal, unseal
from enrollment.inbox.sections import MOST_COUNTED, count
from enrollment.inbox.settling import Answer, Settled, settle, settle_each
from enrollment.inbox.showing import card, card_not_found, cards, cards_of, face_of

__all__ = [
    "Action",
    "Answer",
    "Candidate",
    "Card",
    "FacePicture",
    "Filters",
    "Kind",
    "MOST_COUNTED",
    "Remembered",
    "Said",
    "SealBroken",
    "SearchedFace",
    "Settled",
    "Verdict",
    "WITHDRAWN",
    "Word",
    "answer_of",
    "card",
    "card_not_found",
    "cards",
    "cards_of",
    "count",
    "discard_faces",
    "embeddings_of",
    "enroll_faces",
    "face_of",
    "face_pictures",
    "face_pictures_of",
    "feedback_on",
    "forget_old_faces",
    "give_feedback",
    "hash_of_face",
    "keep_answer",
    "keep_refused",
    "keeps",
    "probe_of",
    "read_face",
    "read_record",
    "rejections",
    "remember",
    "said_of",
    "seal",
    "settle",
    "settle_each",
    "take_back_feedback",
    "unseal",
]
