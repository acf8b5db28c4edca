"""The Django admin of the gallery."""

from enrollment.admin.accounts import AccountAdmin, RoleAdmin
from enrollment.admin.desk import BackupRecordAdmin, PurposeAdmin, ReceiptAdmin
from enrollment.admin.journal import JournalEntryAdmin
from enrollment.admin.persons import PersonAdmin
from enrollment.admin.pictures import FaceImageAdmin
from enrollment.admin.searches import SearchEntryAdmin
from enrollment.admin.tokens import AccessTokenAdmin, OldTokenAdmin
from enrollment.admin.trash import MergedIdAdmin, TrashItemAdmin

__all__ = [
    "AccessTokenAdmin",
    "AccountAdmin",
    "BackupRecordAdmin",
    "FaceImageAdmin",
    "JournalEntryAdmin",
    "MergedIdAdmin",
    "OldTokenAdmin",
    "PersonAdmin",
    "PurposeAdmin",
    "ReceiptAdmin",
    "RoleAdmin",
    "SearchEntryAdmin",
    "TrashItemAdmin",
]
