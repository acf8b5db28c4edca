"""Uploads that are too large for the memory leave nothing behind, whatever ends the server."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import RequestFactory

from enrollment.enrolling import add_consent
from enrollment.models import Consent, Person, today

LARGE = b"%PDF-1.4" + b"x" * 3_000_000  # more than Django keeps in memory


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """The temporary folder, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def sent() -> dict[str, SimpleUploadedFile]:
    return {"document": SimpleUploadedFile("a.pdf", LARGE, "application/pdf")}


def test_a_large_upload_has_no_name_in_the_temporary_folder(folder: Path):
    """A killed server left it there, whole and with its metadata."""
    file = RequestFactory().post("/", sent()).FILES["document"]
    assert list(folder.iterdir()) == []
    assert (file.size, file.name, file.content_type) == (len(LARGE), "a.pdf", "application/pdf")
    assert file.read() == LARGE


@pytest.mark.django_db
def test_a_large_document_is_stored(folder: Path):
    person = Person.objects.create(person_id="ana")
    document = RequestFactory().post("/", sent()).FILES["document"]
    add_consent(person, document=document, day=today())
    with Consent.objects.get().document.open() as stored:
        assert stored.read() == LARGE
