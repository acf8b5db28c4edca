"""Purposes, backups on record and receipts in the admin."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.timezone import now
from django.utils.translation import gettext_lazy as _

from enrollment.admin.common import TICKED, MadeElsewhere
from enrollment.backups import state_of
from enrollment.models import BackupRecord, Purpose, Receipt


@admin.register(Purpose)
class PurposeAdmin(admin.ModelAdmin):
    list_display = ["name"]
    formfield_overrides: ClassVar = TICKED
    search_fields = ["name"]
    actions = None

    def has_delete_permission(self, request: HttpRequest, obj: Purpose | None = None) -> bool:
        """A purpose that is in use stays: without it, a token or group would find everybody."""
        allowed = super().has_delete_permission(request, obj)
        return allowed and (obj is None or not obj.is_in_use)


class _Kept(admin.ModelAdmin):
    """Rows that are read, not made or deleted, here."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(BackupRecord)
class BackupRecordAdmin(_Kept):
    list_display = ["pk", "made_at", "persons", "pictures", "keep_until", "state", "file"]
    list_display_links = ["pk", "made_at"]
    list_filter = ["made_at", "deleted_at"]
    fields = ["made_at", "file", "size", "persons", "pictures", "keep_until", "deleted_at"]
    readonly_fields = ["made_at", "file", "size", "persons", "pictures", "deleted_at"]
    actions = ["note_deleted"]

    @admin.display(description=_("state"))
    def state(self, record: BackupRecord) -> Any:
        return state_of(record).value

    @admin.action(description=_("These are deleted: note it"), permissions=["change"])
    def note_deleted(self, request: HttpRequest, queryset: QuerySet[BackupRecord]) -> None:
        queryset.filter(deleted_at=None).update(deleted_at=now())


@admin.register(Receipt)
class ReceiptAdmin(_Kept, MadeElsewhere):
    list_display = ["pk", "made_at"]
    fields = ["made_at", "content"]
    readonly_fields = fields
