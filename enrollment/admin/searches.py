"""The search log in the admin: it can be read and exported, not changed."""

from __future__ import annotations

from django.contrib import admin
from django.template.defaultfilters import floatformat
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from import_export import fields, resources
from import_export.admin import ExportMixin

from enrollment.admin.common import CsvAndJson, FindsPersons, MadeElsewhere
from enrollment.admin.dates import DatedAdmin
from enrollment.admin.states import decision_badge
from enrollment.models import SearchEntry


class SearchEntryResource(resources.ModelResource):
    """A log entry as a row of a CSV or JSON file; the person appears by id."""

    person_id = fields.Field("person__person_id", readonly=True)

    class Meta:
        model = SearchEntry
        fields = ["created_at", "username", "channel", "model", "decision", "person_id"]
        fields += ["similarity", "answers", "request_id"]
        export_order = fields


@admin.register(SearchEntry)
class SearchEntryAdmin(MadeElsewhere, FindsPersons, CsvAndJson, ExportMixin, DatedAdmin):
    resource_classes = [SearchEntryResource]
    list_display = [
        "created_at",
        "result",
        "person_link",
        "shown_similarity",
        "answers",
        "who",
        "channel",
    ]
    list_filter = ["decision", "channel", "model", "created_at"]
    list_select_related = ["person"]
    list_per_page = 50
    search_fields = ["username", "request_id"]
    date_hierarchy = "created_at"
    show_full_result_count = False  # the log may hold millions of rows
    fields = ["created_at", "who", "channel", "model", "result", "person_link", "shown_similarity"]
    fields += ["answers", "request_id"]
    readonly_fields = fields

    class Media:
        css = {"all": ["enrollment/admin.css"]}

    @admin.display(description=_("who"), ordering="username")
    def who(self, entry: SearchEntry) -> str:
        return entry.username or gettext("(no account)")

    @admin.display(description=_("decision"), ordering="decision")
    def result(self, entry: SearchEntry) -> SafeString:
        return decision_badge(entry)

    @admin.display(description=_("nearest person"), ordering="person__person_id")
    def person_link(self, entry: SearchEntry) -> SafeString | str:
        if not entry.person:
            return "-"
        url = reverse("admin:enrollment_person_change", args=[entry.person_id])
        return format_html('<a href="{}">{}</a>', url, entry.person)

    @admin.display(description=_("similarity"), ordering="similarity")
    def shown_similarity(self, entry: SearchEntry) -> str:
        return floatformat(entry.similarity, 3) or "-"
