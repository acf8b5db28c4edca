"""The API's answers to invalid requests: JSON with a code and a message, without secrets."""

from __future__ import annotations

import gzip
import io
import sqlite3
import struct
import zlib
from contextlib import closing

import pytest
from django.db import connection
from django.http import UnreadablePostError
from rest_framework.test import APIClient

from enrollment.models import Person
from faceproject.wsgi import application
from recognition.exceptions import OutOfDeviceMemory
from tests.pictures import draw_picture, upload

pytestmark = pytest.mark.django_db

EMBEDDING = "/api/embedding"
IMAGE_CALLS = [
    "/api/detect",
    "/api/embedding",
    "/api/embeddings/batch",
    "/api/milvus/insert",
    "/api/milvus/search",
    "/api/verify",
]
BOUNDARY = {"content_type": "multipart/form-data; boundary=edge"}


def assert_error(response, status: int, code: str | None = None) -> dict:
    """Check the body of an error and return it."""
    assert response["Content-Type"].startswith("application/json")
    body = response.json()
    assert response.status_code == status, body
    assert body["success"] is False
    assert body["message"].endswith((".", "?"))
    assert code is None or body["error"] == code, body
    assert "Traceback" not in response.text and "/work/" not in response.text
    return body


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims this size and contains almost nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "name"),
    [
        pytest.param(b"", "a.jpg", id="zero bytes"),
        pytest.param(b"<!doctype html><p>404</p>", "a.jpg", id="HTML named jpg"),
        pytest.param(draw_picture()[:-400], "a.jpg", id="truncated JPEG"),
        pytest.param(draw_picture((1, 1), format="PNG"), "a.png", id="one pixel"),
        pytest.param(png_header(30_000, 30_000), "a.png", id="decompression bomb"),
        pytest.param(draw_picture(format="GIF"), "a.jpg", id="GIF named jpg"),
        pytest.param(b"\0" * 5000, "a.bmp", id="zeros"),
        pytest.param(b"\xff\xd8\xff\xe0" + b"\xff" * 100, "a.jpg", id="JPEG start only"),
    ],
)
def test_files_that_are_no_pictures_are_refused(api, content, name):
    assert_error(api.post(EMBEDDING, {"image": upload(content, name)}), 400, "invalid_image")


@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("JPEG", "a.gif"),
        ("JPEG", "a.jfif"),
        ("PNG", "a.jpg.exe"),
        ("WEBP", "blob"),
        ("AVIF", "a.mpo"),
    ],
)
def test_content_decides_what_a_file_is_not_its_name(api, format, name):
    picture = upload(draw_picture(format=format), name)

    assert api.post("/api/detect", {"image": picture}).status_code == 200


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/detect", "image"),
        ("/api/embedding", "image"),
        ("/api/verify", "source_image"),
        ("/api/embeddings/batch", "images"),
        ("/api/milvus/search", "image"),
        ("/api/milvus/insert", "images"),
    ],
)
def test_a_missing_picture_names_its_field(api, path, field):
    body = assert_error(api.post(path, {"person_id": "x"}), 400, "validation_error")
    assert list(body["fields"]) == [field]
    assert body["message"].startswith(f"{field}: ")


@pytest.mark.parametrize("path", IMAGE_CALLS)
def test_text_instead_of_a_file_is_refused(api, path):
    form = {"image": "face.jpg", "images": "face.jpg", "person_id": "x"}
    assert_error(api.post(path, form), 400, "validation_error")


@pytest.mark.parametrize("path", IMAGE_CALLS)
def test_an_empty_request_is_refused(api, path):
    assert_error(api.generic("POST", path), 400, "validation_error")


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v3", "../../etc/passwd", "x" * 5000, "é\n"])
def test_an_unknown_model_is_told_the_known_ones(api, name):
    body = assert_error(api.post(EMBEDDING, {"image": upload(), "model": name}), 400)
    assert body["error"] == "unknown_model"
    assert "mobilenetv3_large, cosface_resnet50" in body["message"]
    assert list(body["fields"]) == ["model"]
    assert len(body["message"]) < 400


def test_an_empty_model_is_the_default(api):
    body = api.post(EMBEDDING, {"image": upload(), "model": ""}).json()
    assert body["model"] == "mobilenetv3_large"


@pytest.mark.parametrize("path", ["/api/embeddings/batch", "/api/milvus/insert"])
def test_too_many_pictures_says_both_numbers(api, path):
    images = [upload(b"x", f"{number}.jpg") for number in range(101)]
    body = assert_error(api.post(path, {"images": images, "person_id": "x"}), 400)
    assert body["error"] == "too_many_images"
    assert "101" in body["message"] and "100" in body["message"]


def test_a_hundred_pictures_are_accepted(api):
    images = [upload(b"x", f"{number}.jpg") for number in range(100)]
    assert_error(api.post("/api/embeddings/batch", {"images": images}), 422, "all_images_failed")


def test_more_files_than_django_reads_are_refused(api, settings):
    settings.DATA_UPLOAD_MAX_NUMBER_FILES = 3
    images = [upload(b"x") for _ in range(4)]
    assert_error(api.post("/api/embeddings/batch", {"images": images}), 400, "too_many_images")


def test_more_fields_than_django_reads_are_refused(api, settings):
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 3
    form = {f"field{number}": "x" for number in range(4)}
    assert_error(api.post(EMBEDDING, form), 400)


def test_fields_larger_than_django_reads_are_refused(api, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    assert_error(api.post(EMBEDDING, {"model": "x" * 2000}), 413, "request_too_large")


def test_a_request_that_is_too_large_is_refused_unread(api, settings):
    class Unread(io.BytesIO):
        def read(self, *args):
            raise AssertionError("The body was read.")

    length = settings.MAX_REQUEST_BYTES + 1
    response = api.generic(
        "POST", EMBEDDING, CONTENT_LENGTH=str(length), **{"wsgi.input": Unread()}
    )
    body = assert_error(response, 413, "request_too_large")
    assert "50 MB" in body["message"]


@pytest.mark.parametrize(
    ("length", "status"),
    [("-1", 400), ("abc", 400), ("1e3", 400), ("١٢", 400), ("9" * 5000, 413)],
)
def test_a_content_length_that_is_none_is_refused(api, length, status):
    assert_error(api.generic("POST", EMBEDDING, CONTENT_LENGTH=length), status)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("top_k", "0", "'0' was given; a whole number from 1 to 1000 is expected."),
        ("top_k", "1.5", "'1.5' was given; a whole number from 1 to 1000 is expected."),
        ("threshold", "0,5", "'0,5' was given; a number from -1 to 1 is expected."),
        ("min_score", "nan", "'nan' was given; a number from 0 to 1 is expected."),
        ("min_face_size", "-3", "'-3' was given; a number of 0 or more is expected."),
        ("all_faces", "maybe", "'maybe' was given; true or false is expected."),
        ("all_faces", "x" * 5000, f"'{'x' * 50}…' was given; true or false is expected."),
    ],
)
def test_a_wrong_value_is_told_with_what_is_expected(api, field, value, told):
    response = api.post("/api/milvus/search", {"image": upload(), field: value})
    body = assert_error(response, 400, "validation_error")
    assert body["fields"] == {field: [told]}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("path", IMAGE_CALLS)
def test_other_methods_are_405(api, path, method):
    response = api.generic(method, path)
    assert_error(response, 405, "method_not_allowed")
    assert "POST" in response["Allow"]


@pytest.mark.parametrize("path", ["/api/health", "/api/models", "/api/milvus/stats"])
def test_posting_to_what_is_read_is_405(api, path):
    assert_error(api.post(path), 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/api/x", "/api/x/", "/api/%00"])
@pytest.mark.parametrize("debug", [False, True])
def test_unknown_paths_are_404(api, path, debug, settings):
    settings.DEBUG = debug
    body = assert_error(api.get(path), 404, "not_found")
    assert "/api/docs" in body["message"]


def test_a_json_body_is_415_and_says_what_is_expected(api):
    body = assert_error(api.post(EMBEDDING, {"image": "x"}, format="json"), 415)
    assert body["error"] == "unsupported_media_type"
    assert "multipart/form-data" in body["message"] and "application/json" in body["message"]


def test_an_invalid_json_body_is_415(api):
    response = api.generic("POST", EMBEDDING, "{not json", content_type="application/json")
    assert_error(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param("multipart/form-data", id="no boundary"),
        pytest.param("multipart/form-data; boundary=", id="empty boundary"),
        pytest.param("multipart/form-data; boundary=é\n", id="strange boundary"),
    ],
)
def test_a_malformed_boundary_is_refused(api, content_type):
    assert_error(api.generic("POST", EMBEDDING, b"--edge\r\n", content_type=content_type), 400)


def test_a_boundary_that_is_too_long_is_refused(api):
    content_type = "multipart/form-data; boundary=" + "x" * 5000
    body = assert_error(api.generic("POST", EMBEDDING, b"x", content_type=content_type), 415)
    assert len(body["message"]) < 500


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"no parts at all", id="no parts"),
        pytest.param(
            b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.jpg', id="cut off"
        ),
        pytest.param(b"--edge\r\n\r\n\r\n--edge--", id="no name"),
        pytest.param(
            b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
            b"Content-Transfer-Encoding: base64\r\n\r\n!!!\r\n--edge--",
            id="broken base64",
        ),
    ],
)
def test_a_malformed_form_is_refused(api, body):
    assert_error(api.generic("POST", EMBEDDING, body, **BOUNDARY), 400)


def form_of_two() -> bytes:
    head = b'--edge\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n'
    return 2 * (head + draw_picture() + b"\r\n") + b"--edge--\r\n"


@pytest.mark.parametrize("lost", [4, 100])
def test_a_form_without_its_end_is_refused(api, lost):
    """Its last picture was dropped, and the answer was 200 about the others."""
    body = api.generic("POST", "/api/embeddings/batch", form_of_two()[:-lost], **BOUNDARY)
    assert "not the whole multipart" in assert_error(body, 400, "parse_error")["message"]


@pytest.mark.parametrize("after", [b"", b"\r\n\r\n", b"an epilogue\r\n\r\n--"])
def test_what_stands_behind_a_form_is_passed_over(api, after):
    answer = api.generic("POST", "/api/embeddings/batch", form_of_two() + after, **BOUNDARY)
    assert (answer.status_code, answer.json()["total"]) == (200, 2)


@pytest.mark.parametrize(
    ("before", "after", "content_type"),
    [
        pytest.param(
            b'--edge\r\nContent-Disposition: form-data; name="image"\r\n\r\n',
            b"\r\n--edge--\r\n",
            "multipart/form-data; boundary=edge",
            id="curl -F 'image=<face.jpg'",
        ),
        pytest.param(
            b"", b"", "application/x-www-form-urlencoded", id="curl --data-binary @face.jpg"
        ),
    ],
)
def test_a_picture_sent_as_text_is_told_how_to_be_sent(api, before, after, content_type):
    body = before + draw_picture() + after
    answer = api.generic("POST", EMBEDDING, body, content_type=content_type)
    refused = assert_error(answer, 400, "not_utf8")
    assert "with a file name (curl: -F image=@face.jpg)" in refused["message"]
    assert refused["message"].isascii()  # it showed the picture's bytes


@pytest.mark.parametrize(
    ("path", "kind"), [("/api/persons", "application/json"), (EMBEDDING, BOUNDARY["content_type"])]
)
def test_a_compressed_body_is_told_that_it_is(api, path, kind):
    """It was said to be no UTF-8."""
    packed = {"headers": {"content-encoding": "gzip"}, "content_type": kind}
    refused = api.generic("POST", path, gzip.compress(b'{"person_id": "a"}'), **packed)
    assert "Content-Encoding 'gzip'" in assert_error(refused, 400, "parse_error")["message"]


def test_too_many_fields_are_told_by_their_number(api):
    """The message spoke of ALLOWED_HOSTS."""
    fields = {f"field{number}": "x" for number in range(1001)}
    refused = assert_error(api.post(EMBEDDING, fields), 400, "bad_request")
    assert "1000 fields" in refused["message"]


def test_what_is_missing_says_what_is_expected(api):
    """Some said only that a field is required, or that no file was submitted."""
    Person.objects.create(person_id="ana")
    for path, field, said in (
        ("/api/inbox/probe-1", "action", "assign, new"),
        ("/api/feedback", "verdict", "confirmed, rejected"),
        ("/api/persons/ana/consents", "day", "2027-12-31"),
        ("/api/jobs", "archive", "ZIP"),
    ):
        body = assert_error(api.post(path), 400, "validation_error")
        assert said in body["fields"][field][0], path


def test_an_address_that_is_no_utf8_is_refused(api):
    """`%ff` was taken for the id '%FF', which it is not."""
    Person.objects.create(person_id="%FF")
    for path in ("/api/persons/%ff", "/api/persons/%ff/images"):
        assert_error(api.get(path, REQUEST_URI=path), 400, "not_utf8")
    assert api.get("/api/persons/%25FF").json()["person_id"] == "%FF"


def test_json_may_begin_with_a_byte_order_mark(api):
    sent = b'\xef\xbb\xbf{"person_id": "ana"}'
    assert (
        api.generic("POST", "/api/persons", sent, content_type="application/json").status_code
        == 201
    )


def send_named(api, filename: bytes):
    head = b'--edge\r\nContent-Disposition: form-data; name="images"; filename="' + filename + b'"'
    body = head + b"\r\nContent-Type: image/jpeg\r\n\r\n" + draw_picture() + b"\r\n--edge--\r\n"
    return api.generic("POST", "/api/embeddings/batch", body, **BOUNDARY)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("../../etc/passwd.jpg", "passwd.jpg"),
        ("C:\\photos\\ana.jpg", "ana.jpg"),
        ("josé 😀.jpg", "josé 😀.jpg"),
        ("a&amp;b.jpg", "a&b.jpg"),
    ],
)
def test_file_names_lose_their_folders_only(api, given, told):
    response = send_named(api, given.encode())
    assert response.status_code == 200
    assert response.json()["results"][0]["filename"] == told


def test_a_long_file_name_is_shortened(api):
    name = send_named(api, b"x" * 600 + b".jpg").json()["results"][0]["filename"]
    assert len(name) <= 255 and name.endswith(".jpg")


def test_a_file_name_of_five_thousand_characters_is_refused(api):
    assert_error(send_named(api, b"x" * 5000 + b".jpg"), 400, "parse_error")


def test_missing_weights_are_503_and_name_the_way_out(api, no_weights):
    response = api.post(EMBEDDING, {"image": upload()})
    body = assert_error(response, 503, "weights_unavailable")
    assert "mobilenetv3_large.ckpt" in body["message"] and "manage.py" in body["message"]
    assert int(response["Retry-After"]) > 0


def test_damaged_weights_are_503(api, settings, no_weights):
    folder = settings.RECOGNITION["WEIGHTS_DIR"]
    (folder / "mobilenetv3_large.ckpt").write_bytes(b"no checkpoint")
    body = assert_error(api.post(EMBEDDING, {"image": upload()}), 503, "weights_unavailable")
    assert str(folder) not in body["message"]


def test_too_little_device_memory_is_503(api, monkeypatch):
    def fail(*args):
        raise OutOfDeviceMemory("The GPU has too little memory.")

    monkeypatch.setattr("recognition.inference.forward", fail)
    assert_error(api.post(EMBEDDING, {"image": upload()}), 503, "out_of_device_memory")


@pytest.mark.parametrize("debug", [False, True])
def test_an_unforeseen_failure_is_500_without_details_and_logged(
    api, monkeypatch, settings, caplog, debug
):
    def fail(*args, **kwargs):
        raise RuntimeError("secret in /srv/private")

    settings.DEBUG = debug
    monkeypatch.setattr("recognition.api.views.embed_crops", fail)
    response = api.post(EMBEDDING, {"image": upload()})
    assert_error(response, 500, "internal_error")
    assert "secret" not in response.text and "RuntimeError" not in response.text
    assert "secret in /srv/private" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_database_that_another_program_locks_is_a_plain_503(api, monkeypatch):
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
        connection.ensure_connection()
        connection.cursor().execute("PRAGMA busy_timeout = 50")
        other.execute("BEGIN IMMEDIATE")
        fields = {"person_id": "ana", "images": upload(), "use_face_detection": "false"}
        response = api.post("/api/milvus/insert", fields)
        other.execute("ROLLBACK")
    connection.close()
    assert_error(response, 503, "database_unavailable")
    assert "Retry-After" not in response
    assert "locked" in response.json()["message"]


@pytest.mark.parametrize("debug", [False, True])
def test_a_failure_outside_the_views_is_json_too(settings, monkeypatch, debug):
    def fail(*args, **kwargs):
        raise RuntimeError("secret")

    settings.DEBUG = debug
    monkeypatch.setattr("django.middleware.locale.LocaleMiddleware.process_request", fail)
    client = APIClient(headers={"host": "localhost"}, raise_request_exception=False)
    response = client.get("/api/health")
    assert_error(response, 500, "internal_error")
    assert "secret" not in response.text


def test_a_client_that_hangs_up_is_not_our_failure(api, monkeypatch):
    def hang_up(*args, **kwargs):
        raise UnreadablePostError("gone")

    monkeypatch.setattr("rest_framework.parsers.MultiPartParser.parse", hang_up)
    assert_error(api.post(EMBEDDING, {"image": upload()}), 400)


def test_an_unknown_host_is_refused_in_json(api):
    body = assert_error(api.get("/api/health", headers={"host": "evil.example"}), 400)
    assert "'evil.example' is no address of this server" in body["message"]


def test_pages_keep_their_own_errors(client):
    response = client.get("/no/such/page", headers={"host": "localhost"})
    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("path", "content_type", "sent", "said"),
    [
        ("/api/persons", "application/json", '{"a": 1,\n x', "not JSON from line 2, column 2 on"),
        ("/api/persons", "application/json", '{"a": NaN}', "NaN is no number in JSON"),
        ("/api/persons", "application/json", f'{{"a": {"1" * 5000}}}', "too many digits"),
        (EMBEDDING, "multipart/form-data", "--x", "not the whole multipart/form-data that its"),
        (
            EMBEDDING,
            "multipart/form-data; boundary=",
            "--x",
            "not the whole multipart/form-data that",
        ),
    ],
)
def test_a_damaged_body_is_told_in_our_words(api, path, content_type, sent, said):
    body = assert_error(api.generic("POST", path, sent, content_type=content_type), 400)
    assert said in body["message"]
    assert "parse error" not in body["message"] and "Expecting" not in body["message"]


@pytest.mark.parametrize("depth", [900, 5_000, 1_000_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_json_of_any_depth_is_400(api, depth, opening, closing):
    deep = opening * depth + "1" + closing * depth
    for method, path in (("post", "/api/persons"), ("patch", "/api/persons/ana")):
        body = deep if path.endswith("s") else f'{{"name": {deep}}}'
        response = getattr(api, method)(path, body, content_type="application/json")
        assert_error(response, 404 if response.status_code == 404 else 400)
    fields = {"images": [upload()], "person_id": "ana", "image_paths": deep}
    assert_error(api.post("/api/milvus/insert", fields), 400)
    assert_error(api.post("/api/milvus/search", {"embedding": deep}), 400)


@pytest.mark.parametrize("body", ["1", '"ana"', "[]", '["person_id"]', "{", "\xff"])
def test_json_that_is_no_object_is_400(api, body):
    response = api.post("/api/persons", body.encode("latin-1"), content_type="application/json")
    refused = assert_error(response, 400)
    assert list(refused.get("fields", {})) in ([], ["non_field_errors"])  # as in a PATCH of nothing


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        pytest.param("PATCH", "persons/ana", r'{"name": "x", "\ud800": 1}', id="unknown name"),
        pytest.param("PATCH", "persons/ana", r'{"\ud800": 1, "\ud800": 2}', id="repeated name"),
        pytest.param("PATCH", "persons/ana", r'{"cover": "\udfff"}', id="number"),
        pytest.param("POST", "inbox/probe-1", r'{"action": "discard\ud83d"}', id="word"),
        pytest.param("POST", "feedback", r'{"model": "\ud800"}', id="model"),
        pytest.param("POST", "persons/ana/consents", r'{"purposes": ["\ud800"]}', id="in a list"),
    ],
)
def test_half_a_surrogate_pair_is_no_text(api, method, path, sent):
    """It stood in the answer, which could not be written: 500, when the change was already made."""
    Person.objects.create(person_id="ana")
    response = api.generic(method, f"/api/{path}", sent, content_type="application/json")
    body = assert_error(response, 400, "not_utf8")
    assert "\\ud" in body["message"]
    assert Person.objects.get().name == ""


@pytest.mark.parametrize(
    "charset", ["base64", "rot13", "undefined", "punycode", "idna", "nonsense"]
)
def test_a_charset_that_is_none_is_passed_over(api, monkeypatch, charset):
    """Django takes each codec of Python's for a charset: the request failed before any view."""
    monkeypatch.setattr("django.test.client.WSGIRequest", application.request_class)
    part = "--e\r\nContent-Disposition: form-data; name=person_id\r\n\r\n{}\r\n--e--\r\n"
    kinds = {
        "application/json": '{{"person_id": "{}"}}',
        "application/x-www-form-urlencoded": "person_id={}",
        "multipart/form-data; boundary=e": part,
    }
    for number, (kind, sent) in enumerate(kinds.items()):
        kind = f"{kind}; charset={charset}"
        made = api.generic("POST", "/api/persons", sent.format(number), content_type=kind)
        assert made.status_code == 201, made.content
        read = api.generic("GET", f"/api/persons?q={number}", content_type=kind)
        assert [each["person_id"] for each in read.json()["results"]] == [str(number)]


def test_a_body_in_another_charset_than_its_header_names(api):
    kind = "application/json; charset=utf-16"
    response = api.generic("POST", "/api/persons", b'{"person_id": "p"}', content_type=kind)
    assert "charset" in assert_error(response, 400, "parse_error")["message"]
    text = '{"person_id": "João"}'
    ascii = "application/json; charset=ascii"
    response = api.generic("POST", "/api/persons", text, content_type=ascii)
    assert "charset" in assert_error(response, 400, "parse_error")["message"]
    made = api.generic("POST", "/api/persons", text.encode("utf-16"), content_type=kind)
    assert made.json()["person_id"] == "João"


@pytest.mark.parametrize(
    ("path", "field", "items"),
    [
        ("/api/milvus/search", "embedding", [0.5] * 512),
        ("/api/milvus/insert", "image_paths", ["a.jpg", "b.jpg"]),
    ],
)
def test_a_list_in_the_place_of_a_json_array_is_told_what_is_expected(api, path, field, items):
    """`data={"embedding": [...]}` of HTTP libraries: it was only said to be sent 512 times."""
    form = {field: items, "images": [upload(), upload()], "person_id": "ana"}
    body = assert_error(api.post(path, form), 400, "validation_error")
    assert list(body["fields"]) == [field]
    assert "Send a JSON array" in body["message"]


def test_lists_in_forms_are_repeated_fields_and_nothing_else(api):
    """`images[0]` was read, and said to be passed over; of two the first was lost."""
    body = assert_error(api.post("/api/embeddings/batch", {"images[0]": upload()}), 400)
    assert list(body["fields"]) == ["images"] and "'images[0]'" in body["warnings"][0]
    Person.objects.create(person_id="ana")
    form = f"day=2026-11-27&purposes[{'9' * 5000}]=door"
    kind = "application/x-www-form-urlencoded"
    made = api.generic("POST", "/api/persons/ana/consents", form, content_type=kind)
    assert made.status_code == 201 and "'purposes[9" in made.json()["warnings"][0]


@pytest.mark.parametrize("path", ["/api/models", "/api/persons/nobody", "/api/schema", "/api/docs"])
def test_a_format_that_a_call_does_not_have_is_406(api, path):
    """It was 404, as if there were nothing at the address; and YAML or HTML at the document."""
    body = assert_error(api.get(f"{path}?format=xml"), 406, "not_acceptable")
    assert "'xml'" in body["message"] and "with " in body["message"]


@pytest.mark.parametrize("path", ["/api/schema", "/api/docs"])
def test_the_document_and_its_page_answer_errors_as_all_calls_do(api, path):
    assert_error(api.post(path), 405, "method_not_allowed")


def test_what_a_program_accepts_changes_nothing(api):
    """The Flask API did not look at it either; this one refused, with 406."""
    for accept in ("image/png", "text/plain", "???", "application/json;q=0", ""):
        answer = api.get("/api/models", headers={"accept": accept})
        assert (answer.status_code, answer["Content-Type"]) == (200, "application/json"), accept


def test_the_document_is_open_also_with_a_token_that_ended(api):
    assert api.get("/api/schema", headers={"authorization": "Token gone"}).status_code == 200
