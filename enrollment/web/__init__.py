"""What the API, the pages and the admin share: form fields, picture responses, reports,
permissions."""

from enrollment.web.audit import audit_report
from enrollment.web.day_input import DayInput
from enrollment.web.downloads import document_response, export_response
from enrollment.web.errors import error_text
from enrollment.web.face_choice import choose_faces
from enrollment.web.imports import (
    import_file,
    import_pictures,
    import_run,
    imports_list,
    may_import,
)
from enrollment.web.kept_faces import keep_search, kept_for
from enrollment.web.permissions import Act, acts_to_settle, acts_to_undo, allowed_actions, owner_of
from enrollment.web.picture_fields import PicturesField
from enrollment.web.picture_responses import picture_response
from enrollment.web.place import Place
from enrollment.web.purposes import searchable_by
from enrollment.web.receipts import receipts_response
from enrollment.web.reports import (
    enroll_files,
    say_dismissed,
    say_mistakable,
    say_synced,
    undecided,
)
from enrollment.web.tokens import TokenAuthentication, accounts_with_old_tokens
from enrollment.web.trash import (
    erase_item,
    may_undo,
    say_done,
    say_in_trash,
    trash_items,
    undo_item,
    with_undo,
)
from enrollment.web.visibility import found_by, is_found, may_see, picture_address

__all__ = [
    "Act",
    "DayInput",
    "PicturesField",
    "Place",
    "TokenAuthentication",
    "accounts_with_old_tokens",
    "acts_to_settle",
    "acts_to_undo",
    "allowed_actions",
    "audit_report",
    "choose_faces",
    "document_response",
    "enroll_files",
    "erase_item",
    "error_text",
    "export_response",
    "found_by",
    "import_file",
    "import_pictures",
    "import_run",
    "imports_list",
    "is_found",
    "keep_search",
    "kept_for",
    "may_import",
    "may_see",
    "may_undo",
    "owner_of",
    "picture_address",
    "picture_response",
    "receipts_response",
    "say_dismissed",
    "say_done",
    "say_in_trash",
    "say_mistakable",
    "say_synced",
    "searchable_by",
    "trash_items",
    "undecided",
    "undo_item",
    "with_undo",
]
