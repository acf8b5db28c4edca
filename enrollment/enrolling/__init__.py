"""All writes to the gallery: enrolment, corrections, imports, and idempotent requests."""

from enrollment.enrolling.choosing import choose_face, faces_in
from enrollment.enrolling.corrections import (
    CHANGEABLE,
    change_person,
    create_person,
    delete_person,
    delete_pictures,
    merge_persons,
    move_pictures,
    move_to_new_person,
    set_cover,
)
from enrollment.enrolling.folder_import import (
    FileResult,
    FileStatus,
    check_readiness,
    find_files,
    import_files,
)
from enrollment.enrolling.idempotency import (
    MAX_KEY_LENGTH,
    begin_request,
    carry_out_request,
    digest_of_request,
    forget_old_requests,
)
from enrollment.enrolling.services import (
    Outcome,
    Upload,
    clean_person_id,
    enroll_pictures,
    sync_again,
)
from enrollment.enrolling.waiting import (
    WaitingPicture,
    count_waiting,
    enroll_chosen,
    keep_waiting,
    leave_out,
    waiting_pictures,
)
from enrollment.enrolling.zip_import import (
    PictureImport,
    carry_out_import,
    discard_import,
    forget_old_imports,
    imports_folder,
    load_import,
    stage_import,
)

__all__ = [
    "CHANGEABLE",
    "FileResult",
    "FileStatus",
    "MAX_KEY_LENGTH",
    "Outcome",
    "PictureImport",
    "Upload",
    "WaitingPicture",
    "begin_request",
    "carry_out_import",
    "carry_out_request",
    "change_person",
    "check_readiness",
    "choose_face",
    "clean_person_id",
    "count_waiting",
    "create_person",
    "delete_person",
    "delete_pictures",
    "digest_of_request",
    "discard_import",
    "enroll_chosen",
    "enroll_pictures",
    "faces_in",
    "find_files",
    "forget_old_imports",
    "forget_old_requests",
    "import_files",
    "imports_folder",
    "keep_waiting",
    "leave_out",
    "load_import",
    "merge_persons",
    "move_pictures",
    "move_to_new_person",
    "set_cover",
    "stage_import",
    "sync_again",
    "waiting_pictures",
]
