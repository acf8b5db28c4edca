"""Imports of many people: from folders, ZIPs, tables and the web, as jobs that survive a crash."""

from enrollment.imports.batch_enrolment import FileResult, ImportOptions, check_readiness, each_file
from enrollment.imports.downloads import NotFetched, fetch_picture
from enrollment.imports.erasure import forget_in_imports
from enrollment.imports.execution import (
    carry_out_imports,
    drop_claims,
    leave_imports,
    request_imports,
)
from enrollment.imports.faces import small_picture
from enrollment.imports.folder import Follower, begin_folder_import
from enrollment.imports.found_files import FileStatus, FoundFile, find_files
from enrollment.imports.jobs import (
    DECISIONS,
    ImportBusy,
    ImportGone,
    cancel_import,
    counts_of,
    decide,
    find_imports,
    forget_old_jobs,
    get_import,
    pause_import,
    resume_import,
    seconds_left,
    start_import,
    stop_imports_without_files,
)
from enrollment.imports.spreadsheet_cells import escaped, is_shortened, shortened_id, unescaped
from enrollment.imports.staging import details_of, file_of, found_in, stage_import
from enrollment.imports.watched_folder import SETTLED_SECONDS, WatchedFolder

__all__ = [
    "DECISIONS",
    "FileResult",
    "FileStatus",
    "Follower",
    "FoundFile",
    "ImportBusy",
    "ImportGone",
    "ImportOptions",
    "NotFetched",
    "SETTLED_SECONDS",
    "WatchedFolder",
    "begin_folder_import",
    "cancel_import",
    "carry_out_imports",
    "check_readiness",
    "counts_of",
    "decide",
    "details_of",
    "drop_claims",
    "each_file",
    "escaped",
    "fetch_picture",
    "file_of",
    "find_files",
    "find_imports",
    "forget_in_imports",
    "forget_old_jobs",
    "found_in",
    "get_import",
    "is_shortened",
    "leave_imports",
    "pause_import",
    "request_imports",
    "resume_import",
    "seconds_left",
    "shortened_id",
    "small_picture",
    "stage_import",
    "start_import",
    "stop_imports_without_files",
    "unescaped",
]
