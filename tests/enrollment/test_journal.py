"""The journal: every change by every entrance, with its author, in a chain that shows tampering."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command, execute_from_command_line
from django.db import connections
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from enrollment import corrections, journal
from enrollment.journal import verification
from enrollment.models import (
    AccessToken,
    Action,
    Doubt,
    FaceImage,
    JournalChain,
    JournalEntry,
    JournalSubject,
    Person,
)
from enrollment.upkeep.retention import delete_due_persons
from enrollment.upkeep.settings_record import note_settings
from faceproject.configuration import SETTINGS
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from tests.enrollment.gallery import enroll, set_thresholds
from tests.pictures import draw_picture, packed, upload

pytestmark = pytest.mark.django_db

WHOLE = {"use_face_detection": "false"}  # drawn pictures have no face


@pytest.fixture(autouse=True)
def _nothing_noted_before() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def lines(*actions: str) -> list[JournalEntry]:
    found = JournalEntry.objects.order_by("at", "pk").prefetch_related("subjects")
    return list(found.filter(action__in=actions) if actions else found)


def about(line: JournalEntry) -> list[tuple[str, str]]:
    return [(each.role, (each.personal or {}).get("person_id")) for each in line.subjects.all()]


# Every entrance


class Gate:
    """All entrances as one administrator: browser, token, and two enrolled persons."""

    def __init__(self) -> None:
        self.user = User.objects.create_superuser("maria")
        _token, secret = AccessToken.issue(
            user=self.user, name="gate", scope="administer", expires_at=None
        )
        self.browser = Client(headers={"host": "localhost"})
        self.browser.force_login(self.user)
        self.program = Client(headers={"host": "localhost", "authorization": f"Token {secret}"})
        self.ana = enroll("ana", draw_picture(seed=1), name="Ana").person
        self.bia = enroll("bia", draw_picture(seed=2), name="Bia").person
        self.picture = self.ana.face_images.get().pk

    def page(self, name: str, person: Person | None = None, /, **form: Any) -> None:
        address = reverse(name, args=[person.pk] if person else [])
        assert self.browser.post(address, form).status_code == 302

    def api(self, method: str, path: str, body: Any = None, **options: Any) -> None:
        if body is not None:
            options |= {"data": json.dumps(body), "content_type": "application/json"}
        assert getattr(self.program, method)(f"/api/{path}", **options).status_code < 300

    def admin(self, name: str, /, *args: int, **form: Any) -> Any:
        answer = self.browser.post(reverse(f"admin:{name}", args=args), form, follow=True)
        assert answer.status_code == 200
        return answer

    def person_form(self, **changes: Any) -> dict[str, Any]:
        rows = {"TOTAL_FORMS": 1, "INITIAL_FORMS": 1, "0-id": self.picture, "0-person": self.ana.pk}
        form = {"person_id": "ana", "name": "Ana", "notes": "", "legal_basis": "", "keep_until": ""}
        return form | {f"face_images-{name}": value for name, value in rows.items()} | changes

    def import_zip(self) -> None:
        archive = packed({"caio/1.jpg": draw_picture(seed=5)})
        form = {"archive": upload(archive, "faces.zip"), "on_several_faces": "largest"}
        staged = self.browser.post(reverse("import-upload"), form)
        assert self.browser.post(staged["Location"], {"confirm": "1"}).status_code == 302

    def import_table(self) -> None:
        table = SimpleUploadedFile("people.csv", b"person_id,name\nana,Ana Lima\ncaio,Caio\n")
        asked = self.admin("enrollment_person_import", import_file=table, format="0", resource="")
        form = asked.context["confirm_form"].initial
        self.admin("enrollment_person_process_import", **form)


def doubt_of(gate: Gate) -> None:
    Doubt.objects.create(face_image_id=gate.picture, code="blurred", given=1, expected=2)


BY_PAGE, BY_TOKEN, BY_ADMIN = ("account", "page"), ("token", "api"), ("account", "admin")
PERSON = "enrollment_person"
NO_ROWS = {"embeddings-TOTAL_FORMS": 0, "embeddings-INITIAL_FORMS": 0}
PICTURE = "enrollment_faceimage"
ENTRANCES: dict[str, tuple[tuple[str, str], str, Callable[[Gate], Any]]] = {
    "page creates": (BY_PAGE, "created", lambda g: g.page("person-new", person_id="caio")),
    "page changes": (BY_PAGE, "changed", lambda g: g.page("person-details", g.ana, person_id="a")),
    "page adds pictures": (
        BY_PAGE,
        "pictures_added",
        lambda g: g.page("person-add-pictures", g.ana, pictures=upload(draw_picture(seed=3))),
    ),
    "page moves": (
        BY_PAGE,
        "pictures_moved",
        lambda g: g.page("person-move-pictures", g.ana, picture=g.picture, person=g.bia.pk),
    ),
    "page moves to somebody new": (
        BY_PAGE,
        "created pictures_moved",
        lambda g: g.page("person-move-pictures", g.ana, picture=g.picture, new=1, person_id="caio"),
    ),
    "page chooses the cover": (
        BY_PAGE,
        "changed",
        lambda g: g.page("person-cover", g.ana, picture=g.picture),
    ),
    "page deletes pictures": (
        BY_PAGE,
        "pictures_deleted",
        lambda g: g.page("person-delete-pictures", g.ana, picture=g.picture),
    ),
    "page merges": (
        BY_PAGE,
        "merged",
        lambda g: g.page("person-merge", g.ana, **{"with": g.bia.pk, "keep": g.ana.pk}),
    ),
    "page deletes": (BY_PAGE, "deleted", lambda g: g.page("person-delete", g.ana)),
    "page looks": (
        BY_PAGE,
        "viewed",
        lambda g: g.browser.get(reverse("person", args=[g.ana.pk])),
    ),
    "page shows a picture": (
        BY_PAGE,
        "viewed",
        lambda g: g.browser.get(reverse("picture", args=[g.picture])),
    ),
    "page imports a ZIP": (BY_PAGE, "created pictures_added imported", Gate.import_zip),
    "page dismisses doubts": (
        BY_PAGE,
        "doubts_dismissed",
        lambda g: (doubt_of(g), g.page("doubts", picture=g.picture)),
    ),
    "page searches": (
        BY_PAGE,
        "searched",
        lambda g: g.browser.post(
            "/",
            {
                "images": upload(as_jpeg(draw_face(PEOPLE[0]))),
                "top_k": 3,
                "model": "mobilenetv3_large",
            },
        ),
    ),
    "page logs out": (BY_PAGE, "logged_out", lambda g: g.browser.post("/logout")),
    "API creates": (BY_TOKEN, "created", lambda g: g.api("post", "persons", {"person_id": "caio"})),
    "API inserts": (
        BY_TOKEN,
        "created pictures_added",
        lambda g: g.api(
            "post",
            "milvus/insert",
            data={"person_id": "caio", "images": upload(draw_picture(seed=4)), **WHOLE},
        ),
    ),
    "API changes": (BY_TOKEN, "changed", lambda g: g.api("patch", "persons/ana", {"name": "A."})),
    "API moves": (
        BY_TOKEN,
        "pictures_moved",
        lambda g: g.api("patch", f"persons/ana/images/{g.picture}", {"person_id": "bia"}),
    ),
    "API deletes a picture": (
        BY_TOKEN,
        "pictures_deleted",
        lambda g: g.api("delete", f"persons/ana/images/{g.picture}"),
    ),
    "API merges": (
        BY_TOKEN,
        "merged",
        lambda g: g.api("post", "persons/ana/merge", {"person_id": "bia"}),
    ),
    "API deletes": (BY_TOKEN, "deleted", lambda g: g.api("delete", "persons/ana")),
    "API erases": (BY_TOKEN, "erased", lambda g: g.api("delete", "persons/ana?erase=true")),
    "API restores": (
        BY_TOKEN,
        "deleted restored",
        lambda g: (g.api("delete", "persons/ana"), g.api("post", "persons/ana/restore", {})),
    ),
    "API reads": (BY_TOKEN, "viewed", lambda g: g.api("get", "persons/ana")),
    "API searches": (
        BY_TOKEN,
        "searched",
        lambda g: g.api(
            "post", "milvus/search", data={"image": upload(draw_picture(seed=1)), **WHOLE}
        ),
    ),
    "API verifies": (
        BY_TOKEN,
        "verified",
        lambda g: g.api(
            "post",
            "verify",
            data={"source_image": upload(draw_picture(seed=1)), "person_id": "ana", **WHOLE},
        ),
    ),
    "admin creates": (
        BY_ADMIN,
        "created",
        lambda g: g.admin(f"{PERSON}_add", **g.person_form(person_id="caio")),
    ),
    "admin changes": (
        BY_ADMIN,
        "changed",
        lambda g: g.admin(f"{PERSON}_change", g.ana.pk, **g.person_form(name="Ana Lima")),
    ),
    "admin deletes a row": (
        BY_ADMIN,
        "pictures_deleted",
        lambda g: g.admin(
            f"{PERSON}_change", g.ana.pk, **g.person_form(**{"face_images-0-DELETE": "on"})
        ),
    ),
    "admin merges": (
        BY_ADMIN,
        "merged",
        lambda g: g.admin(
            f"{PERSON}_changelist",
            action="merge_selected",
            _selected_action=[g.ana.pk, g.bia.pk],
            keep=g.ana.pk,
        ),
    ),
    "admin deletes": (
        BY_ADMIN,
        "deleted",
        lambda g: g.admin(f"{PERSON}_delete", g.ana.pk, post="yes"),
    ),
    "admin deletes some": (
        BY_ADMIN,
        "deleted",
        lambda g: g.admin(
            f"{PERSON}_changelist", action="delete_selected", _selected_action=g.ana.pk, post="yes"
        ),
    ),
    "admin moves": (
        BY_ADMIN,
        "pictures_moved",
        lambda g: g.admin(f"{PICTURE}_change", g.picture, person=g.bia.pk, **NO_ROWS),
    ),
    "admin deletes a picture": (
        BY_ADMIN,
        "pictures_deleted",
        lambda g: g.admin(f"{PICTURE}_delete", g.picture, post="yes"),
    ),
    "admin imports": (BY_ADMIN, "changed created imported", Gate.import_table),
    "admin exports": (
        BY_ADMIN,
        "exported",
        lambda g: g.browser.post(
            reverse(f"admin:{PERSON}_export"), {"format": "0", "resource": ""}
        ),
    ),
    "admin makes a token": (
        BY_ADMIN,
        "token_made",
        lambda g: AccessToken.issue(user=g.user, name="x", scope="search", expires_at=None),
    ),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_change_by_every_entrance_has_its_line(weights, commits, entrance):
    set_thresholds()
    gate = Gate()
    (kind, channel), actions, do = ENTRANCES[entrance]
    if entrance == "page searches":  # which looks for faces
        enroll("caio", as_jpeg(draw_face(PEOPLE[0])), use_face_detection=True)
    last = JournalEntry.objects.latest("pk").pk
    if entrance == "admin makes a token":  # as the admin's view would
        with journal.acting(lambda: journal.Author("maria", "account", channel="admin")):
            do(gate)
    else:
        do(gate)
    found = JournalEntry.objects.filter(pk__gt=last).exclude(
        action="viewed" if actions != "viewed" else ""
    )
    assert sorted(line.action for line in found) == sorted(actions.split())
    for line in found:
        assert (line.who, line.kind, line.channel) == ("maria", kind, channel)
        assert line.via == ("gate" if kind == "token" else "")
        assert entrance == "admin makes a token" or (line.address and line.request_id)
        assert journal.in_words(line).startswith("maria")
    assert not journal.verify().problems


def test_every_setting_that_limits_how_long_what_is_kept_is_journalled():
    retention = {item.name for item in SETTINGS if item.section == "Retention"}
    note_settings()
    (line,) = JournalEntry.objects.filter(action=Action.SETTINGS_CHANGED)
    assert len(retention) == 8 and retention <= set(line.facts["now"])


def test_what_commands_and_the_server_do(weights, settings, tmp_path: Path):
    folder = tmp_path / "faces" / "caio"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(draw_picture(seed=1))
    with journal.acting(lambda: journal.command_author("enroll")):
        call_command(
            "enroll", folder.parent, "--no-face-detection", "--no-progress", stdout=io.StringIO()
        )
    created, added, imported = lines()
    assert [line.action for line in (created, added, imported)] == [
        "created",
        "pictures_added",
        "imported",
    ]
    assert (added.kind, added.via, added.channel) == ("command", "enroll", "command") and added.who
    assert imported.facts == {"enrolled": 1, "persons": 1}
    with translation.override("pt-br"):
        assert journal.in_words(imported).endswith(" importou: cadastradas 1, pessoas 1")
    call_command("backup", tmp_path / "b.tar", "--no-progress", stdout=io.StringIO())
    Person.objects.update(keep_until=timezone.localdate() - timedelta(days=1))
    assert delete_due_persons() == 1
    note_settings()
    settings.PERSON_KEEP_DAYS = 30
    note_settings()
    note_settings()
    backed_up, erased, first, changed = lines()[3:]
    assert (backed_up.action, erased.action, erased.kind) == ("backed_up", "erased", "server")
    assert first.action == "settings_changed"
    assert changed.facts["changed"] == ["PERSON_KEEP_DAYS"]


def test_a_search_names_all_who_were_shown(weights, api):
    set_thresholds()
    people = [enroll(f"p{seed}", draw_picture(seed=seed)).person for seed in (1, 2, 3)]
    form = {"image": upload(draw_picture(seed=1)), "top_k": 3, "threshold": -1, **WHOLE}
    assert len(api.post("/api/milvus/search", form).json()["results"]) == 3
    (line,) = lines("searched")
    assert {each.person_pk for each in line.subjects.all()} == {each.pk for each in people}
    best = line.facts["shown"][0]
    assert (best[0], best[2]) == (people[0].pk, "match") and best[1] > 0.99
    assert "p1, p2, p3" in " ".join(
        sorted(journal.in_words(line, journal.names_of([line])).split())
    )


def test_nobody_floods_the_journal_and_no_password_gets_into_it(settings, weights):
    User.objects.create_user("maria", password="a long password")
    away = {"REMOTE_ADDR": "10.0.0.7", "headers": {"host": "localhost"}}
    browser = Client()
    for _time in range(2):
        for name in ("maria", "s3cret-in-the-wrong-field"):
            browser.post("/login", {"username": name, "password": "wrong"}, **away)
        browser.get("/api/persons", headers={"host": "localhost", "authorization": "Token nobody"})
    refused = lines("login_refused", "token_refused")
    assert [(line.action, line.facts.get("account"), line.facts["reason"]) for line in refused] == [
        ("login_refused", "maria", "wrong_password"),
        ("login_refused", "", "wrong_password"),
        ("token_refused", None, "unknown"),
    ]
    assert refused[0].address == "10.0.0.7"
    ana = enroll("ana", draw_picture(seed=1)).person
    browser = Client(headers={"host": "localhost"})
    for _time in range(3):
        browser.get(reverse("person", args=[ana.pk]))
    assert len(lines("viewed")) == 1


def test_names_stay_out_of_the_log(weights, caplog, boss):
    with caplog.at_level(logging.DEBUG):
        ana = enroll("id-of-ana", draw_picture(seed=1), name="Ana Namorada").person
        boss.get(reverse("person", args=[ana.pk]))
        corrections.change_person(ana, name="Ana Nova", notes="seen at the gate")
        corrections.erase_person(ana)
    ours = " ".join(r.getMessage() for r in caplog.records if not r.name.startswith("django.db"))
    assert not [text for text in ("id-of-ana", "Namorada", "Nova", "gate") if text in ours]


# The chain


@pytest.fixture
def chain() -> list[JournalEntry]:
    ana = corrections.create_person("ana", name="Ana")
    corrections.change_person(ana, name="Ana Lima")
    bia = corrections.create_person("bia")
    corrections.merge_persons(bia, ana)
    return lines()


def test_lines_are_chained_and_tell_before_and_after(chain):
    assert [line.number for line in chain] == [1, 2, 3, 4]
    assert [line.previous_hash for line in chain] == ["", *(line.hash for line in chain[:-1])]
    assert journal.head() == chain[-1].hash
    changed = chain[1].subjects.get().personal
    assert (changed["before"], changed["after"]) == ({"name": "Ana"}, {"name": "Ana Lima"})
    assert about(chain[3]) == [("", "bia"), ("merged", "ana")]
    verified = journal.verify(chain[2].hash)
    assert not verified.problems and verified.lines == 4


TAMPERING: dict[str, tuple[Callable[[], Any], str]] = {
    "author": (
        lambda: JournalEntry.objects.filter(number=2).update(who="eve"),
        "changes: line 2 was changed.",
    ),
    "person": (
        lambda: JournalSubject.objects.filter(entry__number=2).update(person_pk=99),
        "changes: line 2 was changed.",
    ),
    "person removed": (
        lambda: JournalSubject.objects.filter(entry__number=2).delete(),
        "changes: line 2 was changed.",
    ),
    "name": (
        lambda: JournalSubject.objects.filter(entry__number=1).update(personal={"name": "Eve"}),
        "changes: the personal part of line 1 was changed.",
    ),
    "name blanked": (
        lambda: JournalSubject.objects.filter(entry__number=1).update(personal=None, salt=""),
        "changes: the personal part of line 1 was changed.",
    ),
    "removed": (
        lambda: JournalEntry.objects.filter(number=2).delete(),
        "changes: the lines 2 to 2 are missing.",
    ),
    "beginning removed": (
        lambda: (
            JournalChain.objects.update(anchor_number=1, anchor_hash=lines()[0].hash),
            JournalEntry.objects.filter(number=1).delete(),
        ),
        "changes: lines before 2 were removed, and not by the server.",
    ),
    "end forgotten": (
        lambda: JournalChain.objects.all().delete(),
        "changes ends with line 4; it should end with line 4.",
    ),
    "end removed": (
        lambda: JournalEntry.objects.filter(number=4).delete(),
        "changes ends with line 3; it should end with line 4.",
    ),
}


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_is_found(chain, kind):
    tamper, sentence = TAMPERING[kind]
    tamper()
    assert sentence in journal.verify().problems
    errors = io.StringIO()
    with pytest.raises(CommandError, match="tampered"):
        call_command("journal", "--verify", stdout=io.StringIO(), stderr=errors)
    assert sentence in errors.getvalue()


def test_a_removed_end_is_found_by_a_hash_that_was_kept_elsewhere(chain):
    JournalEntry.objects.filter(number=4).delete()
    JournalChain.objects.update(number=3, hash=chain[2].hash)
    assert not journal.verify().problems
    assert journal.verify(chain[3].hash).problems == [
        "No line has the given hash: lines were removed at the end or changed since it was noted, or "
        "it is older than what is kept."
    ]


def test_what_fails_is_not_journalled():
    with pytest.raises(ValueError, match="undone"), journal.changes():
        corrections.create_person("bia")
        raise ValueError("undone")
    with journal.changes():
        with pytest.raises(ValueError, match="undone"), journal.changes():
            corrections.create_person("bia")
            raise ValueError("undone")
        corrections.create_person("caio")
    assert [about(line) for line in lines()] == [[("", "caio")]]


@pytest.mark.django_db(transaction=True)
def test_threads_that_append_at_once_keep_the_chain_whole():
    start = threading.Barrier(4, timeout=60)

    def append(number: int) -> None:
        try:
            start.wait()
            for _time in range(5):
                journal.record(Action.EXPORTED, facts={"count": number})
        finally:
            connections.close_all()

    threads = [threading.Thread(target=append, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verified = journal.verify()
    assert (verified.lines, verified.problems) == (20, [])
    assert {line.kind for line in lines()} == {"server"}


# Erasing and keeping


def test_an_erased_person_is_nowhere_in_it_and_it_verifies(chain):
    bia = Person.objects.get()
    corrections.set_cover(bia, None)
    with journal.changes():
        corrections.change_person(bia, name="Bia Unica")
        corrections.erase_person(bia)
    rows = list(JournalEntry.objects.values()) + list(JournalSubject.objects.values())
    content = json.dumps(rows, default=str).lower()
    assert not [text for text in ("ana", "bia", "lima", "unica") if text in content]
    assert not journal.verify().problems
    assert lines()[-1].action == Action.ERASED
    assert (
        journal.in_words(lines()[0]) == f"The server enrolled #{chain[0].subjects.get().person_pk}"
    )


def test_old_lines_are_removed_and_the_rest_verifies(chain, settings):
    settings.JOURNAL_DAYS = 100
    with journal.changes():
        journal.record_shown(Action.SEARCHED, [(1, 0.5, "match")], {})
    for number, days in ((1, 102), (2, 101), (3, 1)):
        moved_back(number, days)
    journal.forget_old_lines()
    kept = lines()
    assert [(line.chain, line.number) for line in kept][-1] == ("changes", 5)
    assert {line.number for line in kept if line.chain == "changes"} == {3, 4, 5}
    assert kept[-1].facts["count"] == 2
    assert [
        text for text in journal.verify().problems if "removed" in text or "missing" in text
    ] == []
    journal.forget_old_lines()
    assert len(lines()) == len(kept)
    settings.SEARCH_LOG_DAYS = 0
    journal.forget_old_lines()
    assert not lines("searched")


def test_lines_that_are_removed_while_they_are_read_are_no_tampering(chain, settings, monkeypatch):
    settings.JOURNAL_DAYS = 100
    moved_back(1, 102)
    verify_line = verification._Reading._verify_line

    def remove_first(reading, *line):
        journal.forget_old_lines()
        verify_line(reading, *line)

    monkeypatch.setattr(verification._Reading, "_verify_line", remove_first)
    verified = journal.verify()
    assert not verified.problems and verified.lines == 4


def moved_back(number: int, days: int) -> None:
    at = timezone.now() - timedelta(days=days)
    JournalEntry.objects.filter(chain="changes", number=number).update(at=at)


# Seeing it


def test_administrators_read_it_by_the_api(weights, api, chain):
    page = api.get("/api/journal", {"person_id": "bia", "page_size": 2}).json()
    assert (page["count"], page["pages"]) == (4, 2)  # with what was ana's, who is part of bia
    merged = page["results"][0]
    assert (
        merged["in_words"]
        == "The server merged Ana Lima (ana) into Ana Lima (bia), with 0 pictures"
    )
    assert [each["role"] for each in merged["persons"]] == ["", "merged"]
    changed = api.get("/api/journal?action=changed").json()["results"]
    assert changed[0]["persons"][0]["after"] == {"name": "Ana Lima"}
    assert api.get("/api/journal?who=nobody").json()["count"] == 0
    later = (timezone.now() + timedelta(minutes=1)).isoformat()
    assert api.get("/api/journal", {"since": later}).json()["count"] == 0
    assert api.get("/api/journal?action=flown").status_code == 400
    assert api.get("/api/journal?whom=ana").status_code == 400


@pytest.mark.parametrize(
    ("since", "count"), [("0001-01-01T00:00:00%2B14:00", 1), ("9999-12-31T23:59:59-14:00", 0)]
)
def test_a_time_before_or_after_all_others_is_one(api, since, count):
    """UTC cannot name it: 500."""
    corrections.create_person("ana")
    assert api.get(f"/api/journal?since={since}").json()["count"] == count


def test_numbers_are_rounded(db):
    journal.record(journal.Action.IMPORTED, facts={"similarity": 0.98559})
    (line,) = lines()
    assert journal.in_words(line).endswith(" 0.9856")
    with translation.override("pt-br"):
        assert journal.in_words(line).endswith(" 0,9856")


def test_what_happens_to_accounts_is_in_words(db):
    """It was told as in the data, in any language: made True, rights add."""
    group = Group.objects.create(name="Guards")
    user = User.objects.create_user("maria")
    user.groups.add(group)
    user.save()
    user.delete()
    with translation.override("pt-br"):
        told = [journal.in_words(line).partition(": ")[2] for line in lines()]
    assert told == [
        "conta alterada. grupo Guards, criado sim",
        "conta alterada. conta maria, criado sim",
        "conta alterada. conta maria, direitos concedidos",
        "conta alterada. conta maria",
        "conta alterada. conta maria, apagado sim",
    ]


def test_the_history_on_a_persons_page_is_in_words(weights, boss):
    ana = enroll("ana", draw_picture(seed=1), name="Ana").person
    hans = enroll("hans", draw_picture(seed=2), name="Hans Blix").person
    number = hans.face_images.get().pk
    boss.post(
        reverse("person-move-pictures", args=[hans.pk]), {"picture": number, "person": ana.pk}
    )
    page = boss.get(reverse("person", args=[ana.pk])).content.decode()
    sentence = f"admin moved picture {number} from Hans Blix (hans) to Ana (ana)"
    assert sentence in page and "admin looked at Ana (ana)" in page
    (line,) = lines("pictures_moved")
    undo = reverse("trash-undo", args=[line.facts["undo"]])
    assert f'action="{undo}"' in page
    admin = boss.get(reverse("admin:enrollment_journalentry_changelist"), {"q": "hans"})
    assert sentence in admin.content.decode()
    shown = boss.get(reverse("admin:enrollment_journalentry_change", args=[line.pk]))
    assert line.hash in shown.content.decode()
    address = reverse("admin:enrollment_journalentry_delete", args=[line.pk])
    assert boss.post(address, {"post": "yes"}).status_code == 403
    boss.post(undo)
    page = boss.get(reverse("person", args=[hans.pk])).content.decode()
    assert "admin undid a change of" in page and undo not in page
    with translation.override("pt-br"):
        assert journal.in_words(line).startswith(f"admin moveu foto {number} de Hans Blix")


def test_a_last_day_is_told_as_the_reader_writes_days():
    ana = corrections.create_person("ana", keep_until=date(2127, 12, 30))
    corrections.change_person(ana, keep_until=date(2127, 12, 31))
    (line,) = lines("changed")
    assert journal.in_words(line).endswith("“Dec. 30, 2127” → “Dec. 31, 2127”")
    with translation.override("pt-br"):
        assert journal.in_words(line).endswith("→ “31 de dezembro de 2127”")


def test_who_sees_whom_is_for_readers_of_the_journal(weights):
    ana = enroll("ana", draw_picture(seed=1)).person
    user = User.objects.create_user("op")
    user.user_permissions.set(_permissions("view_person"))
    browser = Client(headers={"host": "localhost"})
    browser.force_login(user)
    browser.get(reverse("person", args=[ana.pk]))
    page = browser.get(reverse("person", args=[ana.pk])).content.decode()
    assert "enrolled ana" in page and "looked at" not in page
    token, secret = AccessToken.issue(user=user, name="x", scope="enrol", expires_at=None)
    headers = {"host": "localhost", "authorization": f"Token {secret}"}
    assert Client().get("/api/journal", headers=headers).status_code == 403


def _permissions(*names: str) -> Any:
    from django.contrib.auth.models import Permission

    return Permission.objects.filter(codename__in=names)


def test_export_as_csv_and_json_lines(chain):
    out = io.StringIO()
    since = (timezone.now() - timedelta(hours=1)).isoformat()
    call_command("journal", "--person", "ana", "--since", since, stdout=out)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [row["action"] for row in rows] == ["created", "changed", "merged"]
    assert rows[1]["persons"][0]["personal"]["before"] == {"name": "Ana"}
    out = io.StringIO()
    call_command("journal", "--format", "csv", "--action", "merged", stdout=out)
    heading, row = out.getvalue().splitlines()
    assert heading.startswith("chain,number,at,action,who") and row.startswith("changes,4,")
    assert [line.facts["count"] for line in lines("exported")] == [3, 1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [("since=yesterday", "2027-01-31T12:00:00Z"), ("action=flew", "pictures_moved")],
)
def test_a_wrong_filter_is_told_what_is_expected(api, query, expected):
    response = api.get(f"/api/journal?{query}")
    assert response.status_code == 400 and expected in response.json()["message"]


@pytest.mark.parametrize("arguments", [["--since=yesterday"], ["--until=2027-13-01"]])
def test_a_time_that_is_none_is_told_without_a_traceback(arguments, capsys, monkeypatch):
    # It would have all that is logged afterwards go to what captures the output of this test, and closes.
    monkeypatch.setattr("django.utils.log.configure_logging", lambda *_settings: None)
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", "journal", *arguments])
    assert ended.value.code == 2 and "a day or time is expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["export", "CSV", "enrollment.Person"], ["import", "enrollment.Person", "a.csv"]]
)
def test_no_command_reads_or_writes_people_past_the_journal(arguments):
    with pytest.raises(CommandError, match="where the journal notes it"):
        call_command(*arguments)


def test_a_head_is_looked_for_by_verifying_alone():
    with pytest.raises(CommandError, match="--head is for --verify alone"):
        call_command("journal", "--head=80b2f9ce", stdout=io.StringIO())


def test_a_command_names_its_user_and_the_server_serves_others():
    def author_of(*arguments: str) -> journal.Author:
        journal.name_command(arguments)
        return journal.current_author()

    enroll_author = copy_context().run(author_of, "/srv/manage.py", "enroll", "photos")
    assert (enroll_author.kind, enroll_author.via) == ("command", "enroll")
    assert copy_context().run(author_of, "manage.py", "serve").kind == "server"
    assert copy_context().run(author_of, "pytest", "enroll").kind == "server"


def test_a_picture_enrolled_again_is_no_second_line(weights):
    enroll("ana", draw_picture(seed=1))
    enroll("ana", draw_picture(seed=2))
    assert [line.action for line in lines()] == ["created", "pictures_added", "pictures_added"]
    assert lines()[1].facts["pictures"] == [FaceImage.objects.earliest("pk").pk]
