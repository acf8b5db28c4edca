"""The journal in the admin: it can be read, by who, whom, what and day, and never changed."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from enrollment import journal
from enrollment.admin.common import MadeElsewhere
from enrollment.admin.dates import DatedAdmin
from enrollment.gallery import holds_words
from enrollment.models import JournalEntry, Person


@admin.register(JournalEntry)
class JournalEntryAdmin(MadeElsewhere, DatedAdmin):
    list_display = ["at", "sentence", "who", "channel", "address"]
    list_filter = ["action", "kind", "channel", "at"]
    list_per_page = 50
    search_fields = ["who", "via", "address", "request_id"]
    date_hierarchy = "at"
    show_full_result_count = False  # the journal may hold millions of lines
    fields = ["at", "sentence", "action", "who", "kind", "via", "address", "channel"]
    fields += ["request_id", "persons", "told", "chain", "number", "hash"]
    readonly_fields = fields

    class Media:
        css = {"all": ["enrollment/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[JournalEntry]:
        return super().get_queryset(request).prefetch_related("subjects")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[JournalEntry], search_term: str
    ) -> tuple[QuerySet[JournalEntry], bool]:
        found, _may_repeat = super().get_search_results(request, queryset, search_term)
        if not search_term.strip():
            return found, False
        persons = Person.objects.filter(holds_words(search_term, ""))
        about = journal.about(persons.values_list("pk", flat=True))
        return queryset.filter(Q(pk__in=found.values("pk")) | about), False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=_("what happened"))
    def sentence(self, line: JournalEntry) -> str:
        return journal.in_words(line, journal.names_of([line]))

    @admin.display(description=_("people"))
    def persons(self, line: JournalEntry) -> SafeString:
        names = journal.names_of([line])
        return format_html_join(
            SafeString("<br>"),
            "{} {}",
            (
                (_person_link(subject.person_pk, journal.name_of(subject, names), names), role)
                for subject in line.subjects.all()
                for role in [subject.get_role_display()]
            ),
        )

    @admin.display(description=_("facts"))
    def told(self, line: JournalEntry) -> SafeString:
        text = json.dumps(line.facts, indent=1, ensure_ascii=False)
        return format_html('<pre tabindex="0">{}</pre>', text)


def _person_link(pk: int, name: str, enrolled: dict[int, Any]) -> SafeString | str:
    if pk not in enrolled:
        return name
    url = reverse("admin:enrollment_person_change", args=[pk])
    return format_html('<a href="{}">{}</a>', url, name)
