"""Shared parts of the lists of persons, pictures and searches."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Final

from django import forms
from django.contrib import admin, messages
from django.db import models
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from import_export.formats import base_formats
from import_export.forms import ExportForm, ImportExportFormBase, ImportForm
from import_export.tmp_storages import BaseStorage
from tablib import Dataset

from enrollment import journal
from enrollment.enrolling import imports_folder
from enrollment.gallery import holds_words
from enrollment.imports import escaped, unescaped
from enrollment.models import FaceEmbedding, Removal

# Django's own widget with two lists has tooltips that screen readers do not read.
TICKED: Final = {models.ManyToManyField: {"widget": forms.CheckboxSelectMultiple}}


def thumbnail(picture_id: int) -> SafeString:
    """Return an image tag of the thumbnail, linked to the picture's admin page."""
    return format_html(
        '<a href="{}"><img class="thumbnail" loading="lazy" alt="{}" src="{}?size=face"></a>',
        reverse("admin:enrollment_faceimage_change", args=[picture_id]),
        _("picture"),
        reverse("picture", args=[picture_id]),
    )


class _Csv(base_formats.CSV):
    """CSV with commas, or with semicolons as spreadsheets write it where the comma is the decimal
    sign."""

    def create_dataset(self, in_stream: str, **kwargs: Any) -> Dataset:
        heading = in_stream.partition("\n")[0]
        delimiter = ";" if heading.count(";") > heading.count(",") else ","
        reader = csv.reader(io.StringIO(in_stream, newline=""), delimiter=delimiter)
        names = next(reader, [])
        dataset = Dataset(headers=names)
        for row in filter(None, reader):
            values = [unescaped(cell) for cell in row] + [""] * (len(names) - len(row))
            if any(values[len(names) :]):
                raise RowTooLong(
                    gettext(
                        "Line %(line)d has %(count)d values, and the heading names %(columns)d columns: "
                        "%(values)s. Put quotation marks around a value that holds a '%(delimiter)s'."
                    )
                    % {
                        "line": reader.line_num,
                        "count": len(row),
                        "columns": len(names),
                        "values": ", ".join(f"'{value[:50]}'" for value in values[:10]),
                        "delimiter": delimiter,
                    }
                )
            dataset.append(values[: len(names)])
        return dataset

    def export_data(self, dataset: Dataset, **kwargs: Any) -> str:
        rows = [[escaped(cell) for cell in row] for row in dataset]
        return super().export_data(Dataset(*rows, headers=dataset.headers), **kwargs)


class RowTooLong(ValueError):
    """A row has more values than columns. The message is shown to the user."""


class WaitingFile(BaseStorage):
    """An uploaded file that waits for confirmation of its import, stored like staged ZIP imports."""

    @property
    def path(self) -> Path:
        return imports_folder() / Path(self.name).name

    def save(self, data: bytes) -> None:
        self.name = f"{uuid.uuid4().hex}.table"
        self.path.write_bytes(data)

    def read(self) -> Any:
        with self.path.open(self.read_mode, encoding=self.encoding) as file:
            return file.read()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


class _CsvFirst(ImportExportFormBase):
    """A form that selects CSV unless another format is chosen."""

    def __init__(self, formats: list[Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(formats, *args, **kwargs)
        self.initial.setdefault("format", str(formats.index(_Csv)))


class _ImportForm(_CsvFirst, ImportForm):
    pass


class _ExportForm(_CsvFirst, ExportForm):
    """Export all fields. The library's default form chooses fields by an inline script."""


class CsvAndJson:
    """Export and import as CSV and JSON only."""

    formats: ClassVar = [_Csv, base_formats.JSON]
    tmp_storage_class = WaitingFile
    import_form_class = _ImportForm
    export_form_class = _ExportForm

    def get_export_data(
        self, file_format: Any, request: HttpRequest, queryset: QuerySet[Any], **kwargs: Any
    ) -> Any:
        content = super().get_export_data(file_format, request, queryset, **kwargs)
        facts = {"what": queryset.model._meta.model_name, "count": queryset.count()}
        journal.record(journal.Action.EXPORTED, facts=facts | {"format": file_format.get_title()})
        return content

    def get_import_formats(self) -> list[Any]:
        return self.formats

    def get_export_formats(self) -> list[Any]:
        return self.formats


class MadeElsewhere(admin.ModelAdmin):
    """Rows that the program makes: the admin neither adds nor changes them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class FindsPersons:
    """Also find rows by the id and name of their person; see `holds_words`."""

    person_path = "person__"  # lookup path from a row to its person

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        others, may_repeat = super().get_search_results(request, queryset, search_term)
        if not search_term.strip():
            return others, may_repeat
        words = holds_words(search_term, self.person_path)
        return queryset.filter(words | Q(pk__in=others.values("pk"))), False


class GalleryAdmin(FindsPersons, admin.ModelAdmin):
    actions = ["sync_selected"]
    list_per_page = 50

    class Media:
        css = {"all": ["enrollment/admin.css"]}

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method == "GET" and (count := Removal.objects.count()):
            text = ngettext(
                "%(count)d trace of deleted pictures is still to be removed (no search finds it). The "
                "server tries again by itself; “Make searchable again” for any row tries at once.",
                "%(count)d traces of deleted pictures are still to be removed (no search finds them). The "
                "server tries again by itself; “Make searchable again” for any row tries at once.",
                count,
            )
            messages.warning(request, text % {"count": count})
        return super().changelist_view(request, *args, **kwargs)

    @admin.action(description=_("Make searchable again"), permissions=["change"])
    def sync_selected(self, request: HttpRequest, queryset: Any) -> None:
        self.sync_again(request, queryset)

    def get_deleted_objects(self, objs: Iterable[Any], request: HttpRequest) -> tuple[Any, ...]:
        """List one line for each object; its related rows are counted, not listed, and what was
        computed from pictures not even that."""
        _listing, counts, lacking, protected = super().get_deleted_objects(objs, request)
        counts.pop(FaceEmbedding._meta.verbose_name_plural, None)
        return [self.describe_deletion(item) for item in objs], counts, lacking, protected
