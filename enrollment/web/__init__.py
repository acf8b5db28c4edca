"""What the entrances share: how pictures come in and go out, and how their enrolment is told."""

from enrollment.web.picture_fields import PicturesField
from enrollment.web.picture_responses import picture_response
from enrollment.web.reports import enroll_files, say_synced

__all__ = [
    "PicturesField",
    "enroll_files",
    "picture_response",
    "say_synced",
]
