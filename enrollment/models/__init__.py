"""Database models: people, their pictures, and the embeddings that Milvus holds a copy of.

Migrations import the functions listed last from this package, so they must stay importable here.
"""

from enrollment.models.access_token import AccessToken, digest_of
from enrollment.models.backup_record import BackupRecord
from enrollment.models.consent import (
    DOCUMENT_TYPES,
    DOCUMENTS_FOLDER,
    Consent,
    Purpose,
    document_path,
    today,
    validate_not_future,
)
from enrollment.models.doubt import Doubt
from enrollment.models.embedding import FaceEmbedding
from enrollment.models.erased_id import ErasedId
from enrollment.models.feedback import DistinctPair, Feedback
from enrollment.models.idempotent_request import IdempotentRequest
from enrollment.models.import_job import ImportFile, ImportJob, new_key
from enrollment.models.journal_entry import (
    Action,
    AuthorKind,
    Channel,
    JournalChain,
    JournalEntry,
    JournalSubject,
    journal_actions,
)
from enrollment.models.kept_probe import Probe, ProbeChannel, SearchAnswer, new_number
from enrollment.models.measurement import Calibration, Examination
from enrollment.models.person import (
    NOTES_MAX_LENGTH,
    PERSON_ID_MAX_LENGTH,
    Person,
    PersonIdField,
    compute_again,
    default_keep_until,
    fill_order,
    id_is_merged,
    tidy_rows,
    validate_not_blank,
    validate_not_past,
    validate_person_id,
)
from enrollment.models.picture import PATH_MAX_LENGTH, FaceImage, judge_again, picture_path
from enrollment.models.receipt import Receipt
from enrollment.models.removal import (
    Removal,
    forget_in_history,
    lock_rows,
    note_removals,
    removals_noted,
)
from enrollment.models.search_entry import DECISION_LABELS, SearchEntry
from enrollment.models.texts import folded, letters_and_digits, normalised
from enrollment.models.trash import (
    ExactEncoder,
    MergedId,
    TrashedPart,
    TrashItem,
    as_lines,
    erased_at,
    from_lines,
    new_item,
    whom_of,
)

__all__ = [
    "erased_at",
    "new_item",
    "whom_of",
    "DECISION_LABELS",
    "DOCUMENTS_FOLDER",
    "DOCUMENT_TYPES",
    "NOTES_MAX_LENGTH",
    "PATH_MAX_LENGTH",
    "PERSON_ID_MAX_LENGTH",
    "AccessToken",
    "Action",
    "AuthorKind",
    "BackupRecord",
    "Calibration",
    "Channel",
    "Consent",
    "DistinctPair",
    "Doubt",
    "ErasedId",
    "Examination",
    "ExactEncoder",
    "FaceEmbedding",
    "FaceImage",
    "Feedback",
    "IdempotentRequest",
    "ImportFile",
    "ImportJob",
    "JournalChain",
    "JournalEntry",
    "JournalSubject",
    "MergedId",
    "Person",
    "PersonIdField",
    "Probe",
    "ProbeChannel",
    "Purpose",
    "Receipt",
    "Removal",
    "SearchAnswer",
    "SearchEntry",
    "TrashItem",
    "TrashedPart",
    "as_lines",
    "compute_again",
    "default_keep_until",
    "document_path",
    "today",
    "digest_of",
    "folded",
    "journal_actions",
    "new_key",
    "forget_in_history",
    "from_lines",
    "id_is_merged",
    "letters_and_digits",
    "new_number",
    "normalised",
    "picture_path",
    "tidy_rows",
    "fill_order",
    "judge_again",
    "lock_rows",
    "note_removals",
    "removals_noted",
    "validate_not_blank",
    "validate_not_future",
    "validate_not_past",
    "validate_person_id",
]
