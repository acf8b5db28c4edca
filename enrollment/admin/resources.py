"""Persons as rows of a CSV or JSON file."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from import_export import fields, resources

from enrollment.models import Person
from enrollment.selectors import with_pictures


class PersonResource(resources.ModelResource):
    """Known by their ids: a row of a known one changes the name and the notes, others are made."""

    picture_count = fields.Field("picture_count", readonly=True)
    created_at = fields.Field("created_at", readonly=True)

    class Meta:
        model = Person
        import_id_fields = ["person_id"]
        fields = ["person_id", "name", "notes", "picture_count", "created_at"]
        import_order = export_order = fields
        clean_model_instances = True
        skip_unchanged = True
        report_skipped = True
        use_transactions = True

    def get_queryset(self) -> QuerySet[Person]:
        return with_pictures(super().get_queryset())

    def before_import_row(self, row: dict[str, Any], **kwargs: Any) -> None:
        row["person_id"] = str(row.get("person_id") or "").strip()
