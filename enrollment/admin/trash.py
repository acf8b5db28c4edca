"""The trash in the admin: what can be undone, and the ids of merged persons."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from enrollment import corrections
from enrollment.admin.common import MadeElsewhere
from enrollment.desk import erase_item_with_receipts
from enrollment.models import MergedId, TrashItem
from enrollment.web import Act, may_undo, receipts_response, undo_item
from recognition.api.access import may
from recognition.exceptions import RecognitionError

LIST = "admin:enrollment_trashitem_changelist"


class BrowsedAdmin(MadeElsewhere):
    """A list that whoever may browse the gallery may see."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request, Act.BROWSE)


@admin.register(TrashItem)
class TrashItemAdmin(BrowsedAdmin):
    list_display = ["label_or_kind", "kind", "pictures", "created_at", "erase_at"]
    list_display_links = None
    list_filter = ["kind", "created_at"]
    search_fields = ["label", "parts__person_id"]
    actions = ["undo_selected", "erase_selected"]
    list_per_page = 50

    class Media:
        css = {"all": ["enrollment/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[TrashItem]:
        return corrections.in_trash()

    def get_urls(self) -> list[Any]:
        undo = partial(undo_item, person="admin:enrollment_person_change", trash=LIST)
        view = self.admin_site.admin_view(undo)
        return [path("<int:pk>/undo/", view, name="enrollment_trashitem_undo"), *super().get_urls()]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # `erase_selected` does it

    @admin.display(description=_("whom it is about"), ordering="label")
    def label_or_kind(self, item: TrashItem) -> str:
        return item.about or str(item.get_kind_display())

    @admin.action(description=_("Restore or undo the selected"))
    def undo_selected(self, request: HttpRequest, queryset: QuerySet[TrashItem]) -> None:
        self._do(request, queryset, corrections.undo)

    @admin.action(description=_("Erase the selected for good"))
    def erase_selected(
        self, request: HttpRequest, queryset: QuerySet[TrashItem]
    ) -> HttpResponse | None:
        receipts: list[dict[str, Any]] = []
        self._do(request, queryset, lambda item: receipts.extend(erase_item_with_receipts(item.pk)))
        return receipts_response(request, receipts) if receipts else None

    def _do(self, request: HttpRequest, items: QuerySet[TrashItem], act: Any) -> None:
        done = 0
        for item in items.order_by("-pk"):
            if not may_undo(request, item):
                message = gettext("%(item)s: your account may not do this.") % {"item": item}
                messages.error(request, message)
                continue
            try:
                act(item)
                done += 1
            except RecognitionError as error:
                messages.error(request, f"{item}: {error.message}")
        if done:
            text = ngettext("%(count)d item: done.", "%(count)d items: done.", done)
            messages.success(request, text % {"count": done})


@admin.register(MergedId)
class MergedIdAdmin(BrowsedAdmin):
    """Merged ids; a deleted one stands for nobody any more and can be given again."""

    list_display = ["person_id", "taker", "created_at"]
    list_display_links = None
    list_select_related = ["taker"]
    search_fields = ["person_id", "taker__search_text"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request, Act.DELETE_PERSON)
