"""The import of pictures for the admin and the pages: upload, preview, progress, report."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.cache import patch_cache_control
from django.utils.dateparse import parse_date
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from enrollment import imports
from enrollment.gallery import with_pictures
from enrollment.imports import FileStatus, check_readiness, escaped
from enrollment.models import (
    ImportFile,
    ImportJob,
    Person,
    Probe,
    Purpose,
    validate_not_future,
    validate_not_past,
)
from enrollment.web.day_input import DayInput
from enrollment.web.permissions import Act, owner_of
from enrollment.web.place import Place
from enrollment.web.trash import may_undo
from recognition.api.access import may
from recognition.decision import Decision
from recognition.exceptions import RecognitionError

FILES_A_PAGE: Final = 100
IMPORTS_A_PAGE: Final = 50
CSV_COLUMNS: Final = ("file", "person_id", "status", "reason", "face_detected", "searchable")
_SHOWN: Final = {"refused": ImportFile.Rank.REFUSED, "doubtful": ImportFile.Rank.DOUBTFUL}


class PictureImportForm(forms.Form):
    archive = forms.FileField(
        label=_("ZIP file"),
        help_text=_(
            "A folder for each person; its name is the person's id. Or a CSV with the columns "
            "person_id and picture beside the pictures."
        ),
    )
    use_face_detection = forms.BooleanField(
        label=_("Find the face in the pictures"),
        required=False,
        initial=True,
        help_text=_("Off: each picture is taken as an aligned crop of a face."),
    )
    refuse_several_faces = forms.BooleanField(
        label=_("Refuse pictures of several faces"),
        required=False,
        help_text=_("Off: the largest face is enrolled, and the report names the picture."),
    )
    legal_basis = forms.CharField(
        label=_("Legal basis of the new people"),
        required=False,
        max_length=500,
        help_text=_("What allows keeping these pictures. Who is enrolled already keeps theirs."),
    )
    keep_until = forms.DateField(
        label=_("Keep the new people until"),
        required=False,
        validators=[validate_not_past],
        widget=DayInput(),
        help_text=_("Their last day, after which they are deleted. Empty: as configured."),
    )
    purposes = forms.ModelMultipleChoiceField(
        Purpose.objects.all(),
        label=_("Purposes that the new people consent to"),
        required=False,
        help_text=_("A consent is recorded for each of them."),
    )
    consent_day = forms.DateField(
        label=_("Day of the consents"),
        required=False,
        validators=[validate_not_future],
        widget=DayInput(),
        help_text=_("Empty: today."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not Purpose.objects.exists():
            del self.fields["purposes"], self.fields["consent_day"]

    def details(self) -> dict[str, Any]:
        """Return what people get who are new with the import."""
        given: dict[str, Any] = {
            name: self.cleaned_data[name]
            for name in ("legal_basis", "keep_until", "consent_day")
            if self.cleaned_data.get(name)
        }
        if purposes := self.cleaned_data.get("purposes"):
            given["purposes"] = [purpose.pk for purpose in purposes]
        return given


def may_import(request: HttpRequest) -> bool:
    return may(request, Act.ADD_PERSON) and may(request, Act.ADD_PICTURES)


def import_pictures(request: HttpRequest, *, place: Place) -> HttpResponse:
    """Show the upload form; a POST stages the ZIP and redirects to its preview."""
    _check_permission(request)
    form = PictureImportForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        archive = form.cleaned_data["archive"]
        several = "refuse" if form.cleaned_data["refuse_several_faces"] else "largest"
        try:
            check_readiness()
            job = imports.stage_import(
                archive,
                archive.name,
                owner_of(request),
                details=form.details(),
                use_face_detection=form.cleaned_data["use_face_detection"],
                on_several_faces=several,
            )
            imports.request_imports()
            return redirect(place.run, job.pk)
        except RecognitionError as error:
            form.add_error("archive", error.message)
    context = {"title": gettext("Import pictures from a ZIP"), "form": form}
    return place.render(request, "import_upload", context)


def imports_list(request: HttpRequest, *, place: Place) -> HttpResponse:
    """List the imports, newest first."""
    _check_permission(request)
    pages = Paginator(imports.find_imports(owner_of(request)), IMPORTS_A_PAGE)
    page = pages.get_page(request.GET.get("page"))
    shown = [(job, imports.counts_of(job)) for job in page]
    context = {"title": gettext("Imports"), "page": page, "imports": shown}
    return place.render(request, "imports", context)


def import_run(request: HttpRequest, token: int | str, *, place: Place) -> HttpResponse:
    """Show an import: its preview, how far it is, or its report. A POST decides about it.

    `token` is its number; those of version 2.0, which were texts, are gone.
    """
    _check_permission(request)
    try:
        number = int(token) if str(token).isdecimal() and len(str(token)) < 18 else 0
        job = imports.get_import(number, owner_of(request))
        if request.method == "POST":
            return _decide(request, job, place)
    except RecognitionError as error:
        messages.error(request, error.message)
        return redirect(place.upload)
    if "csv" in request.GET:
        return _as_csv(job)
    response = place.render(request, "import_run", _described(request, job))
    patch_cache_control(response, private=True, no_store=True)
    return response


def _decide(request: HttpRequest, job: ImportJob, place: Place) -> HttpResponse:
    act = next((name for name in imports.DECISIONS if name in request.POST), "start")
    try:
        imports.decide(job, act)
    except RecognitionError as error:
        messages.error(request, error.message)
        return redirect(place.run, job.pk)
    if act == "cancel" and not job.is_confirmed:
        messages.info(request, gettext("Nothing was imported."))
        return redirect(place.persons)
    return redirect(place.run, job.pk)


def _described(request: HttpRequest, job: ImportJob) -> dict[str, Any]:
    """Return the context of an import's page."""
    shown = request.GET.get("show", "")
    rows = job.files.order_by("rank", "number")
    if shown in _SHOWN:
        rows = rows.filter(rank=_SHOWN[shown])
    page = Paginator(rows, FILES_A_PAGE).get_page(request.GET.get("page"))
    counts = imports.counts_of(job)
    enrolled = job.files.filter(status=FileStatus.ENROLLED).order_by()
    ids = enrolled.values("person_id").distinct()
    known = Person.objects.filter(person_id__in=ids).count()
    total = sum(counts.values())
    return {
        "title": gettext("Report of the import")
        if job.is_confirmed
        else gettext("Preview of the import"),
        "job": job,
        "keep_until": parse_date(job.details.get("keep_until") or ""),
        "counts": counts,
        "total": total,
        "handled": total - counts["left"],
        "left": _time_left(imports.seconds_left(job, counts["left"])),
        "page": page,
        "shown": shown,
        "results": _with_candidates(page.object_list),
        "known_persons": known,
        "new_persons": ids.count() - known,
        "waiting": _waiting(page.object_list),
        "unsearchable": job.files.filter(searchable=False).count(),
        "purposes": Purpose.objects.filter(pk__in=job.details.get("purposes", ())),
        "undo_items": [job.undo] if job.undo and may_undo(request, job.undo) else [],
        "may_browse": may(request, Act.BROWSE),
    }


def _with_candidates(rows: Iterable[Any]) -> list[Any]:
    """Return the rows, each with the persons whom it resembles most as `alike`, but not strangers."""
    rows = list(rows)
    keys = {pk for row in rows for pk, _similarity, _decision in row.candidates}
    persons = with_pictures(Person.objects.all()).in_bulk(keys)
    for row in rows:
        row.alike = [
            {"person": persons[pk], "similarity": similarity, "decision": decision}
            for pk, similarity, decision in row.candidates
            if pk in persons and decision != Decision.UNKNOWN
        ]
    return rows


def _waiting(rows: Iterable[ImportFile]) -> set[int]:
    """Return which of the rows' refused faces wait in the inbox."""
    keys = [row.probe_pk for row in rows if row.probe_pk]
    return set(Probe.objects.waiting().filter(pk__in=keys).values_list("pk", flat=True))


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        count = max(int(seconds), 1)
        text = ngettext("about %(count)d second left", "about %(count)d seconds left", count)
    else:
        count = round(seconds / 60)
        text = ngettext("about %(count)d minute left", "about %(count)d minutes left", count)
    return text % {"count": count}


@require_safe
def import_file(request: HttpRequest, token: int, pk: int) -> HttpResponse:
    """Serve the face of an import's file, or the whole picture, as a small JPEG."""
    _check_permission(request)
    job = get_object_or_404(imports.find_imports(owner_of(request)), pk=token)
    row = get_object_or_404(job.files.select_related("job"), pk=pk)
    try:
        response = HttpResponse(imports.small_picture(row), content_type="image/jpeg")
    except RecognitionError as error:
        return HttpResponse(error.message, status=404, content_type="text/plain; charset=utf-8")
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    patch_cache_control(response, private=True, no_cache=True)
    return response


def _as_csv(job: ImportJob) -> HttpResponse:
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = 'attachment; filename="import.csv"'
    writer = csv.writer(response)
    writer.writerow([*CSV_COLUMNS, "warnings"])
    for row in job.files.iterator(500):
        writer.writerow(report_row(row))
    return response


def report_row(row: ImportFile) -> list[Any]:
    """Return the values of `CSV_COLUMNS` and the warnings of a file, escaped for spreadsheets."""
    face = "" if row.face_detected is None else row.face_detected
    values = [row.path, row.person_id, row.status, row.reason, face, row.searchable]
    return [escaped(value) for value in [*values, " ".join(row.warnings)]]


def _check_permission(request: HttpRequest) -> None:
    if not may_import(request):
        raise PermissionDenied
