"""The admin: where people are enrolled, and where it shows what could not be indexed."""

from enrollment.admin.persons import PersonAdmin
from enrollment.admin.pictures import FaceImageAdmin
from enrollment.admin.searches import SearchEntryAdmin

__all__ = ["FaceImageAdmin", "PersonAdmin", "SearchEntryAdmin"]
