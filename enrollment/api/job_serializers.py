"""Serializers of imports that are carried out as jobs."""

from __future__ import annotations

from typing import Any, Final

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from enrollment import imports
from enrollment.api.pagination import ListQuerySerializer, PageSerializer
from enrollment.api.person_serializers import UndoSerializer
from enrollment.imports import FileStatus
from enrollment.models import ImportFile, ImportJob, Person, validate_not_future, validate_not_past
from recognition.api.answers import AnswerSerializer, InstantField
from recognition.api.fields import DayField, FlagField, OneOfField, RepeatedField, TextField

STATUSES: Final = [str(status) for status in FileStatus]
_NO_FILE: Final = dict.fromkeys(
    ("required", "invalid"),
    _("The ZIP is missing. Send it as a file of a multipart/form-data form."),
)


class JobFormSerializer(serializers.Serializer):
    archive = serializers.FileField(
        error_messages=_NO_FILE,
        help_text=_(
            "A ZIP with a folder for each person, whose name is the id, or with a CSV that has the "
            "columns person_id and picture."
        ),
    )
    start = FlagField(
        default=False,
        help_text=_("True: carried out at once. False: it waits for `start` after the preview."),
    )
    use_face_detection = FlagField(
        default=True, help_text=_("False: each picture is an aligned crop of a face.")
    )
    on_several_faces = OneOfField(
        ("largest", "refuse"),
        default="largest",
        help_text=_("Of a picture of several faces: enrol the largest, or refuse it."),
    )
    legal_basis = TextField(
        max_length=500, required=False, help_text=_("Of people who are new with it.")
    )
    keep_until = DayField(
        required=False,
        allow_null=True,
        validators=[validate_not_past],
        help_text=_("Their last day, as 2027-12-31."),
    )
    purposes = RepeatedField(
        child=TextField(max_length=100),
        default=list,
        help_text=_("Names of purposes that they consent to; the field repeated for each."),
    )
    consent_day = DayField(
        required=False,
        allow_null=True,
        validators=[validate_not_future],
        help_text=_("When they did; none: today."),
    )


class FilesQuerySerializer(ListQuerySerializer):
    status = OneOfField(STATUSES, required=False, help_text=_("Only files with this status."))


# Answers


class CountsSerializer(AnswerSerializer):
    enrolled = serializers.IntegerField()
    skipped = serializers.IntegerField(help_text=_("Enrolled before."))
    refused = serializers.IntegerField()
    ignored = serializers.IntegerField(help_text=_("Hidden files, and those of systems."))
    left = serializers.IntegerField(help_text=_("Still to be looked at."))


# Renders an `ImportJob`.
class JobSerializer(AnswerSerializer, serializers.ModelSerializer):
    state = serializers.ChoiceField(ImportJob.State.choices)
    source = serializers.CharField(
        help_text=_("zip; watched: a watched folder; folder: of manage.py enroll.")
    )
    label = serializers.CharField(help_text=_("The name of the file."))
    who = serializers.CharField(source="username")
    error = serializers.CharField(help_text=_("Why it has stopped; empty otherwise."))
    counts = serializers.SerializerMethodField()
    seconds_left = serializers.SerializerMethodField(
        allow_null=True, help_text=_("Roughly; null: not known, or it is not at work.")
    )
    created_at = InstantField()
    started_at = InstantField(allow_null=True, help_text=_("When it was confirmed."))
    finished_at = InstantField(allow_null=True)
    undone_at = InstantField(allow_null=True, help_text=_("When all of it was taken back."))
    undo: Any = UndoSerializer().fields["undo"]
    undo_until: Any = UndoSerializer().fields["undo_until"]

    class Meta:
        model = ImportJob
        fields = ("id", "state", "source", "label", "who", "error", "counts", "seconds_left")
        fields += ("created_at", "started_at", "finished_at", "undo", "undo_until", "undone_at")
        read_only_fields = ("id",)

    def get_counts(self, job: ImportJob) -> CountsSerializer:
        return imports.counts_of(job)  # type: ignore[return-value]

    def get_seconds_left(self, job: ImportJob) -> float | None:
        return imports.seconds_left(job, imports.counts_of(job)["left"])


class JobResponseSerializer(JobSerializer):
    success = serializers.BooleanField(read_only=True, default=True)

    class Meta(JobSerializer.Meta):
        fields = (*JobSerializer.Meta.fields, "success")


class JobPageSerializer(PageSerializer):
    results = JobSerializer(many=True)


class AlikeSerializer(serializers.Serializer):
    person_id = serializers.CharField()
    person_name = serializers.CharField(allow_blank=True)
    similarity = serializers.FloatField(help_text=_("The cosine, -1 to 1."))
    decision = serializers.CharField(allow_null=True)


# Renders an `ImportFile`.
class JobFileSerializer(AnswerSerializer, serializers.ModelSerializer):
    is_done = serializers.SerializerMethodField(
        help_text=_("False: `status` is what will become of it.")
    )
    status = serializers.CharField(
        help_text=_("enrolled, skipped, refused or ignored; empty: not looked at.")
    )
    code = serializers.CharField(help_text=_("Of the error that refused it."))
    warnings = serializers.ListField(child=serializers.CharField())
    candidates = serializers.SerializerMethodField(help_text=_("Whom the face resembles most."))
    inbox = serializers.SerializerMethodField(
        allow_null=True,
        help_text=_("The key of its card, where it may still wait to be decided on."),
    )

    class Meta:
        model = ImportFile
        fields = ("path", "person_id", "status", "is_done", "code", "reason", "warnings")
        fields += ("face_detected", "searchable", "candidates", "inbox")

    def get_is_done(self, row: ImportFile) -> bool:
        return row.step == ImportFile.Step.DONE

    def get_inbox(self, row: ImportFile) -> str | None:
        return f"file-{row.probe_pk}" if row.probe_pk else None

    @extend_schema_field(AlikeSerializer(many=True))
    def get_candidates(self, row: ImportFile) -> list[dict[str, Any]]:
        persons: dict[int, Person] = self.context["persons"]
        return [
            {
                "person_id": persons[pk].person_id,
                "person_name": persons[pk].name,
                "similarity": similarity,
                "decision": decision,
            }
            for pk, similarity, decision in row.candidates
            if pk in persons
        ]


class JobFilesPageSerializer(PageSerializer):
    results = JobFileSerializer(many=True)

    def to_representation(self, instance: Any) -> dict[str, Any]:
        keys = {pk for row in instance.results for pk, _similarity, _decision in row.candidates}
        context: dict[str, Any] = self.context
        context["persons"] = Person.objects.in_bulk(keys)
        return super().to_representation(instance)
