"""What the entrances share: how pictures come in and go out, and how their enrolment is reported."""

from enrollment.web.picture_fields import PicturesField
from enrollment.web.picture_responses import picture_response
from enrollment.web.reports import enroll_files, say_mistakable, say_synced
from enrollment.web.spreadsheets import escaped, unescaped

__all__ = [
    "PicturesField",
    "enroll_files",
    "escaped",
    "picture_response",
    "say_mistakable",
    "say_synced",
    "unescaped",
]
