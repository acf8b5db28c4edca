"""The choice of a face in a group photo before it is enrolled, in a browser without JavaScript."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from PIL import Image

from enrollment.corrections import erase_person, merge_persons
from enrollment.enrolling import forget_old_imports, group_photos
from enrollment.models import FaceEmbedding, FaceImage, Person
from enrollment.web.face_choice import LEFT_OUT
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face, draw_group
from tests.enrollment.gallery import found, set_thresholds, stored
from tests.enrollment.test_views import Markup
from tests.pictures import packed, upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]


@pytest.fixture(scope="module")
def group() -> bytes:
    return as_jpeg(draw_group())


@pytest.fixture(scope="module")
def pair() -> bytes:
    return as_jpeg(draw_group(PEOPLE[:2]))


@pytest.fixture(scope="module")
def alone() -> bytes:
    return as_jpeg(draw_face(PEOPLE[0]))


@pytest.fixture
def ana(db) -> Person:
    return Person.objects.create(person_id="ana")


@pytest.fixture
def imports(data_folder: Path) -> Path:
    return data_folder / "imports"


def add(client: Client, person: Person, **pictures: bytes):
    files = [upload(content, f"{name}.jpg") for name, content in pictures.items()]
    form = {"pictures": files, "use_face_detection": "on"}
    return client.post(f"/people/{person.pk}/add", form, follow=True)


def choices(response) -> dict[str, list[str]]:
    """Return the options of each question on the page, by its name."""
    offered: dict[str, list[str]] = {}
    for radio in Markup(response).find("input", type="radio"):
        offered.setdefault(radio["name"], []).append(radio["value"])
    return offered


def preselected(response) -> list[str]:
    radios = Markup(response).find("input", type="radio")
    return [radio["value"] for radio in radios if "checked" in radio]


def texts(response) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def boxes(api, content: bytes) -> list[list[float]]:
    answer = api.post("/api/detect", {"image": upload(content)}).json()
    return [face["box"] for face in answer["faces"]]


def test_the_operator_picks_before_anybody_is_enrolled(local, api, ana, group, alone, imports):
    asked = add(local, ana, group=group, alone=alone)
    assert asked.redirect_chain[-1][0] == f"/people/{ana.pk}/faces"
    assert "1 picture was added." in texts(asked)
    assert [each.original_path for each in FaceImage.objects.all()] == ["alone.jpg"]
    ((name, offered),) = choices(asked).items()
    assert offered == ["0", "1", "2", "none"]
    assert asked.content.decode().count("data:image/jpeg;base64,") == 3
    assert asked["Cache-Control"] == "private, no-store"
    assert imports.stat().st_mode & 0o077 == 0

    done = local.post(f"/people/{ana.pk}/faces", {name: "2"}, follow=True)
    assert done.redirect_chain == [(f"/people/{ana.pk}/", 302)]
    assert "1 picture was added." in texts(done) and "several faces" not in texts(done)
    row = FaceEmbedding.objects.last()
    assert row.face["box"] == boxes(api, group)[2] and row.status == "indexed"
    assert row.face_image.chosen_face["box"] == row.face["box"]
    assert (row.face_image.original_path, row.face_image.source) == ("group.jpg", "page")
    assert len(stored()) == 2 and found(as_jpeg(draw_face(PEOPLE[2], 3)))[:1] == ["ana"]
    assert list(imports.iterdir()) == []


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_face_most_like_the_persons_pictures_is_preselected(local, api, ana, group, number):
    assert preselected(add(local, ana, group=group)) == ["0"]
    group_photos.leave_out(group_photos.waiting_pictures(0, ana))
    x, y, width, height = boxes(api, group)[number]
    around = (x - width, y - height, x + 2 * width, y + 2 * height)
    face = Image.open(io.BytesIO(group)).crop(tuple(map(round, around)))
    assert not choices(add(local, ana, alone=as_jpeg(face)))

    asked = add(local, ana, group=group)

    assert preselected(asked) == [str(number)]
    assert asked.content.decode().count("Most like this person’s pictures") == 1


def test_where_no_face_is_like_the_persons_pictures_none_is_preselected(
    local, api, ana, group, alone
):
    """One click enrolled the nearest stranger in the background."""
    assert not choices(add(local, ana, alone=alone))
    set_thresholds(match=2, review=2)
    asked = add(local, ana, group=group)
    assert preselected(asked) == [LEFT_OUT]
    assert "No face here is like this person’s pictures" in asked.content.decode()


def test_one_click_takes_the_largest_of_several_pictures(local, api, ana, group, pair, imports):
    asked = add(local, ana, group=group, pair=pair)
    offered = choices(asked)
    assert sorted(map(len, offered.values())) == [3, 4]
    assert not FaceImage.objects.exists()
    form = {name: values[0] for name, values in offered.items()}
    done = local.post(f"/people/{ana.pk}/faces", form, follow=True)
    assert "2 pictures were added." in texts(done)
    largest = {tuple(boxes(api, content)[0]) for content in (group, pair)}
    assert {tuple(row.face["box"]) for row in FaceEmbedding.objects.all()} == largest
    assert list(imports.iterdir()) == []


def test_some_are_left_out_and_others_go_on_waiting(local, ana, group, pair, imports):
    names = list(choices(add(local, ana, group=group, pair=pair)))
    asked = local.post(f"/people/{ana.pk}/faces", {names[0]: "none", names[1]: "99"}, follow=True)
    assert "1 picture was left out." in texts(asked) and not FaceImage.objects.exists()
    assert list(choices(asked)) == names[1:]
    person = local.get(f"/people/{ana.pk}/").content.decode()
    assert "1 picture waits for you to choose the face." in person
    done = local.post(f"/people/{ana.pk}/faces", {names[1]: "0", "leave_out": "x"}, follow=True)
    assert "1 picture was left out." in texts(done)
    assert not FaceImage.objects.exists() and list(imports.iterdir()) == []
    assert "waits for you" not in local.get(f"/people/{ana.pk}/").content.decode()


def test_a_new_person_is_made_and_asked_about(local, group):
    form = {"person_id": "bia", "pictures": upload(group), "use_face_detection": "on"}
    asked = local.post("/people/new", form, follow=True)
    person = Person.objects.get()
    assert asked.redirect_chain == [(f"/people/{person.pk}/faces", 302)]
    assert len(choices(asked)) == 1 and not FaceImage.objects.exists()


def test_the_admin_asks_too(boss, group, alone, transactional_db, imports):
    form = {"person_id": "bia", "pictures": [upload(group, "group.jpg"), upload(alone)]}
    form["use_face_detection"] = "on"
    asked = boss.post("/admin/enrollment/person/add/", form, follow=True)
    person = Person.objects.get()
    page = f"/admin/enrollment/person/{person.pk}/faces/"
    assert asked.redirect_chain[-1][0] == page and "1 picture was added." in texts(asked)
    ((name, offered),) = choices(asked).items()
    assert offered == ["0", "1", "2", "none"]
    change = f"/admin/enrollment/person/{person.pk}/change/"
    assert f'<a href="{page}">Choose the face…</a>' in boss.get(change).content.decode()
    done = boss.post(page, {name: "1"}, follow=True)
    assert done.redirect_chain == [(change, 302)] and "1 picture was added." in texts(done)
    assert FaceImage.objects.last().source == "admin"
    assert boss.get(page).url == change and list(imports.iterdir()) == []


def test_a_popup_of_the_admin_closes_and_the_picture_waits(boss, group, transactional_db):
    form = {"person_id": "bia", "pictures": upload(group), "use_face_detection": "on", "_popup": 1}
    assert "popup" in boss.post("/admin/enrollment/person/add/", form).content.decode()
    person = Person.objects.get()
    assert len(choices(boss.get(f"/admin/enrollment/person/{person.pk}/faces/"))) == 1


def test_a_face_far_behind_is_not_asked_about(local, api, ana):
    picture = draw_face(PEOPLE[0], side=480)
    picture.paste(draw_face(PEOPLE[1], side=130), (0, 0))
    picture = as_jpeg(picture)
    assert len(boxes(api, picture)) == 2
    done = add(local, ana, picture=picture)
    assert done.redirect_chain == [(f"/people/{ana.pk}/", 302)]
    assert FaceImage.objects.get().chosen_face is None


def test_crops_are_not_asked_about(local, ana, group):
    form = {"pictures": upload(group)}  # without "Find the face"
    done = local.post(f"/people/{ana.pk}/add", form, follow=True)
    assert "1 picture was added." in texts(done)


# Whose they are, and how long they stay


def test_nobody_else_sees_or_chooses_them(local, boss, ana, group):
    (name,) = choices(add(local, ana, group=group))
    assert boss.get(f"/people/{ana.pk}/faces").url == f"/people/{ana.pk}/"
    boss.post(f"/people/{ana.pk}/faces", {name: "0"})
    assert not FaceImage.objects.exists()
    assert "waits for you" not in boss.get(f"/people/{ana.pk}/").content.decode()
    viewer = Client(headers={"host": "localhost"})
    viewer.force_login(User.objects.create_user("viewer"))
    assert viewer.get(f"/people/{ana.pk}/faces").status_code == 403
    stranger = Client(headers={"host": "localhost"}, REMOTE_ADDR="10.0.0.7")
    assert stranger.get(f"/people/{ana.pk}/faces").url.startswith("/login")
    assert len(choices(local.get(f"/people/{ana.pk}/faces"))) == 1


def test_nothing_stays_of_a_choice_that_was_abandoned(local, ana, group, imports):
    add(local, ana, group=group)
    forget_old_imports()
    (home,) = imports.iterdir()
    yesterday = time.time() - 25 * 3600
    os.utime(home, (yesterday, yesterday))
    forget_old_imports()  # as the server does every minute
    assert list(imports.iterdir()) == []
    assert local.get(f"/people/{ana.pk}/faces").url == f"/people/{ana.pk}/"


def test_what_waits_goes_with_the_person_and_follows_a_merge(
    local, ana, group, pair, imports, commits
):
    bia, caio = (Person.objects.create(person_id=name) for name in ("bia", "caio"))
    for person in (ana, bia, caio):
        add(local, person, group=group)
    add(local, bia, pair=pair)
    with commits():
        erase_person(ana)
    assert len(list(imports.iterdir())) == 3
    with commits():
        merge_persons(caio, bia)
    assert len(choices(local.get(f"/people/{caio.pk}/faces"))) == 2  # the group once
    assert len(list(imports.iterdir())) == 2


def test_a_second_click_enrols_nothing_twice(local, ana, group, monkeypatch):
    (name,) = choices(add(local, ana, group=group))
    page = f"/people/{ana.pk}/faces"
    enrolled = group_photos.enroll_pictures

    def clicked_again(*args, **options):
        monkeypatch.setattr(group_photos, "enroll_pictures", enrolled)
        again = local.post(page, {name: "1"})
        assert again.url == f"/people/{ana.pk}/"
        return enrolled(*args, **options)

    monkeypatch.setattr(group_photos, "enroll_pictures", clicked_again)
    local.post(page, {name: "0"})
    assert FaceImage.objects.count() == 1


def test_what_could_not_be_enrolled_goes_on_waiting(local, ana, group, settings, tmp_path):
    (name,) = choices(add(local, ana, group=group))
    page = f"/people/{ana.pk}/faces"
    settings.MEDIA_ROOT = tmp_path / "a-file"
    settings.MEDIA_ROOT.write_text("no folder")
    default = settings.STORAGES["default"]
    options = default["OPTIONS"] | {"location": settings.MEDIA_ROOT}
    settings.STORAGES = settings.STORAGES | {"default": default | {"OPTIONS": options}}
    failed = local.post(page, {name: "0"}, follow=True)
    assert "storage of the pictures cannot be written to" in texts(failed)
    assert list(choices(failed)) == [name] and not FaceImage.objects.exists()


class Killed(BaseException):
    """What ends a process ends the test's request."""


@pytest.mark.parametrize("after", [False, True], ids=["before it is stored", "after it is stored"])
def test_what_a_crash_cut_off_waits_again_and_is_enrolled_once(
    local, ana, group, monkeypatch, after
):
    (name,) = choices(add(local, ana, group=group))
    page, enroll = f"/people/{ana.pk}/faces", group_photos.enroll_pictures

    def killed(*uploads, **options):
        if after:
            enroll(*uploads, **options)
        raise Killed

    with monkeypatch.context() as at_the_crash:
        at_the_crash.setattr(group_photos, "enroll_pictures", killed)
        at_the_crash.setattr(group_photos, "_give_back", lambda home: None)
        with pytest.raises(Killed):
            local.post(page, {name: "0"})
    group_photos.give_back_taken()
    assert not group_photos.count_waiting(0, ana)  # it may still be at work
    monkeypatch.setattr(group_photos, "TAKEN_SECONDS", -1.0)
    group_photos.give_back_taken()
    local.post(page, {name: "0"})
    assert FaceImage.objects.count() == 1
    assert not group_photos.count_waiting(0, ana)


def test_the_same_file_waits_once_and_not_too_many_wait(local, ana, group, pair, monkeypatch):
    add(local, ana, group=group)
    assert len(choices(add(local, ana, again=group))) == 1
    monkeypatch.setattr(group_photos, "MOST_WAITING", 1)
    refused = add(local, ana, pair=pair)
    assert "too many pictures wait for you" in texts(refused) and "pair.jpg" in texts(refused)
    assert refused.redirect_chain == [(f"/people/{ana.pk}/", 302)]
    monkeypatch.setattr(group_photos, "MOST_WAITING", 9)
    monkeypatch.setattr(group_photos, "MOST_BYTES_IN_REQUESTS", 0)
    assert "too many pictures wait for you" in texts(add(local, ana, pair=pair))


def test_a_full_disk_is_told(local, ana, group, alone, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    told = texts(add(local, ana, group=group, alone=alone))
    assert "no room to keep it" in told and "1 picture was added." in told


# Imports ask nobody: they name each picture, or refuse it


@pytest.mark.parametrize("on_several_faces", ["largest", "refuse"])
def test_a_folder_names_group_photos_or_refuses_them(group, alone, tmp_path, on_several_faces):
    folder = tmp_path / "people"
    (folder / "ana").mkdir(parents=True)
    (folder / "ana" / "group.jpg").write_bytes(group)
    (folder / "ana" / "alone.jpg").write_bytes(alone)
    errors = io.StringIO()
    options = {"on_several_faces": on_several_faces, "stderr": errors, "no_progress": True}
    call_command("enroll", str(folder), **options)
    (line,) = [line for line in errors.getvalue().splitlines() if "alone.jpg" not in line]
    assert line.startswith("ana/group.jpg: ") and "faces in the picture" in line
    assert FaceImage.objects.count() == {"largest": 2, "refuse": 1}[on_several_faces]


@pytest.mark.parametrize("refuses", [True, False])
def test_a_zip_names_group_photos_or_refuses_them(boss, group, alone, imports, commits, refuses):
    archive = packed({"1/a.jpg": alone + b"1", "2/a.jpg": alone + b"2", "ana/group.jpg": group})
    form = {"archive": upload(archive, "faces.zip"), "use_face_detection": "on"}
    form |= {"refuse_several_faces": "on"} if refuses else {}
    page = boss.post("/people/import", form, follow=True)
    with commits():
        report = boss.post(page.redirect_chain[-1][0], follow=True)
    for shown in (page, report):
        (file,) = [each for each in shown.context["results"] if each.path == "ana/group.jpg"]
        assert file.status == ("refused" if refuses else "enrolled")
        assert "faces in the picture" in f"{file.reason} {file.warnings}"
        told = [bool(each.reason or each.warnings) for each in shown.context["results"]]
        assert told == sorted(told, reverse=True)
    is_enrolled = FaceImage.objects.filter(person__person_id="ana").exists()
    assert is_enrolled is not refuses
