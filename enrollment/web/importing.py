"""The ZIP import for the admin and the pages: upload, preview, report."""

from __future__ import annotations

import csv

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from enrollment import enrolling
from enrollment.enrolling import Done, FileStatus, PictureImport, check_readiness
from enrollment.models import Person
from enrollment.web.acts import Act, owner_of
from enrollment.web.place import Place
from enrollment.web.spreadsheets import escaped
from enrollment.web.undoing import say_done
from recognition.api.access import may
from recognition.exceptions import RecognitionError

SHOWN_FILES = 500


class PictureImportForm(forms.Form):
    archive = forms.FileField(
        label=_("ZIP file"),
        help_text=_("A folder for each person; its name is the person's id."),
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


def may_import(request: HttpRequest) -> bool:
    return may(request, Act.ADD_PERSON) and may(request, Act.ADD_PICTURES)


def import_pictures(request: HttpRequest, *, place: Place) -> HttpResponse:
    """Show the upload form; a POST stages the ZIP and redirects to its preview."""
    _check_permission(request)
    form = PictureImportForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        archive = form.cleaned_data["archive"]
        try:
            check_readiness()
            staged = enrolling.stage_import(
                archive,
                archive.name,
                owner_of(request),
                use_face_detection=form.cleaned_data["use_face_detection"],
                on_several_faces="refuse"
                if form.cleaned_data["refuse_several_faces"]
                else "largest",
            )
            return redirect(place.run, staged.token)
        except RecognitionError as error:
            form.add_error("archive", error.message)
    context = {"title": gettext("Import pictures from a ZIP"), "form": form}
    return place.render(request, "import_upload", context)


def import_run(request: HttpRequest, token: str, *, place: Place) -> HttpResponse:
    """Show the preview of an import, or its report once it was carried out."""
    _check_permission(request)
    try:
        staged = enrolling.load_import(token, owner_of(request))
        if request.method == "POST":
            return _decide(request, staged, place)
    except RecognitionError as error:
        messages.error(request, error.message)
        return redirect(place.upload)
    if "csv" in request.GET:
        return _as_csv(staged)
    known = Person.objects.filter(person_id__in=staged.persons).count()
    # Refused and doubtful files first: these need attention.
    results = sorted(
        staged.results,
        key=lambda item: (item.status is not FileStatus.REFUSED, not item.warnings),
    )
    context = {
        "title": gettext("Report of the import")
        if staged.done
        else gettext("Preview of the import"),
        "staged": staged,
        "results": results[:SHOWN_FILES],
        "known_persons": known,
        "new_persons": len(staged.persons) - known,
        "counts": {status.value: staged.count(status) for status in FileStatus},
        "unsearchable": sum(not item.searchable for item in staged.results),
    }
    return place.render(request, "import_run", context)


def _decide(request: HttpRequest, staged: PictureImport, place: Place) -> HttpResponse:
    if "cancel" in request.POST:
        enrolling.discard_import(staged)
        messages.info(request, gettext("Nothing was imported."))
        return redirect(place.persons)
    check_readiness()
    item = enrolling.carry_out_import(staged)
    count = staged.count(FileStatus.ENROLLED)
    text = ngettext("%(count)d picture was added.", "%(count)d pictures were added.", count)
    say_done(request, text % {"count": count}, Done(count, item), undo=place.undo)
    return redirect(place.run, staged.token)


def _as_csv(staged: PictureImport) -> HttpResponse:
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = 'attachment; filename="import.csv"'
    writer = csv.writer(response)
    writer.writerow(
        ["file", "person_id", "status", "reason", "face_detected", "searchable", "warnings"]
    )
    for item in staged.results:
        face = "" if item.face_detected is None else item.face_detected
        row = [item.path, item.person_id, item.status, item.reason, face, item.searchable]
        writer.writerow(map(escaped, [*row, " ".join(item.warnings)]))
    return response


def _check_permission(request: HttpRequest) -> None:
    if not may_import(request):
        raise PermissionDenied
