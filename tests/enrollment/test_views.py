"""The search page, stored pictures and login, in a browser without JavaScript."""

from __future__ import annotations

import io
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from django.contrib.auth.models import Permission
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils.html import strip_tags
from PIL import Image, ImageEnhance
from rest_framework.authtoken.models import Token

from enrollment.enrolling.inspection import Upload
from enrollment.enrolling.services import enroll_pictures
from enrollment.gallery.selectors import SearchHit
from enrollment.models import FaceEmbedding, FaceImage, Person
from enrollment.pages.query_pictures import NumberMark, QueryFace
from recognition.decision import Thresholds, decide
from recognition.detection import Face
from recognition.networks.descriptor import Threshold
from recognition.vector_store import LiteVectorStore
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face, draw_group
from tests.pictures import draw_picture

pytestmark = pytest.mark.django_db

ANA, BIA = (as_jpeg(draw_face(person)) for person in PEOPLE[:2])
THRESHOLDS = Thresholds(Threshold(0.6, 0.001, 100_000), Threshold(0.4, 0.01, 100_000))


@pytest.fixture
def remote() -> Client:
    """A browser on another machine."""
    return Client(REMOTE_ADDR="192.0.2.7", headers={"host": "localhost"})


@pytest.fixture
def picture() -> bytes:
    """A picture with a face, because one without gets no answer."""
    return ANA


@pytest.fixture
def user(django_user_model):
    """An account without any permission."""
    return django_user_model.objects.create_user("maria", password="rosa-dos-ventos")


@pytest.fixture
def gallery(weights: str) -> list[FaceImage]:
    """Ana and <Bia>, one searchable picture each."""
    return [
        enroll("123.456", "Ana", ANA),
        enroll("<b>bia</b>", "", BIA),
    ]


@pytest.fixture
def stored(db) -> list[FaceImage]:
    """A JPEG and a PNG of Ana without vectors."""
    ana = Person.objects.create(person_id="ana")
    contents = {"a.jpg": draw_picture(seed=1), "b.png": draw_picture(format="PNG")}
    return [
        FaceImage.objects.create(person=ana, image=ContentFile(content, name))
        for name, content in contents.items()
    ]


def enroll(person_id: str, name: str, content: bytes) -> FaceImage:
    upload = Upload(person_id, "picture.jpg", content, f"D:/gate/{person_id}.jpg", name)
    (outcome,) = enroll_pictures([upload], source="api")
    assert outcome.face_image, outcome.error
    return outcome.face_image


def ask(client: Client, *contents: bytes, filename: str = "who.jpg", headers=None, **fields):
    data = {"model": "mobilenetv3_large", "top_k": 5, "group_by_person": "on"} | fields
    data["images"] = [SimpleUploadedFile(filename, content) for content in contents]
    return client.post("/", data, headers=headers)


def faces_of(response) -> list[QueryFace]:
    """Return every face of every picture in the answer."""
    return [face for picture in response.context["pictures"] for face in picture.faces]


def given_hit(monkeypatch, face_image: FaceImage, similarity: float, thresholds) -> SearchHit:
    """Make every search find only this picture, with this similarity."""
    hit = SearchHit(1, similarity, decide(similarity, thresholds), face_image)
    monkeypatch.setattr(
        "enrollment.pages.identification.search_gallery",
        lambda probe, *_args, **_options: [[hit] for _vector in probe.vectors],
    )
    monkeypatch.setattr(
        "enrollment.pages.identification.search_thresholds", lambda _model: thresholds
    )
    return hit


class Markup(HTMLParser):
    """The elements of a page, as (tag, attributes)."""

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
    response = ask(local, ANA)
    assert response.status_code == 200
    (face,) = faces_of(response)
    best, other = face.hits
    assert best.hit.face_image == gallery[0]
    assert best.similarity > 0.999 > other.similarity
    for shown in ("Ana", "123.456", "1.000", "D:/gate/123.456.jpg", "· API"):
        assert shown in response.text
    page = Markup(response)
    assert page.find("img", src=f"/pictures/{gallery[0].pk}?size=face")
    assert page.find("a", href=f"/people/{gallery[0].person.pk}/")


def test_person_id_is_shown_as_text(local, gallery) -> None:
    response = ask(local, ANA)
    assert "&lt;b&gt;bia&lt;/b&gt;" in response.text
    assert "<b>bia" not in response.text


def test_bar_is_as_long_as_the_similarity(local, gallery) -> None:
    response = ask(local, ANA, headers={"accept-language": "pt-BR"})
    widths = [float(bar["width"]) for bar in Markup(response).find("rect", **{"class": "value"})]
    expected = [hit.similarity for face in faces_of(response) for hit in face.hits]
    assert widths == pytest.approx(expected, abs=0.0006)


def test_every_face_is_framed_and_numbered(local, gallery) -> None:
    response = ask(local, as_jpeg(draw_group()))
    (picture,) = response.context["pictures"]
    page = Markup(response)
    boxes = page.find("rect", **{"class": "box"})
    assert len(boxes) == len(picture.faces) == 3
    for box in boxes:
        assert 0 <= float(box["x"]) < float(box["x"]) + float(box["width"]) <= picture.width
    assert len(page.find("circle", **{"class": "box-disc"})) == 3
    assert "3 faces were found and compared" in response.text
    for face in picture.faces:
        assert page.find("a", href=f"#face-{face.key}")
        assert page.find("section", id=f"face-{face.key}")
        assert {hit.hit.face_image for hit in face.hits} == set(gallery)


def test_large_photo_is_scaled_for_the_page(local, gallery) -> None:
    photo = Image.new("RGB", (2400, 1600), "tan")
    photo.paste(draw_face(PEOPLE[0], side=1200), (600, 200))
    (picture,) = ask(local, as_jpeg(photo)).context["pictures"]
    with Image.open(io.BytesIO(b64decode(picture.uri.partition(",")[2]))) as shown:
        assert shown.size == (800, 533)
    assert (picture.width, picture.height) == (2400, 1600)


def test_several_pictures_are_answered_one_by_one(local, gallery) -> None:
    response = ask(local, ANA, b"<html>", BIA)
    assert response.status_code == 200
    first, bad, last = response.context["pictures"]
    assert first.faces[0].best.hit.face_image == gallery[0]
    assert "The file is of type HTML" in bad.messages[0]
    assert last.faces[0].best.hit.face_image == gallery[1]
    assert len(Markup(response).find("article")) == 2


def test_a_person_is_shown_once_or_with_every_picture(local, gallery) -> None:
    enroll("123.456", "Ana", as_jpeg(draw_face(PEOPLE[0], 1)))
    (once,) = faces_of(ask(local, ANA))
    assert [hit.hit.person.person_id for hit in once.hits] == ["123.456", "<b>bia</b>"]
    (every,) = faces_of(ask(local, ANA, group_by_person=""))
    assert len(every.hits) == 3


# What the similarity means


@pytest.mark.parametrize(
    ("similarity", "headline", "badge"),
    [
        pytest.param(0.7, "Ana", "Match", id="match"),
        pytest.param(0.5, "Perhaps Ana", "Look closely", id="review"),
        pytest.param(0.3, "Nobody known", "Unknown", id="unknown"),
    ],
)
def test_verdict_is_said_in_words(local, gallery, monkeypatch, similarity, headline, badge) -> None:
    best = given_hit(monkeypatch, gallery[0], similarity, THRESHOLDS)
    response = ask(local, ANA)
    text = " ".join(strip_tags(response.text).split())
    assert f"{headline} {badge}" in text
    assert f"{best.similarity:.3f}" in text
    assert "Match from a similarity of 0.600, look closely from 0.400." in text
    assert "Of 1,000 comparisons of different people, about one reaches a match." in text


def test_nobody_known_hides_the_nearest_but_keeps_them(local, gallery, monkeypatch) -> None:
    given_hit(monkeypatch, gallery[0], 0.1, THRESHOLDS)
    response = ask(local, ANA)
    assert "Show the nearest face all the same" in response.text
    assert Markup(response).find("details", **{"class": "unlikely"})


def test_unmeasured_weights_give_no_verdict(local, gallery, monkeypatch) -> None:
    given_hit(monkeypatch, gallery[0], 0.9, None)
    response = ask(local, ANA)
    assert "so there is no verdict: the similarity only puts" in response.text
    assert "Nearest: Ana" in response.text
    assert "No verdict" in response.text


def test_doubtful_face_is_said_to_be(local, gallery) -> None:
    dark = ImageEnhance.Brightness(draw_face(PEOPLE[0])).enhance(0.2)
    response = ask(local, as_jpeg(dark))
    assert "The face is too dark" in response.text
    assert "Trust the answer less" in response.text


def test_probe_is_not_stored(local, gallery, settings) -> None:
    before = sorted(Path(settings.MEDIA_ROOT).rglob("*"))
    ask(local, ANA)
    assert sorted(Path(settings.MEDIA_ROOT).rglob("*")) == before
    assert FaceImage.objects.count() == 2


@pytest.mark.parametrize("path", ["/compare", "/people/", "/inbox/", "/people/new"])
def test_only_the_search_says_for_how_long_an_answer_is_kept(local, db, path: str) -> None:
    """No other page keeps one."""
    said = "An answer and its pictures are kept"
    assert said in local.get("/").text
    assert said not in local.get(path).text


def test_top_k_limits_the_hits(local, gallery) -> None:
    (face,) = faces_of(ask(local, ANA, top_k=1))
    assert len(face.hits) == 1


def test_script_gets_the_results_only(local, gallery) -> None:
    response = ask(local, ANA, headers={"x-fragment": "1"})
    assert response.headers["X-Fragment"] == "1"
    assert "<html" not in response.text
    assert "Ana" in response.text


# A search that cannot


@pytest.mark.parametrize("top_k", ["51", "many"])
def test_top_k_out_of_bounds_is_refused(local, picture: bytes, top_k: str) -> None:
    response = ask(local, picture, top_k=top_k)
    assert response.status_code == 400
    assert "The number of results must be a whole number from 1 to 50." in response.text


@pytest.mark.parametrize(
    ("content", "filename", "sentence"),
    [
        pytest.param(b"", "who.jpg", "The file is empty.", id="empty"),
        pytest.param(b"<html>no</html>", "who.jpg", "The file is of type HTML;", id="html"),
        pytest.param(draw_picture()[:900], "who.jpg", "damaged or incomplete", id="truncated"),
    ],
)
def test_bad_file_is_explained(local, content, filename: str, sentence: str) -> None:
    response = ask(local, content, filename=filename)
    assert response.status_code == 400
    assert sentence in response.text


def test_no_file_and_too_many_are_refused(local, picture: bytes, settings) -> None:
    assert "No picture was chosen." in ask(local).text
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_BATCH_SIZE": 2}
    response = ask(local, picture, picture, picture)
    assert response.status_code == 400
    assert "3 pictures were chosen; at most 2 are searched at once." in response.text


def test_file_above_the_limit_is_refused(local, picture: bytes, settings) -> None:
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_REQUEST_BYTES": 2048}
    response = ask(local, picture + bytes(2048))
    assert response.status_code == 400
    assert "at most 2.0\xa0KB are accepted" in response.text


def test_empty_gallery_leads_to_the_form_for_a_person(local, picture: bytes) -> None:
    for response in (local.get("/"), ask(local, picture)):
        assert response.status_code == 200
        assert "The gallery is empty" in response.text
        assert Markup(response).find("a", href="/people/new")
        assert "was compared" not in response.text


def test_first_person_leads_to_the_first_search(local) -> None:
    first = Person.objects.create(person_id="ana")
    page = f"/people/{first.pk}/"
    assert "Now search" not in local.get(page).text
    FaceImage.objects.bulk_create([FaceImage(person=first, image="pictures/a.jpg")])
    shown = local.get(page)
    assert "Now search" in shown.text and Markup(shown).find("a", href="/")
    other = Person.objects.create(person_id="bia")
    FaceImage.objects.bulk_create([FaceImage(person=other, image="pictures/b.jpg")])
    assert "Now search" not in local.get(page).text


def test_unindexed_gallery_says_so(local, picture: bytes, weights: str) -> None:
    person = Person.objects.create(person_id="ana")
    FaceImage.objects.create(person=person, image="pictures/waiting.jpg")  # never committed
    response = ask(local, picture)
    assert response.status_code == 200
    assert "none of their pictures is searchable with this model yet" in response.text


def test_model_without_weights_is_disabled(local, gallery, picture: bytes) -> None:
    page = Markup(local.get("/"))
    assert "disabled" in page.find("input", value="cosface_resnet50")[0]
    assert "checked" in page.find("input", value="mobilenetv3_large")[0]
    assert "the administrator has not installed it" in local.get("/").text
    response = ask(local, picture, model="cosface_resnet50")
    assert response.status_code == 503
    assert "This model is not ready" in response.text


def test_unknown_model_is_refused(local, picture: bytes) -> None:
    response = ask(local, picture, model="<facenet>")
    assert response.status_code == 400
    assert "There is no model “&lt;facenet&gt;”." in response.text


def test_locked_vector_store_is_explained(local, gallery, picture, settings, tmp_path) -> None:
    uri = str(tmp_path / "taken.db")
    holder = LiteVectorStore(uri)
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


@pytest.mark.parametrize("x", [0, 500, 960])
@pytest.mark.parametrize("y", [0, 400, 760])
def test_a_number_hides_no_small_face(x: int, y: int) -> None:
    face = Face((x, y, 40, 40), 1.0, np.zeros((5, 2)))
    mark = NumberMark.beside(face, 1000, 800)
    assert mark.radius <= mark.x <= 1000 - mark.radius
    assert mark.radius <= mark.y <= 800 - mark.radius
    assert np.hypot(mark.x - x - 20, mark.y - y - 20) > mark.radius + 20


# Comparing two pictures


def compare(client: Client, **contents: bytes):
    data = {name: SimpleUploadedFile(f"{name}.jpg", content) for name, content in contents.items()}
    return client.post("/compare", data | {"model": "mobilenetv3_large"})


def test_the_same_picture_is_the_same_person(local, picture: bytes, weights: str) -> None:
    response = compare(local, source=picture, target=picture)
    assert response.status_code == 200
    assert response.context["comparison"].largest.similarity > 0.999
    assert "The same person" in response.text
    assert "Match from" in response.text


def test_a_picture_without_a_face_is_not_compared(local, weights: str) -> None:
    response = compare(local, source=draw_picture(), target=ANA)
    assert response.status_code == 422
    assert "No face was found" in response.text and "source.jpg" in response.text
    assert "comparison" not in response.context


def test_each_face_is_compared_with_each(local, weights: str) -> None:
    group = as_jpeg(draw_group())
    response = compare(local, source=group, target=as_jpeg(draw_face(PEOPLE[1])))
    comparison = response.context["comparison"]
    assert [len(row) for row in comparison.rows] == [1, 1, 1]
    best = max((row[0] for row in comparison.rows), key=lambda pair: pair.similarity)
    left_to_right = sorted(comparison.source.faces, key=lambda face: face.box[0])
    assert best.source is left_to_right[1]
    assert "Every face with every other" in response.text
    assert len(Markup(response).find("th", scope="row")) == 3


def test_comparison_says_which_picture_is_missing_or_bad(local, picture: bytes) -> None:
    response = compare(local, source=picture)
    assert response.status_code == 400
    assert "The second picture is missing." in response.text
    response = compare(local, source=picture, target=b"<html>")
    assert response.status_code == 400
    assert "target.jpg" in response.text
    assert "The file is of type HTML" in response.text


# Who may


def test_stranger_is_sent_to_the_login(remote, stored, picture: bytes) -> None:
    assert remote.get("/").headers["Location"] == "/login?next=/"
    assert remote.get("/compare").headers["Location"] == "/login?next=/compare"
    assert ask(remote, picture).headers["Location"] == "/login?next=/"
    url = stored[0].get_absolute_url()
    assert remote.get(url).headers["Location"] == f"/login?next={url}"


def test_user_without_rights_logs_in_and_searches(remote, gallery, user) -> None:
    credentials = {"username": "maria", "password": "rosa-dos-ventos", "next": "/"}
    assert remote.post("/login", credentials).headers["Location"] == "/"
    response = ask(remote, ANA)
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
    response = ask(local, ANA)
    assert f"/admin/enrollment/person/{gallery[0].person.pk}/change/" in response.text


def test_post_without_csrf_token_is_refused(picture: bytes) -> None:
    response = ask(Client(enforce_csrf_checks=True, headers={"host": "localhost"}), picture)
    assert response.status_code == 403
    assert "The form was too old or came from elsewhere" in response.text


# Stored pictures


def test_stored_picture_is_sent(local, stored) -> None:
    jpeg, png = (local.get(face_image.get_absolute_url()) for face_image in stored)
    assert jpeg.headers["Content-Type"] == "image/jpeg"
    assert png.headers["Content-Type"] == "image/png"
    with stored[0].image.open() as file:
        assert jpeg.content == file.read()
    assert jpeg.headers["X-Content-Type-Options"] == "nosniff"
    assert jpeg.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "private" in jpeg.headers["Cache-Control"]


def test_unchanged_picture_is_not_sent_again(local, stored) -> None:
    url = stored[0].get_absolute_url()
    etag = local.get(url).headers["ETag"]
    again = local.get(url, headers={"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")
    thumbnail = local.get(f"{url}?size=thumb", headers={"if-none-match": etag})
    assert thumbnail.status_code == 200


@pytest.mark.parametrize(("size", "side"), [("thumb", 320), ("icon", 160)])
def test_thumbnail_is_small_and_upright(local, stored, size: str, side: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    turned = ContentFile(draw_picture((1200, 600), exif=exif), "c.jpg")
    face_image = FaceImage.objects.create(person=stored[0].person, image=turned)
    response = local.get(face_image.get_absolute_url(), {"size": size})
    assert response.headers["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(response.content)) as thumbnail:
        assert thumbnail.size == (side // 2, side)


def test_face_is_cut_from_the_stored_picture(local, stored) -> None:
    FaceEmbedding.objects.create(face_image=stored[0], face={"box": [10, 40, 60, 60]})
    response = local.get(stored[0].get_absolute_url(), {"size": "face"})
    with Image.open(io.BytesIO(response.content)) as face:
        assert face.size == (85, 90)  # three halves of the box, less what lies outside
    assert local.get(stored[1].get_absolute_url(), {"size": "face"}).status_code == 200


@pytest.mark.parametrize("size", ["", "thumb", "face"])
def test_missing_file_is_a_plain_404(local, stored, size: str) -> None:
    stored[0].image.storage.delete(stored[0].image.name)
    response = local.get(stored[0].get_absolute_url(), {"size": size})
    assert response.status_code == 404
    assert response.headers["Content-Type"].startswith("text/plain")
    assert "is missing" in response.text
    assert "pictures/" not in response.text


def test_damaged_file_has_no_thumbnail(local, stored) -> None:
    storage, name = stored[0].image.storage, stored[0].image.name
    Path(storage.path(name)).write_bytes(b"not a picture")
    response = local.get(stored[0].get_absolute_url(), {"size": "thumb"})
    assert (response.status_code, response.text) == (
        404,
        "The stored file of this picture is damaged.",
    )


def test_unknown_picture_is_a_404_page(local) -> None:
    response = local.get("/pictures/999")
    assert response.status_code == 404
    assert "There is nothing here" in response.text


def test_other_site_cannot_embed_a_picture(local, stored) -> None:
    url = stored[0].get_absolute_url()
    assert local.get(url, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert local.get(url, headers={"origin": "https://elsewhere.example"}).status_code == 403


def test_api_token_opens_a_picture(remote, stored, user) -> None:
    url, token = stored[0].get_absolute_url(), Token.objects.create(user=user)
    user.user_permissions.add(Permission.objects.get(codename="view_person"))
    assert remote.get(url, headers={"authorization": f"Token {token}"}).status_code == 200
    assert remote.get(url, headers={"authorization": "Token wrong"}).status_code == 403


# Every page


@pytest.mark.parametrize("address", ["/", "/compare", "/login", "/nowhere", "search"])
def test_page_has_nothing_inline(local, gallery, address: str) -> None:
    response = ask(local, ANA) if address == "search" else local.get(address)
    for tag, attributes in Markup(response).elements:
        assert tag != "style"
        assert tag != "script" or attributes.get("src")
        assert not [name for name in attributes if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("address", ["/", "/nowhere", "/admin/login/", "/api/docs"])
def test_every_answer_forbids_what_is_not_from_here(local, address: str) -> None:
    policy = local.get(address, headers={"accept": "text/html"}).headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy
    assert ("unsafe" in policy) == (address == "/api/docs")
    assert policy.split("; ") == sorted(policy.split("; "))  # the same at each start


def test_language_follows_the_browser_and_the_switch(local, gallery) -> None:
    portuguese = {"accept-language": "pt-BR,pt;q=0.9"}
    assert '<html lang="pt-br">' in local.get("/", headers=portuguese).text
    local.post("/i18n/setlang/", {"language": "pt-br", "next": "/"})
    response = ask(local, ANA)
    assert '<html lang="pt-br">' in response.text
    assert "similaridade 1,000" in response.text


def test_failing_server_says_so_without_a_trace(local, picture: bytes, monkeypatch) -> None:
    local.raise_request_exception = False
    monkeypatch.setattr("enrollment.pages.views.gallery_is_empty", lambda: 1 / 0)
    response = local.get("/")
    assert response.status_code == 500
    assert "The server failed" in response.text
    assert "ZeroDivisionError" not in response.text
