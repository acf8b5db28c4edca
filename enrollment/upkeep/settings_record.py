"""Journal the settings that decide who is found and how long what is kept."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings

from enrollment import journal
from enrollment.gallery import Weights, thresholds_in_force
from enrollment.models import JournalEntry
from recognition.conf import get_settings
from recognition.networks import usable_names

_GALLERY: Final = (
    "ENROLL_QUALITY",
    "ENROLL_IDENTITY",
    "PERSON_KEEP_DAYS",
    "TRASH_DAYS",
    "KEEP_REFUSED_DAYS",
    "SEARCH_LOG_DAYS",
    "KEEP_PROBES_DAYS",
    "KEEP_ANSWERS_MINUTES",
    "BACKUP_KEEP_DAYS",
    "JOURNAL_DAYS",
    "API_AUTH_REQUIRED",
)
_RECOGNITION: Final = (
    "default_model",
    "detector",
    "detection_min_score",
    "no_face_policy",
    "flip_tta",
)


def note_settings() -> None:
    """Journal what decides, when it differs from what was journalled last."""
    now = _in_force()
    last = JournalEntry.objects.filter(action=journal.Action.SETTINGS_CHANGED).order_by("-number")
    facts = last.values_list("facts", flat=True).first() or {}
    before = facts.get("now", {})
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if changed:
        told = {"changed": changed, "now": now}
        journal.record(journal.Action.SETTINGS_CHANGED, facts=told)


def _in_force() -> dict[str, Any]:
    recognition = get_settings()
    found = {name: getattr(settings, name) for name in _GALLERY}
    found |= {name.upper(): getattr(recognition, name) for name in _RECOGNITION}
    for model in usable_names():
        weights = Weights.in_use(model)
        thresholds = thresholds_in_force(weights)
        found[f"{model} weights"] = weights.fingerprint
        if thresholds:
            found[f"{model} match"] = _rounded(thresholds.match.similarity)
            found[f"{model} review"] = _rounded(thresholds.review.similarity)
    return found


def _rounded(similarity: float) -> float:
    return float(f"{similarity:.6g}")
