"""The search page, the stored pictures and the login, as a browser without a script meets them."""

from __future__ import annotations

import io
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from PIL import Image
from rest_framework.authtoken.models import Token

from enrollment.models import FaceImage, Person
from enrollment.services import Upload, enroll_pictures
from recognition.vector_store import MilvusVectorStore
from tests.pictures import draw_picture

pytestmark = pytest.mark.django_db


@pytest.fixture
def local() -> Client:
    """A browser on the machine itself."""
    return Client(headers={"host": "localhost"})


@pytest.fixture
def remote() -> Client:
    """A browser elsewhere."""
    return Client(REMOTE_ADDR="192.0.2.7", headers={"host": "localhost"})


@pytest.fixture
def user(django_user_model):
    """Somebody with an account and no further rights."""
    return django_user_model.objects.create_user("maria", password="rosa-dos-ventos")


@pytest.fixture
def gallery(weights: str) -> list[FaceImage]:
    """Ana and <Bia>, one searchable picture each."""
    return [
        enroll("123.456", "Ana", draw_picture(seed=1)),
        enroll("<b>bia</b>", "", draw_picture(seed=2, colour="navy", format="PNG")),
    ]


def enroll(person_id: str, name: str, content: bytes) -> FaceImage:
    upload = Upload("picture.jpg", io.BytesIO(content), f"D:/gate/{person_id}.jpg")
    enrollment = enroll_pictures(
        person_id=person_id, name=name, uploads=[upload], source="api", use_face_detection=False
    )
    (outcome,) = enrollment.outcomes
    assert outcome.face_image, outcome.error
    return outcome.face_image


def ask(client: Client, content: bytes | None, filename: str = "who.jpg", **fields: object):
    data: dict[str, object] = {"model": "mobilenetv3_large", "top_k": 5} | fields
    if content is not None:
        data["image"] = SimpleUploadedFile(filename, content)
    return client.post("/", data)


class Markup(HTMLParser):
    """What a page is made of: (tag, attributes) of every element."""

    def __init__(self, response) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(response.content.decode())

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))

    def find(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]


# A search that finds somebody


def test_search_shows_most_similar_first(local, gallery) -> None:
    response = ask(local, draw_picture(seed=1))
    assert response.status_code == 200
    best, other = response.context["hits"]
    assert best.hit.face_image == gallery[0]
    assert best.percent > 99.9 > other.percent
    for shown in ("Ana", "123.456", "100.0%", "D:/gate/123.456.jpg", "The 2 most similar faces"):
        assert shown in response.text
    assert Markup(response).find("img", src=f"/pictures/{gallery[0].pk}?size=thumb")


def test_person_id_is_shown_as_text(local, gallery) -> None:
    response = ask(local, draw_picture(seed=1))
    assert "&lt;b&gt;bia&lt;/b&gt;" in response.text
    assert "<b>bia" not in response.text


def test_bar_is_as_long_as_the_similarity(local, gallery) -> None:
    response = ask(local, draw_picture(seed=1), headers={"accept-language": "pt-BR"})
    widths = [float(bar["width"]) for bar in Markup(response).find("rect", height="1")]
    expected = [shown.percent for shown in response.context["hits"]]
    assert widths == pytest.approx(expected, abs=0.06)


def test_whole_picture_is_said_to_be_compared(local, gallery) -> None:
    response = ask(local, draw_picture(seed=1))
    assert "No face was found, so the whole picture was compared." in response.text
    assert not Markup(response).find("rect", **{"class": "box"})


def test_found_face_is_framed(local, gallery, faces: Path) -> None:
    photo = next(path for path in sorted(faces.glob("Ann_Veneman/*.jpg")))
    response = ask(local, photo.read_bytes())
    (box,) = Markup(response).find("rect", **{"class": "box"})
    probe = response.context["probe"]
    assert 0 <= float(box["x"]) < float(box["x"]) + float(box["width"]) <= probe.width
    assert "The face in the frame was compared." in response.text


def test_large_photo_is_scaled_for_the_page(local, gallery) -> None:
    probe = ask(local, draw_picture((2400, 1600))).context["probe"]
    with Image.open(io.BytesIO(b64decode(probe.uri.partition(",")[2]))) as shown:
        assert shown.size == (800, 533)
    assert (probe.width, probe.height) == (2400, 1600)


def test_probe_is_not_stored(local, gallery, settings) -> None:
    before = sorted(Path(settings.MEDIA_ROOT).rglob("*"))
    ask(local, draw_picture(seed=5))
    assert sorted(Path(settings.MEDIA_ROOT).rglob("*")) == before
    assert FaceImage.objects.count() == 2


def test_top_k_limits_the_hits(local, gallery) -> None:
    response = ask(local, draw_picture(seed=1), top_k=1)
    assert len(response.context["hits"]) == 1
    assert "The most similar face<" in response.text


def test_script_gets_the_results_only(local, gallery) -> None:
    image = SimpleUploadedFile("who.jpg", draw_picture(seed=1))
    fields = {"model": "mobilenetv3_large", "top_k": 5, "image": image}
    response = local.post("/", fields, headers={"x-fragment": "1"})
    assert response.headers["X-Fragment"] == "1"
    assert "<html" not in response.text
    assert "Ana" in response.text


# A search that cannot


@pytest.mark.parametrize("top_k", ["0", "51", "many", ""])
def test_top_k_out_of_bounds_is_refused(local, picture: bytes, top_k: str) -> None:
    response = ask(local, picture, top_k=top_k)
    assert response.status_code == 400
    assert "The number of results must be a whole number from 1 to 50." in response.text


@pytest.mark.parametrize(
    ("content", "filename", "sentence"),
    [
        pytest.param(None, "", "No picture was chosen.", id="no-file"),
        pytest.param(b"", "who.jpg", "The file is empty.", id="empty"),
        pytest.param(b"<html>no</html>", "who.jpg", "The file is of type HTML;", id="html"),
        pytest.param(draw_picture()[:900], "who.jpg", "damaged or incomplete", id="truncated"),
        pytest.param(draw_picture(), "who.exe", "“exe” is not accepted", id="extension"),
    ],
)
def test_bad_file_is_explained(local, content, filename: str, sentence: str) -> None:
    response = ask(local, content, filename)
    assert response.status_code == 400
    assert sentence in response.text


def test_file_above_the_limit_is_refused(local, picture: bytes, settings) -> None:
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_REQUEST_BYTES": 2048}
    response = ask(local, picture + bytes(2048))
    assert response.status_code == 400
    assert "at most 2.0\xa0KB are accepted" in response.text


def test_empty_gallery_leads_to_the_admin(local, picture: bytes) -> None:
    for response in (local.get("/"), ask(local, picture)):
        assert response.status_code == 200
        assert "The gallery is empty" in response.text
        assert Markup(response).find("a", href="/admin/enrollment/person/add/")
        assert "was compared" not in response.text


def test_unindexed_gallery_says_so(local, picture: bytes, weights: str) -> None:
    person = Person.objects.create(person_id="ana")
    FaceImage.objects.create(person=person, image="pictures/waiting.jpg")  # never committed
    response = ask(local, picture)
    assert response.status_code == 200
    assert "none of their pictures is indexed for this model yet" in response.text


def test_model_without_weights_is_disabled(local, gallery, picture: bytes) -> None:
    page = Markup(local.get("/"))
    assert "disabled" in page.find("input", value="cosface_resnet50")[0]
    assert "checked" in page.find("input", value="mobilenetv3_large")[0]
    assert "no weights file resnet50_cosface.ckpt" in local.get("/").text
    response = ask(local, picture, model="cosface_resnet50")
    assert response.status_code == 503
    assert "This model is not ready" in response.text


def test_unknown_model_is_refused(local, picture: bytes) -> None:
    response = ask(local, picture, model="<facenet>")
    assert response.status_code == 400
    assert "There is no model “&lt;facenet&gt;”." in response.text


def test_locked_vector_store_is_explained(local, gallery, picture, settings, tmp_path) -> None:
    uri = str(tmp_path / "taken.db")
    holder = MilvusVectorStore(uri)
    holder.ping()
    settings.RECOGNITION = settings.RECOGNITION | {"MILVUS_URI": uri}
    try:
        response = ask(local, picture)
    finally:
        holder.close()
    assert response.status_code == 503
    assert "Another program is using the gallery" in response.text
    assert str(tmp_path) not in response.text


def test_unreachable_vector_store_is_explained(local, gallery, picture, settings) -> None:
    settings.RECOGNITION = settings.RECOGNITION | {"MILVUS_URI": "http://127.0.0.1:9"}
    response = ask(local, picture)
    assert response.status_code == 503
    assert "The gallery cannot be searched now" in response.text


# Who may


def test_stranger_is_sent_to_the_login(remote, gallery, picture: bytes) -> None:
    assert remote.get("/").headers["Location"] == "/login?next=/"
    assert ask(remote, picture).headers["Location"] == "/login?next=/"
    stored = gallery[0].get_absolute_url()
    assert remote.get(stored).headers["Location"] == f"/login?next={stored}"


def test_user_without_rights_logs_in_and_searches(remote, gallery, user) -> None:
    credentials = {"username": "maria", "password": "rosa-dos-ventos", "next": "/"}
    assert remote.post("/login", credentials).headers["Location"] == "/"
    response = ask(remote, draw_picture(seed=1))
    assert "Ana" in response.text
    assert "/admin/" not in response.text
    remote.post("/logout")
    assert remote.get("/").status_code == 302


def test_wrong_password_is_told(remote, user) -> None:
    response = remote.post("/login", {"username": "maria", "password": "no"})
    assert response.status_code == 200
    assert Markup(response).find("div", role="alert")


def test_superuser_gets_from_hit_to_admin(local, gallery, admin_user) -> None:
    local.force_login(admin_user)
    response = ask(local, draw_picture(seed=1))
    assert f"/admin/enrollment/person/{gallery[0].person.pk}/change/" in response.text


def test_post_without_csrf_token_is_refused(picture: bytes) -> None:
    response = ask(Client(enforce_csrf_checks=True, headers={"host": "localhost"}), picture)
    assert response.status_code == 403
    assert "The form was too old or came from elsewhere" in response.text


# Stored pictures


def test_stored_picture_is_sent(local, gallery) -> None:
    jpeg, png = (local.get(face_image.get_absolute_url()) for face_image in gallery)
    assert jpeg.headers["Content-Type"] == "image/jpeg"
    assert png.headers["Content-Type"] == "image/png"
    with gallery[0].image.open() as stored:
        assert jpeg.content == stored.read()
    assert jpeg.headers["X-Content-Type-Options"] == "nosniff"
    assert jpeg.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "private" in jpeg.headers["Cache-Control"]


def test_unchanged_picture_is_not_sent_again(local, gallery) -> None:
    url = gallery[0].get_absolute_url()
    etag = local.get(url).headers["ETag"]
    again = local.get(url, headers={"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")
    thumbnail = local.get(f"{url}?size=thumb", headers={"if-none-match": etag})
    assert thumbnail.status_code == 200


def test_thumbnail_is_small_and_upright(local, weights: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    face_image = enroll("ana", "", draw_picture((1200, 600), exif=exif))
    response = local.get(face_image.get_absolute_url(), {"size": "thumb"})
    assert response.headers["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(response.content)) as thumbnail:
        assert thumbnail.size == (160, 320)


@pytest.mark.parametrize("size", ["", "thumb"])
def test_missing_file_is_a_plain_404(local, gallery, size: str) -> None:
    gallery[0].image.storage.delete(gallery[0].image.name)
    response = local.get(gallery[0].get_absolute_url(), {"size": size})
    assert response.status_code == 404
    assert response.headers["Content-Type"].startswith("text/plain")
    assert "cannot be read" in response.text
    assert "pictures/" not in response.text


def test_damaged_file_has_no_thumbnail(local, gallery) -> None:
    storage, name = gallery[0].image.storage, gallery[0].image.name
    Path(storage.path(name)).write_bytes(b"not a picture")
    response = local.get(gallery[0].get_absolute_url(), {"size": "thumb"})
    assert (response.status_code, response.text) == (
        404,
        "The stored file of this picture is damaged.",
    )


def test_unknown_picture_is_a_404_page(local) -> None:
    response = local.get("/pictures/999")
    assert response.status_code == 404
    assert "There is nothing here" in response.text


def test_other_site_cannot_embed_a_picture(local, gallery) -> None:
    url = gallery[0].get_absolute_url()
    assert local.get(url, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert local.get(url, headers={"origin": "https://elsewhere.example"}).status_code == 403


def test_api_token_opens_a_picture(remote, gallery, user) -> None:
    url, token = gallery[0].get_absolute_url(), Token.objects.create(user=user)
    assert remote.get(url, headers={"authorization": f"Token {token}"}).status_code == 200
    assert remote.get(url, headers={"authorization": "Token wrong"}).status_code == 403


# Every page


@pytest.mark.parametrize("address", ["/", "/login", "/nowhere", "search"])
def test_page_has_nothing_inline(local, gallery, address: str) -> None:
    response = ask(local, draw_picture(seed=1)) if address == "search" else local.get(address)
    for tag, attributes in Markup(response).elements:
        assert tag != "style"
        assert tag != "script" or attributes.get("src")
        assert not [name for name in attributes if name == "style" or name.startswith("on")]


@pytest.mark.parametrize(
    "address",
    ["/", "/login", "/nowhere", "/pictures/1", "/admin/login/", "/api/docs", "/api/models"],
)
def test_every_answer_forbids_what_is_not_from_here(local, address: str) -> None:
    policy = local.get(address, headers={"accept": "text/html"}).headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy
    assert ("unsafe" in policy) == address.startswith("/api/")


def test_language_follows_the_browser_and_the_switch(local, gallery) -> None:
    portuguese = {"accept-language": "pt-BR,pt;q=0.9"}
    assert '<html lang="pt-br">' in local.get("/", headers=portuguese).text
    local.post("/i18n/setlang/", {"language": "pt-br", "next": "/"})
    response = ask(local, draw_picture(seed=1))
    assert '<html lang="pt-br">' in response.text
    assert "100,0%" in response.text


def test_failing_server_says_so_without_a_trace(local, picture: bytes, monkeypatch) -> None:
    local.raise_request_exception = False
    monkeypatch.setattr("enrollment.views.gallery_is_empty", lambda: 1 / 0)
    response = local.get("/")
    assert response.status_code == 500
    assert "The server failed" in response.text
    assert "ZeroDivisionError" not in response.text
