"""Calibration: which pairs it uses, when it refuses, and what its thresholds decide."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from django.core.management import CommandError
from django.utils import timezone
from PIL import Image

from enrollment.gallery.selectors import search_gallery
from enrollment.gallery.weights import Weights, compared_weights, thresholds_in_force
from enrollment.judging.calibration import TooFewPairs, measure_gallery, save_calibration
from enrollment.judging.error_rates import Share, matches_by_month
from enrollment.models import (
    Calibration,
    FaceEmbedding,
    FaceImage,
    Feedback,
    Person,
    SearchEntry,
)
from recognition.decision import Decision, thresholds_of
from recognition.embedding import Embeddings
from recognition.vector_store import get_vector_store
from tests.commands import run
from tests.enrollment.gallery import MODEL, add_vectors, vector_row

pytestmark = pytest.mark.django_db
THIRTY = {f"p{number}": 4 for number in range(30)}


def calibrate(*arguments: str) -> str:
    return run("calibrate", *arguments)


def test_thresholds_keep_the_rate_on_all_pairs():
    pictures = add_vectors(THIRTY)
    found = measure_gallery(compared_weights(), fmr=0.01)
    rows = FaceEmbedding.objects.order_by("pk")
    vectors = np.stack([row.array for row in rows])
    persons = np.array([picture.person_id for picture in pictures])
    first, second = np.triu_indices(len(persons), 1)
    scores, same = (
        (vectors @ vectors.T)[first, second],
        (persons[:, None] == persons)[first, second],
    )
    assert (found.genuine_pairs, found.impostor_pairs) == (30 * 6, 120 * 119 // 2 - 30 * 6)
    assert (scores[~same] >= found.match.similarity).mean() <= 0.01
    assert (scores[~same] >= found.match.similarity - 0.001).mean() > 0.01
    assert found.review.fmr == pytest.approx(0.1)
    assert found.review.similarity < found.match.similarity
    assert found.recognised(found.match) == (scores[same] >= found.match.similarity).mean() == 1


def test_the_same_seed_draws_the_same_pairs(monkeypatch):
    monkeypatch.setattr("enrollment.judging.calibration.MOST_PAIRS", 2_000)
    add_vectors({"many": 50} | THIRTY)
    one, again, other = (measure_gallery(compared_weights(), 0.01, seed) for seed in (1, 1, 2))
    assert one.match == again.match != other.match
    assert one.impostor_pairs == 2_000
    assert one.pictures == 140  # at most 20 of one person


def test_a_small_gallery_is_refused_with_what_it_lacks():
    add_vectors({"ana": 12, "bia": 12})
    with pytest.raises(TooFewPairs, match="132 pairs of pictures of one person and 144") as refused:
        measure_gallery(compared_weights(), fmr=0.001)
    assert "at least 50 and 10000 are needed" in refused.value.message


def test_persons_with_one_picture_make_no_genuine_pairs():
    add_vectors({f"p{number}": 1 for number in range(60)})
    with pytest.raises(TooFewPairs, match="makes 0 pairs of pictures of one person"):
        measure_gallery(compared_weights(), fmr=0.01)


def test_copies_and_pictures_without_a_face_are_left_out():
    pictures = add_vectors(THIRTY)
    FaceImage.objects.filter(pk__in=[picture.pk for picture in pictures[:3]]).update(
        content_hash="a" * 64
    )
    faceless = FaceEmbedding.objects.filter(face_image=pictures[-1])
    faceless.update(face_detected=False)
    found = measure_gallery(compared_weights(), fmr=0.01)
    assert (found.genuine_pairs, found.pictures) == (30 * 6 - 3 - 3, 119)
    pictures[-1].use_face_detection = False  # a crop, and known for one
    pictures[-1].save()
    assert measure_gallery(compared_weights(), fmr=0.01).pictures == 120


def test_mistaken_persons_are_named():
    pictures = add_vectors(THIRTY)
    wrong = pictures[0]
    FaceImage.objects.filter(pk=wrong.pk).update(person=pictures[-1].person_id)
    most_alike = measure_gallery(compared_weights(), fmr=0.01).most_alike
    assert all(wrong.pk in pair[:2] for pair in most_alike[:3])


def test_saved_thresholds_decide():
    (picture, *_others) = add_vectors(THIRTY)
    weights = compared_weights()
    assert thresholds_in_force(weights) == thresholds_of(*weights)
    save_calibration(measure_gallery(compared_weights(), fmr=0.01))
    row = FaceEmbedding.objects.select_related("face_image__person").get(face_image=picture)
    get_vector_store().upsert(compared_weights().partition, [vector_row(row)])
    stranger = np.roll(row.array, 1)
    probe = Embeddings(np.stack([row.array, stranger]), row.model, row.fingerprint)
    decisions = [hits[0].decision for hits in search_gallery(probe, 1)]
    assert decisions == [Decision.MATCH, Decision.UNKNOWN]


def test_a_calibration_is_bound_to_its_weights():
    add_vectors(THIRTY)
    save_calibration(measure_gallery(compared_weights(), fmr=0.01))
    Calibration.objects.update(fingerprint="0" * 16)
    weights = compared_weights()
    assert thresholds_in_force(weights) == thresholds_of(*weights) is not None
    # Vectors of other weights than those in use: their own thresholds, or none.
    assert thresholds_in_force(Weights(MODEL, "0" * 16)) == Calibration.objects.get().thresholds
    assert thresholds_in_force(Weights(MODEL, "1" * 16)) is None


def test_command_proposes_draws_and_saves_only_when_told(tmp_path):
    add_vectors(THIRTY)
    drawn = tmp_path / "scores.png"
    text = calibrate("--fmr=0.01", f"--plot={drawn}")
    assert "180 pairs of one person and 6960 of different people" in text
    assert "from 120 pictures of 30 people" in text and "In force until now: " in text
    assert Image.open(drawn).format == "PNG"
    assert "Add --save" in text and not Calibration.objects.exists()

    calibrate("--fmr=0.01", f"--plot={drawn}", "--save")
    calibrate("--fmr=0.02", f"--plot={drawn}", "--save")
    stored = Calibration.objects.get()
    assert (stored.match_far, stored.review_far, stored.impostor_pairs) == (0.02, 0.2, 6960)
    weights = compared_weights()
    assert thresholds_in_force(weights) == stored.thresholds
    assert f"match from {stored.match:.4f}" in calibrate("--fmr=0.01", f"--plot={drawn}")

    assert "Forgotten." in calibrate("--forget")
    assert thresholds_in_force(weights) == thresholds_of(*weights)


@pytest.mark.parametrize(
    ("argument", "message"), [("--fmr=0", "between 0 and 0.5"), ("--fmr=0.01", "are needed")]
)
def test_command_refuses_in_a_sentence(argument, message, tmp_path):
    with pytest.raises(CommandError, match=message):
        calibrate(argument, f"--plot={tmp_path / 'x.png'}")
    assert not list(tmp_path.glob("*.png"))


def test_command_names_the_model_that_has_no_weights(no_weights, tmp_path):
    with pytest.raises(CommandError, match="mobilenetv3_large' has no weights"):
        calibrate(f"--model={MODEL}", f"--plot={tmp_path / 'x.png'}")
    with pytest.raises(CommandError, match="No model has weights here"):
        calibrate(f"--plot={tmp_path / 'x.png'}")


def said(verdict: str, similarity: float, person: Person, **more: object) -> Feedback:
    weights = compared_weights()
    told = {"model": weights.model, "fingerprint": weights.fingerprint, "decision": "match"}
    told |= {"verdict": verdict, "similarity": similarity, "person": person, "source": "page"}
    told["picture_hash"] = f"{Feedback.objects.count()}"
    return Feedback.objects.create(**told | more)


def test_what_operators_said_is_among_the_pairs(tmp_path):
    add_vectors(THIRTY)
    before = measure_gallery(compared_weights(), fmr=0.01)
    person = Person.objects.first()
    for _each in range(80):
        said("rejected", 0.9, person)
    said("confirmed", 0.05, person)
    said("rejected", 0.9, person, fingerprint="other weights")
    said("rejected", 0.9, Person(pk=10**6))  # in the trash
    after = measure_gallery(compared_weights(), fmr=0.01)
    assert (after.confirmed, after.rejected) == (1, 80)
    assert after.impostor_pairs == before.impostor_pairs + 80
    assert after.genuine_pairs == before.genuine_pairs + 1
    assert after.match.similarity > 0.9 - 0.01 > before.match.similarity
    assert after.recognised(after.review) < 1
    assert after.most_alike == before.most_alike
    text = calibrate("--fmr=0.01", f"--plot={tmp_path / 'scores.png'}")
    assert "1 confirmed as one person's, 80 rejected" in text


def test_the_dashboard_tells_the_confirmed_error_rates_with_their_counts(boss, settings):
    person = Person.objects.create(person_id="ana")
    for verdict, decision, count in (
        ("confirmed", "match", 9),
        ("rejected", "match", 3),
        ("confirmed", "review", 1),
        ("rejected", "review", 5),
    ):
        for _each in range(count):
            said(verdict, 0.5, person, decision=decision)
    for decision in ["match"] * 212 + ["unknown"] * 4:
        SearchEntry.objects.create(channel="page", model=MODEL, decision=decision, answers=1)
    long_ago = timezone.now() - timedelta(days=100)
    said("rejected", 0.5, person, created_at=long_ago)
    old = SearchEntry.objects.create(channel="api", model=MODEL, decision="match", answers=1)
    SearchEntry.objects.filter(pk=old.pk).update(created_at=long_ago)
    newest, oldest = matches_by_month(6)
    assert (newest.shown, newest.confirmed, newest.rejected, newest.missed) == (212, 9, 3, 1)
    assert (newest.wrong, newest.not_matched) == (Share(3, 12), Share(1, 10))
    assert (oldest.shown, oldest.wrong, oldest.not_matched) == (None, Share(1, 1), None)
    page = boss.get("/admin/").text
    assert "of 212 matches shown, 3 rejected." in page
    assert "3 of 12: 25.0% (8.9% to 53.2%)" in page
    settings.SEARCH_LOG_DAYS = 0
    assert matches_by_month(6)[0].shown is None
