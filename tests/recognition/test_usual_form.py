"""Usual forms are read as Django's parser reads them; all others are left to it."""

from __future__ import annotations

from io import BytesIO

import pytest
from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.http.multipartparser import MultiPartParser

from recognition.api.usual_form import read_usual_form

TYPE = "multipart/form-data; boundary=x-1"
FIELD = b'--x-1\r\nContent-Disposition: form-data; name="model"\r\n\r\nmobile \xc3\xa7\r\n'
FILE = (
    b'--x-1\r\nContent-Disposition: form-data; name="images"; filename="a b.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n\xff\xd8\r\n--x\r\n\r\n\r\n"
)
END = b"--x-1--\r\n"


def read_by_django(body: bytes) -> tuple[dict, dict]:
    meta = {"CONTENT_TYPE": TYPE, "CONTENT_LENGTH": str(len(body))}
    handler = MemoryFileUploadHandler()
    handler.activated = True
    return MultiPartParser(meta, BytesIO(body), [handler], "utf-8").parse()


def as_plain(form: tuple) -> list:
    fields, files = form
    described = [
        (name, each.name, each.field_name, each.content_type, each.size, each.charset, each.read())
        for name, given in files.lists()
        for each in given
    ]
    return [list(fields.lists()), described, type(fields), fields._mutable]


@pytest.mark.parametrize(
    "body",
    [
        FIELD + FILE + END,
        FILE + FIELD + FIELD + FILE + END[:-2],
        FILE.replace(b"\xff\xd8", b"").replace(b"\r\n--x\r\n\r\n", b"") + END,
        FIELD.replace(b"mobile \xc3\xa7", b"") + END,
        END,
    ],
)
def test_a_usual_form_is_read_as_django_reads_it(body):
    assert as_plain(read_usual_form(body, TYPE)) == as_plain(read_by_django(body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"preamble\r\n" + FIELD + END,
        FIELD + END + b"epilogue",
        FIELD,  # without its end
        FILE + FIELD[:-2] + END,
        FILE.replace(b"--x\r\n", b"--x-1\r\n") + END,  # the boundary within a file
        FIELD.replace(b"\xc3\xa7", b"\xe7") + END,  # Latin-1
        FIELD.replace(b'"model"', b"model") + END,
        FIELD.replace(b'"model"', b'"mod\xc3\xa9l"') + END,
        FIELD.replace(b'"model"', b'"model"\r\nContent-Transfer-Encoding: base64') + END,
        FILE.replace(b"a b.jpg", b"") + END,
        FILE.replace(b"a b.jpg", b"../a.jpg") + END,
        FILE.replace(b"a b.jpg", b"&eacute;.jpg") + END,
        FILE.replace(b"\r\nContent-Type: image/jpeg", b"") + END,
        FILE.replace(b"image/jpeg", b"image/jpeg; charset=utf-8") + END,
        FIELD * 201 + END,
    ],
)
def test_an_unusual_form_is_left_to_django(body):
    assert read_usual_form(body, TYPE) is None


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "multipart/mixed; boundary=x-1",
        'multipart/form-data; boundary="x-1"',
        "multipart/form-data; boundary=x-1; charset=latin-1",
    ],
)
def test_an_unusual_content_type_is_left_to_django(content_type):
    assert read_usual_form(FIELD + END, content_type) is None
