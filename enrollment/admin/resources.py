"""Import and export of persons as CSV or JSON."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.utils.translation import gettext, gettext_noop
from import_export import fields, resources
from import_export.exceptions import FieldError
from import_export.widgets import DateWidget

from enrollment import journal
from enrollment.corrections import CHANGEABLE, save_person
from enrollment.gallery import with_pictures
from enrollment.imports import is_shortened, shortened_id
from enrollment.models import Person, normalised

# Texts of django-import-export without a Portuguese translation; our catalogue translates them.
gettext_noop("Import finished: {} new, {} updated, {} deleted and {} skipped {}.")
gettext_noop("This exporter will export the following fields: ")
gettext_noop(
    "No valid data to import. Ensure your file has the correct headers or data for import."
)


class PersonResource(resources.ModelResource):
    """A person as a row. A known id changes that person; a new id creates one."""

    # Only ISO dates: 05/06/2027 means different days in different countries.
    keep_until = fields.Field("keep_until", "keep_until", DateWidget("%Y-%m-%d"))

    class Meta:
        model = Person
        import_id_fields = ["person_id"]
        fields = CHANGEABLE
        import_order = fields
        clean_model_instances = True
        skip_unchanged = True
        report_skipped = True
        use_transactions = True

    def before_import(self, dataset: Any, **kwargs: Any) -> None:
        """Raise `FieldError` when the file has no column `person_id`."""
        given, expected = dataset.headers or [], self._meta.fields
        if "person_id" not in given:
            message = gettext(
                "The file has no column 'person_id'. It has: %(given)s; expected are: %(expected)s. "
                "The first line of a CSV names the columns."
            )
            names = {"given": ", ".join(map(str, given)), "expected": ", ".join(expected)}
            raise FieldError(message % names)

    def before_import_row(self, row: dict[str, Any], **kwargs: Any) -> None:
        given = row.get("person_id")
        row["person_id"] = normalised("" if given is None else str(given))
        if isinstance(given, float) or is_shortened(row["person_id"]):
            raise ValidationError({"person_id": shortened_id(str(given))})

    def do_instance_save(self, instance: Person, is_create: bool) -> None:
        save_person(instance)

    def after_import(self, dataset: Any, result: Any, **kwargs: Any) -> None:
        super().after_import(dataset, result, **kwargs)
        if not self._is_dry_run(kwargs):
            counts = {name: count for name, count in result.totals.items() if count}
            journal.record(journal.Action.IMPORTED, facts={"rows": counts})


class PersonExportResource(PersonResource):
    """A person as a row with additional read-only columns, which an import ignores."""

    picture_count = fields.Field("picture_count", readonly=True)
    created_at = fields.Field("created_at", readonly=True)

    class Meta:
        fields = [*CHANGEABLE, "picture_count", "created_at"]
        import_order = export_order = fields

    def get_queryset(self) -> QuerySet[Person]:
        return with_pictures(super().get_queryset())
