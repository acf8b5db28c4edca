"""The inbox and what is kept of searched faces for it, with drawn faces and a real Milvus Lite."""

from __future__ import annotations

import io
from datetime import timedelta

import numpy as np
import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from django.utils.html import escape

from enrollment import corrections, desk, inbox, journal, probes
from enrollment.backups.contents import backed_up_models
from enrollment.exceptions import ActionRefused, AlreadySettled, CardNotFound, PictureNotFound
from enrollment.gallery import compared_weights
from enrollment.inbox import Action, Answer, Filters, assignment
from enrollment.judging import examine_and_keep
from enrollment.models import (
    Calibration,
    DistinctPair,
    Doubt,
    Examination,
    FaceImage,
    Feedback,
    JournalEntry,
    Person,
    Probe,
    SearchAnswer,
    TrashItem,
)
from enrollment.probes.groups import group_of
from recognition.vector_store import reset_vector_store
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from tests.enrollment.gallery import MODEL, add_vectors, enroll, found, set_thresholds
from tests.pictures import upload

ANA, BIA, CAL = PEOPLE


@pytest.fixture(scope="module")
def photos() -> dict[tuple[int, int], bytes]:
    """Drawn photos, by person and shot."""
    return {(seed, shot): as_jpeg(draw_face(seed, shot)) for seed in PEOPLE for shot in range(2)}


@pytest.fixture
def keeping(settings, db):
    settings.KEEP_PROBES_DAYS = 3


def search(api, content: bytes, **fields):
    response = api.post("/api/milvus/search", {"image": upload(content), **fields})
    assert response.status_code == 200
    return response.json()


def keys(kind: str = "") -> list[str]:
    return [each.key for each in inbox.cards(Filters(kind=kind), limit=50)]


def last_line() -> JournalEntry:
    return JournalEntry.objects.filter(chain="changes").order_by("-number")[0]


def test_faces_are_kept_by_choice_only_and_sealed(api, admin_client, settings, photos):
    enroll("ana", photos[ANA, 0], use_face_detection=True)
    set_thresholds(0.999, 0.998)
    assert "answer_number" not in search(api, photos[BIA, 0])
    settings.KEEP_ANSWERS_MINUTES = 0
    admin_client.post("/", {"images": [upload(photos[BIA, 0])], "model": MODEL, "top_k": 5})
    assert not Probe.objects.exists()
    settings.KEEP_PROBES_DAYS = 3
    assert "answer_number" not in search(api, photos[BIA, 0])  # no answer is kept, only the face
    probe = Probe.objects.get()
    assert (probe.channel, probe.decision, probe.in_inbox) == ("api", "unknown", True)
    assert probe.person.person_id == "ana" and probe.group
    jpeg = probes.read_face(probe)
    assert jpeg[:2] == b"\xff\xd8" and jpeg[:60] not in bytes(probe.picture)
    key = settings.DATA_DIR / "sealing_key"
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(probes.SealBroken, match="sealing_key"):
        probes.unseal(bytes(probe.picture)[:-1] + b"\0\0")


def test_an_answer_of_the_page_is_kept_for_an_hour_and_gone_after_it(
    admin_client, photos, settings
):
    enroll("ana", photos[ANA, 0], use_face_detection=True)
    assert "60 minutes" in admin_client.get("/").content.decode()
    form = {"images": [upload(photos[ANA, 1])], "model": MODEL, "top_k": 5}
    assert admin_client.post("/", form).status_code == 200
    answer = SearchAnswer.objects.get()
    probe = probes.probe_of(answer.number, 1)
    assert not probe.in_inbox and inbox.count(Filters()) == 0
    assert probes.forget_old_faces() == 0
    settings.KEEP_ANSWERS_MINUTES = 1  # fewer hold for what is kept already
    SearchAnswer.objects.update(created_at=timezone.now() - timedelta(minutes=2))
    assert probes.forget_old_faces() == 1
    assert not SearchAnswer.objects.exists()


def test_a_stranger_who_came_often_is_one_card_and_one_act_names_all(api, keeping, photos):
    enroll("ana", photos[ANA, 0], use_face_detection=True)
    set_thresholds(0.99, 0.98)
    for _time in range(3):
        search(api, photos[BIA, 0])
    other = search(api, photos[CAL, 0])["answer_number"]
    first, second = inbox.cards(limit=10)
    assert (first.size, second.size) == (3, 1) and "3 times" in first.why
    assert second.probe.answer.number == other and second.likeliest == Action.NEW
    assert [each.key for each in inbox.cards(limit=1, offset=1)] == [second.key]
    assert inbox.cards(limit=9, leave_out=[first.key, second.key]) == []
    settled = inbox.settle([first.key], "new", new={"person_id": "bia", "name": "Bia"})
    assert (settled.count, settled.pictures, settled.person.name) == (3, 1, "Bia")
    assert found(photos[BIA, 1])[0] == "bia" and keys("probe") == [second.key]
    assert last_line().action == "settled" and last_line().facts["faces"] == 3
    with pytest.raises(AlreadySettled):
        inbox.settle([first.key], "assign", person=settled.person)
    corrections.undo(settled.undo[0])
    assert not Person.objects.filter(person_id="bia").exists()
    assert keys("probe") == [first.key, second.key]
    again = inbox.settle([first.key], "new", new={"person_id": "bia"}, whole_group=False)
    assert again.count == 1 and len(keys("probe")) == 2


def test_whoever_is_slower_changes_nothing(api, keeping, photos, monkeypatch):
    enroll("ana", photos[ANA, 0], use_face_detection=True)
    set_thresholds(0.9999, 0.9998)
    search(api, photos[BIA, 0])
    (key,) = keys()
    enrol = assignment._enroll

    def overtaken(*args):
        outcomes = enrol(*args)
        inbox.discard_faces(list(Probe.objects.all()))
        return outcomes

    monkeypatch.setattr(assignment, "_enroll", overtaken)
    with pytest.raises(AlreadySettled):
        inbox.settle([key], "new", new={"person_id": "bia"})
    assert list(Person.objects.values_list("person_id", flat=True)) == ["ana"]
    assert FaceImage.objects.count() == 1 and keys() == []


def test_what_fails_with_others_leaves_none_of_them_settled(api, keeping, photos, monkeypatch):
    ana = enroll("ana", photos[ANA, 0], photos[ANA, 1], use_face_detection=True).person
    picture = ana.face_images.last()
    set_thresholds(0.9999, 0.9998)
    Doubt.objects.filter(face_image__person=ana).delete()
    Doubt.objects.create(face_image=picture, code="blurred", given=3, expected=10)
    search(api, photos[BIA, 0])
    waiting = keys()
    assert {key.partition("-")[0] for key in waiting} == {"probe", "doubt"}

    def gone(*args):
        raise PictureNotFound("gone meanwhile")

    monkeypatch.setattr(corrections, "move_pictures", gone)
    lines = JournalEntry.objects.filter(action="settled").count()
    with pytest.raises(PictureNotFound):
        inbox.settle(waiting, "new", new={"person_id": "bia"})
    assert keys() == waiting and not TrashItem.objects.exists()
    assert JournalEntry.objects.filter(action="settled").count() == lines
    assert list(Person.objects.values_list("person_id", flat=True)) == ["ana"]
    assert FaceImage.objects.count() == 2 and found(photos[BIA, 0])[0] == "ana"
    monkeypatch.undo()
    settled = inbox.settle(waiting, "new", new={"person_id": "bia"})
    assert (settled.count, settled.pictures) == (2, 2) and keys("probe") == []


def test_a_stranger_whom_two_search_for_at_once_is_one_card(api, keeping, photos, monkeypatch):
    enroll("ana", photos[ANA, 0], use_face_detection=True)
    set_thresholds(0.99, 0.98)
    wait = journal.short_wait

    def wait_for_another():
        monkeypatch.undo()
        search(api, photos[BIA, 0])  # which has the lock of writers first
        return wait()

    monkeypatch.setattr(journal, "short_wait", wait_for_another)
    search(api, photos[BIA, 0])
    assert len({probe.group for probe in Probe.objects.all()}) == 1 and Probe.objects.count() == 2


def test_assigning_what_was_to_be_reviewed_teaches(api, keeping, photos):
    ana = enroll("ana", photos[ANA, 0], use_face_detection=True).person
    set_thresholds(0.9999, 0.1)
    search(api, photos[ANA, 1])
    (card,) = inbox.cards(Filters(kind="probe", person=ana.pk), limit=5)
    assert (card.likeliest, card.candidates[0].person) == (Action.ASSIGN, ana)
    settled = inbox.settle([card.key], "assign", person=ana)
    said = Feedback.objects.get()
    assert (said.verdict, said.person, said.decision) == ("confirmed", ana, "review")
    assert ana.face_images.count() == 2
    corrections.undo(settled.undo[0])
    assert not Feedback.objects.exists() and ana.face_images.count() == 1
    bia = enroll("bia", photos[BIA, 0], use_face_detection=True).person
    inbox.settle([card.key], "assign", person=bia)
    assert (Feedback.objects.get().verdict, Feedback.objects.get().person) == ("rejected", ana)
    told = desk.export_person(ana, io.BytesIO())["feedback"]
    assert [each["verdict"] for each in told] == ["rejected"]
    search(api, photos[ANA, 1])
    (card,) = inbox.cards(Filters(kind="probe"), limit=5)
    assert ana not in [each.person for each in card.candidates]  # was said not to be in it
    assert Probe.objects.filter(person=ana).exists()
    removed = desk.erase_with_receipt(ana)["receipt"]["removed"]
    assert (removed["feedback"], removed["kept_faces"]) == (1, 1)
    assert not Feedback.objects.exists() and not Probe.objects.filter(person=ana).exists()


def test_a_card_says_why_it_names_nobody(
    request, api, boss, keeping, photos, settings, data_folder
):
    """Where the vector database did not answer, or the key was another one, it looked like a stranger."""
    enroll("ana", photos[ANA, 0], use_face_detection=True)
    set_thresholds(0.9999, 0.1)
    search(api, photos[ANA, 1])

    def said() -> str:
        (card,) = boss.get("/api/inbox").json()["results"]
        assert bool(card["candidates"]) is not bool(card["problem"])
        text = boss.get("/inbox/").text
        assert escape(card["problem"]) in text
        assert ("It was not looked up who this may be." in text) is bool(card["problem"])
        return card["problem"]

    assert said() == ""
    ours = settings.RECOGNITION
    request.getfixturevalue("no_store")
    reset_vector_store()
    assert "reindex" in said()
    settings.RECOGNITION = ours
    reset_vector_store()
    (data_folder / "sealing_key").unlink()
    assert "encrypted with another key" in said()


def test_whoever_assigns_a_face_has_seen_it_but_not_whom_else_it_is_like(api, keeping, photos):
    set_thresholds(0.9999, 0.9998)
    ana = enroll("ana", photos[ANA, 0], use_face_detection=True).person
    cal = enroll("cal", photos[CAL, 0], use_face_detection=True).person
    search(api, photos[BIA, 0])
    assert inbox.settle(keys(), "assign", person=ana).pictures == 1
    doubt = Doubt.with_dismissed.get()
    assert doubt.code == "unlike_own_pictures" and doubt.dismissed_at and keys() == []
    line = JournalEntry.objects.get(action="doubts_dismissed")
    assert line.facts["pictures"] == [doubt.face_image_id]
    search(api, photos[CAL, 1])
    (key,) = keys("probe")
    Calibration.objects.update(match=0.98, review=0.97)
    inbox.settle([key], "assign", person=ana)
    (card,) = inbox.cards(limit=5)
    assert card.kind == "doubt" and card.candidates[0].person == cal


def test_what_fails_of_several_answers_keeps_none_of_the_others(api, keeping, photos):
    ana = enroll("ana", photos[ANA, 0], use_face_detection=True).person
    cal = enroll("cal", photos[CAL, 0], use_face_detection=True).person
    set_thresholds(0.9999, 0.9998)
    search(api, photos[BIA, 0])
    search(api, photos[ANA, 1])
    one, other = keys("probe")
    answers = [Answer([one], "assign", cal), Answer(["probe-0"], "assign", ana)]
    answers += [Answer([other], "assign", ana), Answer([one], "discard")]
    first, second, third, again = inbox.settle_each(answers)
    assert isinstance(second, AlreadySettled) and keys("probe") == []
    assert isinstance(again, AlreadySettled)
    assert [first.person, third.person] == [cal, ana] and first.undo != third.undo
    lines = JournalEntry.objects.filter(action="settled").order_by("number")
    assert [line.facts["faces"] for line in lines] == [1, 1]
    corrections.undo(first.undo[0])
    assert keys("probe") == [one] and ana.face_images.count() == 2


def test_what_is_discarded_comes_back_for_an_hour(api, keeping, photos, settings):
    enroll("ana", photos[ANA, 0], use_face_detection=True)
    set_thresholds(0.9999, 0.9998)
    search(api, photos[BIA, 0])
    (key,) = keys()
    item = inbox.settle([key], "discard").undo[0]
    assert keys() == [] and probes.forget_old_faces() == 0
    corrections.undo(item)
    assert keys() == [key]
    item = inbox.settle([key], "discard").undo[0]
    Probe.objects.update(settled_at=timezone.now() - timedelta(hours=2))
    assert probes.forget_old_faces() == 1
    with pytest.raises(corrections.undo.__globals__["NotUndoable"]):
        corrections.undo(item)
    settings.TRASH_DAYS = 0
    search(api, photos[BIA, 0])
    assert inbox.settle(keys(), "discard").undo == [] and not Probe.objects.exists()


def test_doubts_are_confirmed_moved_and_undone(db):
    ana, bia = (picture.person for picture in add_vectors({"ana": 1, "bia": 1}))
    picture, other = FaceImage.objects.order_by("pk")
    Doubt.objects.create(
        face_image=picture, code="looks_like_someone_else", given=0.9, expected=0.8, other=other
    )
    Doubt.objects.create(face_image=other, code="blurred", given=3, expected=10)
    first, second = inbox.cards(limit=5)
    assert (first.key, first.candidates[0].person) == (f"doubt-{picture.pk}", bia)
    assert second.likeliest == Action.CONFIRM and inbox.count(Filters()) == 2
    item = inbox.settle([first.key, second.key], "confirm").undo[0]
    assert keys() == [] and inbox.count(Filters()) == 0
    corrections.undo(item)
    assert keys() == [first.key, second.key]
    Doubt.objects.create(face_image=picture, code="small", given=3, expected=10)
    settled = inbox.settle([first.key], "assign", person=bia)
    assert FaceImage.objects.get(pk=picture.pk).person == bia and settled.pictures == 1
    assert not picture.doubts.filter(code="small").exists()  # whoever moved it has seen it
    corrections.undo(settled.undo[0])
    assert picture.doubts.filter(code="small").exists()
    with pytest.raises(ActionRefused, match="merge"):
        inbox.settle([second.key], "merge", person=ana)
    with pytest.raises(CardNotFound):
        inbox.card("doubt-99999")


def test_persons_who_look_like_one_are_merged_or_said_to_be_two(db):
    add_vectors({"ana": 2, "bia": 2})
    vectors = [row.vector for row in FaceImage.objects.first().embeddings.all()]
    for picture in FaceImage.objects.all():
        picture.embeddings.update(vector=vectors[0])
    set_thresholds()
    examine_and_keep.call()
    (card,) = inbox.cards(Filters(kind="pair"), limit=5)
    ana, bia = (each.person for each in card.candidates)
    with pytest.raises(AlreadySettled):  # of several, one is gone: then nothing is settled
        inbox.settle([card.key, f"pair-{ana.pk}-{bia.pk + 1}"], "confirm")
    assert not DistinctPair.objects.exists() and not TrashItem.objects.exists()
    item = inbox.settle([card.key], "confirm").undo[0]
    assert DistinctPair.objects.exists() and inbox.cards(Filters(kind="pair"), limit=5) == []
    corrections.undo(item)
    inbox.settle([card.key], "merge", person=bia)
    assert not Person.objects.filter(pk=ana.pk).exists() and bia.face_images.count() == 4
    assert TrashItem.objects.get().kind == "merge"


def test_a_picture_that_the_audit_found_nearer_to_somebody_else_is_asked_about_once(db):
    first, _second, other = add_vectors({"ana": 2, "bia": 1})
    case = {"persons": [first.person_id, other.person_id], "pictures": [first.pk, other.pk]}
    cases = [case | {"similarity": 0.7, "own_similarity": 0.4}]
    findings = {"nearer_to_another": {"count": 1, "cases": cases}}
    Examination.objects.create(model=MODEL, pictures=3, findings=findings, seconds=0)
    (card,) = inbox.cards(limit=5)
    assert (card.key, card.likeliest) == (f"doubt-{first.pk}", Action.ASSIGN)
    assert inbox.cards(Filters(person=other.person_id, day=timezone.localdate()), limit=5)
    item = inbox.settle([card.key], "confirm").undo[0]
    assert keys() == [] and Doubt.with_dismissed.get().code == "looks_like_someone_else"
    corrections.undo(item)
    assert keys() == [card.key]  # a doubt like any other now
    inbox.settle([card.key], "delete")
    assert keys() == [] and not FaceImage.objects.filter(pk=first.pk).exists()


def test_programs_read_and_settle_within_their_rights(api, client, keeping, photos):
    enroll("ana", photos[ANA, 0], use_face_detection=True)
    set_thresholds(0.9999, 0.9998)
    number = search(api, photos[BIA, 0])["answer_number"]
    (card,) = api.get("/api/inbox?kind=probe").json()["results"]
    assert api.get("/api/inbox?kinds=probe").status_code == 400
    assert api.get("/api/inbox?kind=probe&page=2").json()["results"] == []
    assert api.get("/api/inbox?who=gate").json()["count"] == 0
    face = api.get(f"/api/inbox/{card['key']}/face")
    assert face["Content-Type"] == "image/jpeg" and face["Cache-Control"] == "private, no-store"
    assert api.get("/api/inbox/probe-0/face").status_code == 404
    wrong = api.post(f"/api/inbox/{card['key']}", {"action": "merge", "person_id": "ana"})
    assert (wrong.status_code, wrong.json()["error"]) == (400, "action_refused")
    reader = User.objects.create_user("reader")
    reader.user_permissions.add(Permission.objects.get(codename="view_person"))
    client.force_login(reader)
    assert client.get("/api/inbox").json()["count"] == 1
    refused = client.post(f"/api/inbox/{card['key']}", {"action": "discard"})
    assert refused.status_code == 403 and "add_faceimage" in refused.json()["message"]
    said = {"person_id": "ana", "verdict": "confirmed"}
    assert client.post("/api/feedback", said).status_code == 403
    by_number = api.post("/api/feedback", said | {"answer_number": number}).json()
    again = api.post("/api/feedback", said | {"image": upload(photos[BIA, 0])}).json()
    assert by_number["similarity"] == pytest.approx(again["similarity"], abs=1e-4)
    assert Feedback.objects.count() == 1  # the same picture
    withdrawn = {**said, "verdict": "withdrawn", "image": upload(photos[BIA, 0])}
    assert api.post("/api/feedback", withdrawn).json()["verdict"] == "withdrawn"
    assert not Feedback.objects.exists() and last_line().facts["verdict"] == "withdrawn"
    number_of_lines = JournalEntry.objects.count()
    assert (
        api.post("/api/feedback", withdrawn | {"image": upload(photos[BIA, 0])}).status_code == 200
    )
    assert JournalEntry.objects.count() == number_of_lines  # there was nothing to forget
    assert Feedback in backed_up_models() and not {Probe, SearchAnswer} & {*backed_up_models()}


def test_a_stranger_is_recognised_among_those_who_wait(db):
    weights = compared_weights()
    set_thresholds()
    chance = np.random.default_rng(0)
    one, other = (row / np.linalg.norm(row) for row in chance.standard_normal((2, 512)))

    def keep(vector) -> int:
        probe = Probe.objects.create(
            channel="api",
            model=weights.model,
            fingerprint=weights.fingerprint,
            vector=probes.seal(vector.astype("<f4").tobytes()),
            decision="unknown",
            in_inbox=True,
            kept_until=timezone.now() + timedelta(days=1),
            group=group_of(vector.astype("f4"), weights),
        )
        return probe.group

    first = keep(one)
    assert keep(other) != first and keep(one) == first
    Probe.objects.filter(group=first).update(settled_at=timezone.now())
    assert keep(one) != first  # whoever is settled waits no more
