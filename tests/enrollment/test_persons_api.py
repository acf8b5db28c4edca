"""The endpoints for persons: list, create, read, change, delete, merge, and their pictures."""

from __future__ import annotations

import itertools
from datetime import timedelta
from urllib.parse import quote, unquote, urlsplit

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from rest_framework.authtoken.models import Token

from enrollment import corrections
from enrollment.corrections import delete_person
from enrollment.enrolling import services
from enrollment.models import FaceImage, ImportJob, Person
from tests.enrollment.gallery import enroll, found, stored
from tests.pictures import draw_picture, upload
from tests.test_api_schema import check, document, operations  # noqa: F401 (a fixture)

pytestmark = pytest.mark.django_db

PERSONS = "/api/persons"
ODD_IDS = ["a/b", "ç %\"'", "a/images", "a/", "50%2Foff", "x/images/1/merge", "李雷", "n" * 200]


@pytest.fixture
def call(api):
    """Send a request like a program: encoded path, raw path as the server provides it, JSON body."""

    def call(method: str, path: str, data=None, format: str = "json", **extra):
        send = getattr(api, method)
        options = {"format": format} if method not in ("get", "delete") else {}
        return send(path, data, REQUEST_URI=path, **options, **extra)

    return call


def at(person_id: str, rest: str = "") -> str:
    return f"{PERSONS}/{quote(person_id, safe='')}{rest}"


def test_nul_in_an_address_names_nobody(call):
    """It stands for an encoded slash inside: whoever asked for `a%00b` was told of, or deleted, `a/b`."""
    Person.objects.create(person_id="a/b")
    Person.objects.create(person_id="a/b/c")
    for method, path in itertools.product(("get", "delete"), ("a%00b", "a%2Fb%00c")):
        response = call(method, f"{PERSONS}/{path}")
        assert (response.status_code, response.json()["error"]) == (404, "person_not_found")
    assert call("get", at("a/b")).status_code == 200


def test_life_of_a_person(call, commits):
    made = call("post", PERSONS, {"person_id": " ana ", "name": "Ana"})
    assert made.status_code == 201, made.content
    body = made.json()
    assert (body["person_id"], body["name"], body["picture_count"]) == ("ana", "Ana", 0)
    assert body["cover"] is None and body["cover_url"] is None
    assert made["Location"] == body["url"] == "http://localhost/api/persons/ana"

    form = {"images": [upload()], "use_face_detection": "false"}
    added = call("post", at("ana", "/images"), form, format="multipart")
    assert added.status_code == 200 and added.json()["inserted_count"] == 1
    read = call("get", at("ana")).json()
    assert read["picture_count"] == 1 and read["cover"] is None
    (picture,) = call("get", at("ana", "/images")).json()["results"]
    assert [row["status"] for row in picture["embeddings"]] == ["indexed"]

    with commits():
        changed = call("patch", at("ana"), {"person_id": "ana/2", "cover": picture["id"]})
    assert changed.json()["url"] == "http://localhost/api/persons/ana%2F2"
    assert changed.json()["cover"] == picture["id"] and changed.json()["name"] == "Ana"
    assert [row.person_id for row in stored()] == ["ana/2"]

    with commits():
        deleted = call("delete", at("ana/2"))
    body = deleted.json()
    assert body["success"] and (body["person_id"], body["deleted_pictures"]) == ("ana/2", 1)
    assert body["undo"] and parse_datetime(body["undo_until"]) > timezone.now() + timedelta(days=6)
    assert stored() == [] and call("get", at("ana/2")).status_code == 404


@pytest.mark.parametrize("person_id", ODD_IDS)
def test_any_id_can_be_addressed(call, person_id):
    slash = "/" if len(person_id) % 2 else ""  # both are answered
    made = call("post", PERSONS, {"person_id": person_id})
    assert call("get", made.json()["url"].removeprefix("http://localhost")).status_code == 200
    assert call("get", at(person_id, slash)).json()["person_id"] == person_id
    assert call("get", at(person_id, "/images" + slash)).json()["count"] == 0
    assert call("patch", at(person_id, slash), {"name": "N"}).json()["name"] == "N"
    assert call("delete", at(person_id, slash)).status_code == 200


def test_plain_slashes_are_part_of_the_id_too(api, db):
    """As sent by a client that does not encode, or by a server without raw paths."""
    Person.objects.create(person_id="gate/7")
    assert api.get("/api/persons/gate/7").json()["person_id"] == "gate/7"
    assert api.get("/api/persons/gate/7/images").json()["count"] == 0


def test_list_is_searched_sorted_and_cut_into_pages(call, django_assert_max_num_queries):
    for number, name in enumerate(["Ana Lima", "Bia Lima", "Caio", ""]):
        Person.objects.create(person_id=f"p{number}", name=name)
    with django_assert_max_num_queries(3):
        first = call("get", f"{PERSONS}?page_size=3").json()
    assert (first["count"], first["pages"], first["previous"]) == (4, 2, None)
    assert [each["person_id"] for each in first["results"]] == ["p0", "p1", "p2"]
    second = call("get", first["next"].removeprefix("http://localhost")).json()
    assert [each["person_id"] for each in second["results"]] == ["p3"]
    assert second["next"] is None and "page=1" in second["previous"]

    def ids(query: str) -> list[str]:
        return [each["person_id"] for each in call("get", f"{PERSONS}?{query}").json()["results"]]

    assert ids("q=lima+ana") == ["p0"]
    assert ids("q=P3") == ["p3"]
    assert ids("ordering=-name") == ["p2", "p1", "p0", "p3"]
    assert ids("page=9") == []


@pytest.mark.parametrize(
    ("ordering", "walked"),
    [
        ("person_id", "a0 a1 a2 a3 a4"),
        ("-person_id", "a4 a3 a2 a1 a0"),
        ("name", "a0 a1 a2 a3 a4"),
        ("-created_at", "a4 a3 a2 a1 a0"),
        ("picture_count", "a0 a1 a2 a3 a4"),
        ("-picture_count", "a4 a0 a1 a2 a3"),
    ],
)
def test_walk_passes_by_nobody_when_others_come_and_go(call, ordering, walked):
    for number in range(5):
        Person.objects.create(person_id=f"a{number}", name="Ana")
    enroll("a4", draw_picture())
    query, found = f"ordering={ordering}&page_size=2&after=", []
    while query:
        answer = call("get", f"{PERSONS}?{query}").json()
        ids = [each["person_id"] for each in answer["results"]]
        found += ids
        Person.objects.filter(person_id=ids[0]).delete()
        Person.objects.create(person_id=f"{'0z'['-' in ordering]}{len(found)}", name="0")
        query = urlsplit(answer["next"] or "").query
    assert [each for each in found if each.startswith("a")] == walked.split()
    assert answer["previous"] is None


@pytest.mark.parametrize("address", ["persons", "persons/a/images", "trash", "journal", "jobs"])
def test_each_list_is_walked_in_the_order_of_its_pages(api, address):
    enroll("a", *(draw_picture(seed=seed) for seed in range(3)))
    for number in range(3):
        delete_person(Person.objects.create(person_id=f"gone{number}"))
        Person.objects.create(person_id=f"here{number}")
        ImportJob.objects.create(label=f"{number}.zip", started_at=timezone.now())
    whole = api.get(f"/api/{address}").json()["results"]
    found, following = [], f"/api/{address}?page_size=2&after="
    while following:
        answer = api.get(following).json()
        found += answer["results"]
        following = answer["next"]
    assert found == whole and len(whole) > 2


@pytest.mark.parametrize(
    "query", ["after=x", "after=&page=1", "ordering=name&after={other}", "after={other}0"]
)
def test_walk_from_no_place_of_the_list_is_refused(call, query):
    for number in range(2):
        Person.objects.create(person_id=f"p{number}")
    first = call("get", f"{PERSONS}?page_size=1&after=").json()
    other = first["next"].partition("after=")[2].partition("&")[0]
    response = call("get", f"{PERSONS}?{query.format(other=other)}")
    assert response.status_code == 400 and list(response.json()["fields"]) == ["after"]


@pytest.mark.parametrize(
    "query", ["ordering=password", "ordering=100%25", "page=0", "page=x", "page_size=9999"]
)
def test_senseless_query_is_refused(call, query):
    response = call("get", f"{PERSONS}?{query}")
    assert response.status_code == 400
    field, _equals, given = query.partition("=")
    (problem,) = response.json()["fields"][field]
    assert f"'{unquote(given)}' was given" in problem and "expected" in problem


@pytest.mark.parametrize("address", [PERSONS, f"{PERSONS}/a/images"])
def test_parameter_that_nobody_knows_is_refused(call, address):
    """It may be a misspelt filter, and everything would be returned."""
    Person.objects.create(person_id="a")
    response = call("get", f"{address}?search=ana")
    assert response.status_code == 400
    assert "page, page_size" in response.json()["fields"]["search"][0]
    assert call("get", f"{address}?format=json").status_code == 200


@pytest.mark.parametrize("query", ["q=ana&q=bia", "page=1&page=2"])
def test_parameter_that_is_sent_twice_is_refused_as_a_field_is(call, query):
    """Used to take the last value."""
    response = call("get", f"{PERSONS}?{query}")
    assert response.status_code == 400
    (problem,) = response.json()["fields"][query.partition("=")[0]]
    assert "2 times" in problem


@pytest.mark.parametrize("person_id", ["", "  ", "x" * 201, "a\0b", None])
def test_person_without_a_usable_id_is_not_made(call, person_id):
    response = call("post", PERSONS, {"person_id": person_id})
    assert response.status_code == 400 and "person_id" in response.json()["fields"]
    assert "This field" not in response.json()["message"]
    assert not Person.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        '{"person_id": "ana", "person_id": "bia"}',
        '{"person_id": "ana", "name": "Ana", "person_id": "ana"}',
        '{"person_id": "ana", "name": {"person_id": "x", "person_id": "y"}}',
    ],
)
def test_a_key_that_is_repeated_within_json_is_refused_as_a_repeated_field_is(api, body):
    """Used to take the last value."""
    answer = api.generic("POST", PERSONS, body, content_type="application/json")
    assert (answer.status_code, answer.json()["error"]) == (400, "validation_error")
    assert answer.json()["fields"] == {
        "person_id": ["The field was sent 2 times; it is expected once."]
    }
    assert not Person.objects.exists()


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_what_is_no_json_is_told_to_be_json(api, content_type):
    response = api.generic("POST", PERSONS, "{x", content_type=content_type)
    assert response.status_code in (400, 415)
    assert "Send a JSON object" in response.json()["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"name": {}}, "Send it as a string"),
        ({"name": None}, "null was given"),
        ({"name": "x" * 201}, "at most 200 characters"),
        ({"keep_until": "31.12.2027"}, "Write it as 2027-12-31"),
        ([1], "no object"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_in_our_words(call, body, said):
    Person.objects.create(person_id="ana")
    response = call("patch", at("ana"), body)
    assert response.status_code == 400 and said in response.json()["message"]


def test_what_is_wrong_with_the_whole_request_names_no_field(call):
    Person.objects.create(person_id="ana")
    response = call("post", f"{at('ana')}/merge", {"person_id": "ana"})
    assert response.json()["message"] == "A person cannot be merged with themselves."


def test_taken_ids_are_a_conflict(call):
    for person_id in ("ana", "bia"):
        Person.objects.create(person_id=person_id)
    for response in (
        call("post", PERSONS, {"person_id": "ana"}),
        call("patch", at("bia"), {"person_id": "ana", "name": "changed"}),
    ):
        assert (response.status_code, response.json()["error"]) == (409, "person_exists")
    assert Person.objects.get(person_id="bia").name == ""


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("get", ""),
        ("patch", ""),
        ("delete", ""),
        ("get", "/images"),
        ("get", "/images/1"),
        ("patch", "/images/1"),
        ("delete", "/images/1"),
        ("post", "/merge"),
    ],
)
def test_nobody_is_404_with_a_sentence(call, method, rest):
    response = call(method, at("ghost", rest), {"person_id": "other"})
    assert (response.status_code, response.json()["error"]) == (404, "person_not_found")
    assert "'ghost'" in response.json()["message"]


@pytest.mark.parametrize("given", [{}, {"nome": "Ana"}], ids=["nothing", "an unknown field"])
def test_a_change_of_nothing_is_refused(call, given):
    Person.objects.create(person_id="ana")
    response = call("patch", at("ana"), given)
    assert (response.status_code, response.json()["error"]) == (400, "validation_error")
    assert "person_id, name, notes, legal_basis, keep_until, cover" in response.json()["message"]


def test_merged_persons_are_one(call, commits, weights):
    enroll("ana", draw_picture(seed=1))
    enroll("b/ia", draw_picture(seed=2), name="Bia")
    with commits():
        response = call("post", at("ana", "/merge"), {"person_id": "b/ia"})
    body = response.json()
    assert response.status_code == 200, body
    assert (body["person_id"], body["name"], body["moved_pictures"]) == ("ana", "Bia", 1)
    assert body["picture_count"] == 2
    moved_on = call("get", at("b/ia"))
    assert (moved_on.status_code, moved_on["Location"]) == (308, f"http://localhost{at('ana')}")
    assert {row.person_id for row in stored()} == {"ana"}
    assert call("post", at("ana", "/merge"), {"person_id": "ana"}).status_code == 400


@pytest.mark.parametrize(
    "rest", ["/", "/images?page=1", "/images/7", "/export", "/consents", "/consents/7"]
)
def test_a_merged_id_leads_on_to_the_same_of_who_took_over(call, rest):
    """Export and consents led to the person: who followed got JSON in the place of a ZIP."""
    kept, merged = (Person.objects.create(person_id=person_id) for person_id in ("a/na", "b/ia"))
    corrections.merge_persons(kept, merged)
    moved_on = call("get", at("b/ia", rest))
    assert (moved_on.status_code, moved_on["Location"]) == (
        308,
        f"http://localhost{at('a/na', rest)}",
    )


@pytest.mark.parametrize("query", ["Erase=true", "erase=false&erase=true", "erase=maybe"])
@pytest.mark.parametrize("rest", ["", "/images/{}"])
def test_a_deletion_that_is_not_sure_to_be_one_is_refused(call, query, rest):
    """`Erase=true` put into the trash whom a law may want erased; of two values the last counted."""
    person = Person.objects.create(person_id="ana")
    picture = FaceImage.objects.create(person=person, image="none.jpg")
    refused = call("delete", f"{at('ana', rest.format(picture.pk))}?{query}")
    assert (refused.status_code, refused.json()["error"]) == (400, "validation_error")
    assert FaceImage.objects.get().person == person


def test_who_is_kept_until_the_last_of_all_days_can_be_deleted_and_merged(call):
    """There is no day after 9999-12-31: 500, and the person could only be erased."""
    for person_id in ("ana", "bia", "caio"):
        call("post", PERSONS, {"person_id": person_id, "keep_until": "9999-12-31"})
    assert call("post", at("ana", "/merge"), {"person_id": "bia"}).json()["undo"]
    gone = call("delete", at("caio")).json()
    assert parse_datetime(gone["undo_until"]) < timezone.now() + timedelta(days=8)


def test_picture_is_shown_moved_and_deleted(call, commits, weights):
    content = draw_picture(seed=1)
    picture = enroll("ana", content, draw_picture(seed=2)).outcomes[0].face_image
    path = at("ana", f"/images/{picture.pk}")
    shown = call("get", path, headers={"accept": "image/jpeg"})
    assert shown.status_code == 200 and shown.content[:3] == b"\xff\xd8\xff"
    assert call("get", path, headers={"if-none-match": shown["ETag"]}).status_code == 304
    assert call("get", f"{path}?size=thumb")["Content-Type"] == "image/jpeg"
    assert call("get", at("ana", "/images/999")).json()["error"] == "picture_not_found"

    assert call("patch", path, {"person_id": "bia"}).status_code == 404  # a typing error, perhaps
    with commits():
        moved = call("patch", path, {"person_id": "bia", "create_person": True}).json()
    assert moved["url"] == f"http://localhost/api/persons/bia/images/{picture.pk}"
    assert found(content)[0] == "bia"
    with commits():
        deleted = call("delete", at("bia", f"/images/{picture.pk}"))
    assert deleted.json()["deleted_pictures"] == 1
    assert FaceImage.objects.count() == 1 and Person.objects.count() == 2


def test_picture_that_goes_while_it_is_moved_is_404(call, weights, monkeypatch):
    """Used to be 500."""
    enroll("ana", draw_picture())
    enroll("bia", draw_picture(seed=1))
    picture = FaceImage.objects.first()
    move = corrections.move_pictures

    def and_then_delete(*args):
        move(*args)
        FaceImage.objects.get(pk=picture.pk).delete()

    monkeypatch.setattr(corrections, "move_pictures", and_then_delete)
    gone = call("patch", at("ana", f"/images/{picture.pk}"), {"person_id": "bia"})
    assert (gone.status_code, gone.json()["error"]) == (404, "picture_not_found")


def test_pictures_are_not_added_to_somebody_unknown(call):
    response = call("post", at("typo", "/images"), {"images": [upload()]}, format="multipart")
    assert response.status_code == 404 and not Person.objects.exists()


@pytest.mark.parametrize("call_of", ["images", "insert"])
def test_somebody_who_is_deleted_meanwhile_is_not_made_anew(
    api, clerk, weights, monkeypatch, call_of
):
    """They were, without name and consent, and by accounts that may not make persons."""
    Person.objects.create(person_id="ana", name="Ana")
    clerk.user_permissions.add(Permission.objects.get(codename="add_faceimage"))
    store = services._store

    def and_before_it_the_person_goes(*args):
        corrections.erase_person(Person.objects.get())
        return store(*args)

    monkeypatch.setattr(services, "_store", and_before_it_the_person_goes)
    form = {"images": [upload()], "use_face_detection": "false"}
    if call_of == "insert":
        api.force_authenticate(clerk)
        gone = api.post("/api/milvus/insert", form | {"person_id": "ana"})
    else:
        gone = api.post(at("ana", "/images"), form)
    assert (gone.status_code, gone.json()["error"]) == (404, "person_not_found")
    assert not Person.objects.exists() and not stored_files()


def stored_files() -> list[str]:
    return FaceImage._meta.get_field("image").storage.listdir("")[1]


def test_a_size_that_there_is_not_is_told(call, boss, weights):
    """Used to send the whole picture."""
    picture = enroll("ana", draw_picture((640, 480))).outcomes[0].face_image
    address = at("ana", f"/images/{picture.pk}")

    refused = call("get", f"{address}?size=huge")
    assert (refused.status_code, refused.json()["error"]) == (400, "validation_error")
    for size in ("thumb", "face", "icon"):
        assert size in refused.json()["fields"]["size"][0]
        assert call("get", f"{address}?size={size}")["Content-Type"] == "image/jpeg"
    page = boss.get(f"/pictures/{picture.pk}?size=huge")
    assert page.status_code == 400 and b"thumb, face, icon" in page.content
    assert call("get", f"{address}?size=").status_code == 200


def test_a_picture_whose_file_is_gone_is_an_error_in_json(call, weights):
    picture = enroll("ana", draw_picture()).outcomes[0].face_image
    picture.image.storage.delete(picture.image.name)
    missing = call("get", at("ana", f"/images/{picture.pk}"), headers={"accept": "image/jpeg"})
    assert (missing.status_code, missing.json()["error"]) == (404, "picture_missing")


def test_strangers_need_a_token(call):
    response = call("get", PERSONS, REMOTE_ADDR="10.0.0.7")
    assert response.status_code == 401


@pytest.fixture
def clerk(db) -> User:
    return User.objects.create_user("clerk")


@pytest.mark.parametrize(
    ("method", "rest", "permission"),
    [
        ("get", "", "view_person"),
        ("patch", "", "change_person"),
        ("delete", "", "delete_person"),
        ("post", "/merge", "delete_person"),
        ("post", "/restore", "delete_person"),
        ("get", "/images", "view_person"),
        ("post", "/images", "add_faceimage"),
        ("get", "/images/1", "view_person"),
        ("patch", "/images/1", "change_faceimage"),
        ("delete", "/images/1", "delete_faceimage"),
    ],
)
def test_users_do_what_their_permissions_say(call, clerk, method, rest, permission):
    headers = {"authorization": f"Token {Token.objects.create(user=clerk).key}"}
    refused = call(method, at("ana", rest), headers=headers)
    assert (refused.status_code, refused.json()["error"]) == (403, "permission_denied")
    assert f"enrollment.{permission}" in refused.json()["message"]
    clerk.user_permissions.add(Permission.objects.get(codename=permission))
    let_in = call(method, at("ana", rest), headers=headers)
    assert let_in.status_code in (400, 404)  # there is no ana, and nothing was sent


def test_real_answers_fit_the_document(call, commits, document, weights):  # noqa: F811
    picture = enroll("ana", draw_picture(seed=1)).outcomes[0].face_image
    answers = {
        "get /api/persons": call("get", PERSONS),
        "post /api/persons": call("post", PERSONS, {"person_id": "bia"}),
        "get /api/persons/{person_id}": call("get", at("ana")),
        "patch /api/persons/{person_id}": call("patch", at("ana"), {"name": "Ana"}),
        "get /api/persons/{person_id}/images": call("get", at("ana", "/images")),
        "post /api/persons/{person_id}/images": call(
            "post",
            at("ana", "/images"),
            {"images": [upload()], "use_face_detection": "false"},
            format="multipart",
        ),
        "post /api/persons/{person_id}/consents": call(
            "post", at("ana", "/consents"), {"day": "2026-11-27"}
        ),
        "get /api/persons/{person_id}/consents": call("get", at("ana", "/consents")),
        "patch /api/persons/{person_id}/images/{image_id}": call(
            "patch", at("ana", f"/images/{picture.pk}"), {"person_id": "bia"}
        ),
        "post /api/persons/{person_id}/merge": call(
            "post", at("bia", "/merge"), {"person_id": "ana"}
        ),
        "delete /api/persons/{person_id}/images/{image_id}": call(
            "delete", at("bia", f"/images/{picture.pk}")
        ),
        "delete /api/persons/{person_id}": call("delete", at("bia")),
        "post /api/persons/{person_id}/restore": call("post", at("bia", "/restore"), {}),
        "get /api/trash": call("get", "/api/trash"),
    }
    item = answers["post /api/persons/{person_id}/merge"].json()["undo"]
    answers["post /api/trash/{item_id}/undo"] = call("post", f"/api/trash/{item}/undo", {})
    item = answers["delete /api/persons/{person_id}/images/{image_id}"].json()["undo"]
    answers["delete /api/trash/{item_id}"] = call("delete", f"/api/trash/{item}")
    number = answers["post /api/persons/{person_id}/consents"].json()["id"]
    answers["delete /api/persons/{person_id}/consents/{number}"] = call(
        "delete", at("ana", f"/consents/{number}")
    )
    ours = ("/persons", "/trash")
    assert {name for name in operations(document) if any(part in name for part in ours)} == {
        *answers,
        "get /api/persons/{person_id}/images/{image_id}",
        "get /api/persons/{person_id}/consents/{number}",
        "get /api/persons/{person_id}/export",
    }
    for name, response in answers.items():
        described = operations(document)[name]["responses"][str(response.status_code)]
        content = described["content"]["application/json"]
        assert content["examples"], name
        check(document, content["schema"], response.json())
        fields = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        assert set(response.json()) <= set(fields["properties"]), name


def test_every_call_can_be_made_by_hand(api, weights):
    picture = enroll("ana", draw_picture(seed=1)).outcomes[0].face_image
    paths = [PERSONS, at("ana"), at("ana", "/images"), at("ana", "/merge")]
    for path in [*paths, at("ana", f"/images/{picture.pk}")]:
        page = api.get(path, headers={"accept": "text/html,application/xhtml+xml"})
        assert page.status_code in (200, 405), path
