"""Checks of pictures and of the whole gallery, and the calibration of its thresholds."""

from enrollment.judging.audit import (
    Case,
    Diagnosis,
    Kind,
    examine_and_keep,
    examine_gallery,
    keep_examination,
)
from enrollment.judging.calibration import Measurement, measure_gallery, save_calibration
from enrollment.judging.doubts import (
    Probe,
    dismiss_doubts,
    doubts_of,
    judge,
    note_quality,
    quality_doubts,
    resemblances,
    unjudged,
)
from enrollment.judging.error_rates import MonthOfMatches, matches_by_month

__all__ = [
    "Case",
    "Diagnosis",
    "Kind",
    "Measurement",
    "MonthOfMatches",
    "Probe",
    "dismiss_doubts",
    "doubts_of",
    "examine_and_keep",
    "examine_gallery",
    "judge",
    "keep_examination",
    "matches_by_month",
    "measure_gallery",
    "note_quality",
    "quality_doubts",
    "resemblances",
    "save_calibration",
    "unjudged",
]
