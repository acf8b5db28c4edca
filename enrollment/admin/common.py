"""What the lists of persons and of pictures have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from import_export.formats import base_formats
from import_export.forms import ExportForm, ImportForm

from enrollment.models import VectorDeletion


def thumbnail(picture_id: int) -> SafeString:
    """The small picture, linked to its page in the admin."""
    return format_html(
        '<a href="{}"><img class="thumbnail" loading="lazy" alt="{}" src="{}?size=icon"></a>',
        reverse("admin:enrollment_faceimage_change", args=[picture_id]),
        _("picture"),
        reverse("picture", args=[picture_id]),
    )


class _Csv(base_formats.CSV):
    """With commas or, as spreadsheets write it where the comma stands in numbers, with semicolons."""

    def create_dataset(self, in_stream: str, **kwargs: Any) -> Any:
        heading = in_stream.partition("\n")[0]
        delimiter = ";" if heading.count(";") > heading.count(",") else ","
        return super().create_dataset(in_stream, delimiter=delimiter, **kwargs)


class _CsvFirst:
    """CSV unless JSON is chosen."""

    def __init__(self, formats: list[Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(formats, *args, **kwargs)
        self.initial.setdefault("format", str(formats.index(_Csv)))


class _ImportForm(_CsvFirst, ImportForm):
    pass


class _ExportForm(_CsvFirst, ExportForm):
    """Of the whole list: the library's own default chooses fields, by a script in the page."""


class CsvAndJson:
    """In which formats lists are exported and imported."""

    formats: ClassVar = [_Csv, base_formats.JSON]
    import_form_class = _ImportForm
    export_form_class = _ExportForm

    def get_import_formats(self) -> list[Any]:
        return self.formats

    def get_export_formats(self) -> list[Any]:
        return self.formats


class GalleryAdmin(admin.ModelAdmin):
    actions = ["sync_selected"]
    list_per_page = 50

    class Media:
        css = {"all": ["enrollment/admin.css"]}

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method == "GET" and (count := VectorDeletion.objects.count()):
            text = ngettext(
                "%(count)d deleted vector is still in Milvus (searches pass over it). Choose “Sync "
                "again” for any row or run 'manage.py reindex' once Milvus answers.",
                "%(count)d deleted vectors are still in Milvus (searches pass over them). Choose “Sync "
                "again” for any row or run 'manage.py reindex' once Milvus answers.",
                count,
            )
            messages.warning(request, text % {"count": count})
        return super().changelist_view(request, *args, **kwargs)

    @admin.action(description=_("Sync again with Milvus"), permissions=["change"])
    def sync_selected(self, request: HttpRequest, queryset: Any) -> None:
        self.sync_again(request, queryset)

    def get_deleted_objects(self, objs: Iterable[Any], request: HttpRequest) -> tuple[Any, ...]:
        """One line for each object: what goes with it is counted, not listed."""
        _listing, counts, lacking, protected = super().get_deleted_objects(objs, request)
        return [self.describe_deletion(item) for item in objs], counts, lacking, protected
