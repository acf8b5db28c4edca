"""Files about a person, sent to be saved."""

from __future__ import annotations

import io
import tempfile

from django.http import FileResponse
from django.utils.cache import patch_cache_control

from enrollment.desk import export_name, export_person
from enrollment.gallery import read_document
from enrollment.models import Consent, Person


def export_response(person: Person) -> FileResponse:
    """Return the ZIP with everything that is kept of the person."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (the response closes it)
    try:
        export_person(person, file)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    response = FileResponse(
        file, as_attachment=True, filename=export_name(person), content_type="application/zip"
    )
    patch_cache_control(response, private=True, no_store=True)
    return response


def document_response(consent: Consent) -> FileResponse:
    """Return the document as it was uploaded; never shown by the browser as a page of this site."""
    response = FileResponse(
        io.BytesIO(read_document(consent)),
        as_attachment=True,
        filename=consent.file_name or "document",
        content_type="application/octet-stream",
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    patch_cache_control(response, private=True, no_store=True)
    return response
