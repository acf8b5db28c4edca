"""The endpoint that lists the journal, for administrators."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from django_filters.rest_framework import CharFilter, ChoiceFilter, FilterSet, IsoDateTimeFilter
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from enrollment import journal
from enrollment.api.pagination import ListQuerySerializer, PageNumbers, PageSerializer
from enrollment.api.persons import PageCall
from enrollment.api.schema import EXAMPLES
from enrollment.models import Action, AuthorKind, Channel, JournalEntry, JournalSubject
from enrollment.web import Act
from recognition.api.answers import InstantField
from recognition.api.schema import answer, errors

_UNKNOWN_ACTION: Final = format_lazy(
    "{} {}.", _("There is no such kind of line. Known ones:"), ", ".join(Action.values)
)


class JournalFilter(FilterSet):
    person_id = CharFilter(
        method="of_lines", max_length=200, help_text=_("Only lines about who has or had this id.")
    )
    who = CharFilter(
        method="of_lines",
        max_length=150,
        help_text=_("Only what this account did, or the token or command of this name."),
    )
    action = ChoiceFilter(
        method="of_lines",
        choices=Action.choices,
        help_text=_("Only this kind of line."),
        error_messages={"invalid_choice": _UNKNOWN_ACTION},
    )
    since = IsoDateTimeFilter(
        method="of_lines",
        help_text=_("Only from this time on, as 2027-01-31T12:00:00Z."),
        error_messages={"invalid": _("This is no time. Write it as 2027-01-31T12:00:00Z.")},
    )

    class Meta:
        model = JournalEntry
        fields: Final = ()

    def of_lines(
        self, lines: QuerySet[JournalEntry], name: str, value: Any
    ) -> QuerySet[JournalEntry]:
        return lines & journal.find_lines(**{name: value})


class JournalPersonSerializer(serializers.ModelSerializer):
    person = serializers.IntegerField(
        source="person_pk", help_text=_("A number that stays when the person is erased.")
    )
    role = serializers.CharField(
        help_text=_("Empty for who was acted on, else `from`, `merged` or `shown`.")
    )
    person_id = serializers.SerializerMethodField(
        help_text=_("As it was; null when the person was erased.")
    )
    name = serializers.SerializerMethodField()
    before = serializers.SerializerMethodField(help_text=_("What was changed, as it was before."))
    after = serializers.SerializerMethodField()

    class Meta:
        model = JournalSubject
        fields = ["person", "role", "person_id", "name", "before", "after"]

    def _of(self, subject: JournalSubject) -> dict[str, Any]:
        return subject.personal or self.context["names"].get(subject.person_pk, {})

    def get_person_id(self, subject: JournalSubject) -> str | None:
        return self._of(subject).get("person_id")

    def get_name(self, subject: JournalSubject) -> str | None:
        return self._of(subject).get("name")

    def get_before(self, subject: JournalSubject) -> dict[str, Any]:
        return (subject.personal or {}).get("before", {})

    def get_after(self, subject: JournalSubject) -> dict[str, Any]:
        return (subject.personal or {}).get("after", {})


class JournalLineSerializer(serializers.ModelSerializer):
    at = InstantField()
    action = serializers.ChoiceField(Action.choices)
    kind = serializers.ChoiceField(AuthorKind.choices, help_text=_("What kind of author `who` is."))
    channel = serializers.ChoiceField(Channel.choices)
    in_words = serializers.SerializerMethodField(help_text=_("The line as a sentence."))
    persons = JournalPersonSerializer(source="subjects", many=True)

    class Meta:
        model = JournalEntry
        fields = ["chain", "number", "at", "action", "in_words", "who", "kind", "via", "address"]
        fields += ["channel", "request_id", "facts", "persons", "hash"]

    def get_in_words(self, line: JournalEntry) -> str:
        return journal.in_words(line, self.context["names"])


class JournalPageSerializer(PageSerializer):
    results = JournalLineSerializer(many=True)

    def to_representation(self, instance: PageNumbers) -> dict[str, Any]:
        context: dict[str, Any] = self.context
        context["names"] = journal.names_of(instance.results)
        return super().to_representation(instance)


class JournalView(PageCall):
    """List what was done and seen, newest first."""

    page_serializer_class = JournalPageSerializer
    queryset = JournalEntry.objects.all()
    filterset_class = JournalFilter
    permissions = {"GET": Act.READ_JOURNAL}
    throttle_scope = "persons"

    def get_queryset(self) -> QuerySet[JournalEntry]:
        return journal.find_lines()

    @extend_schema(
        operation_id="journal_list",
        description=_("Who did or saw what, newest first. For administrators."),
        tags=["journal"],
        parameters=[ListQuerySerializer],
        responses={
            200: answer(JournalPageSerializer, EXAMPLES["journal_list"]),
            **errors(400, 401, 403, 429),
        },
    )
    def get(self, request: Request) -> Response:
        return self.read_page()
