"""Evaluate models on labelled pictures: verification of pairs, and identification of people.

The pictures take the same path as in the service: decode, detect, align, embed.
`recognition.metrics` has the arithmetic.
"""

from recognition.evaluation.conditions import ConditionFigures, measure_conditions
from recognition.evaluation.drawing import plot
from recognition.evaluation.embedding import Gallery, embed_pictures, read_descriptors
from recognition.evaluation.groups import GroupRate, group_rates, read_labels
from recognition.evaluation.identification import Identification, identification
from recognition.evaluation.intervals import rate_interval
from recognition.evaluation.pictures import (
    EvaluationError,
    Pair,
    PictureSet,
    missing_pictures,
    open_pictures,
    read_pairs,
)
from recognition.evaluation.verification import (
    FALSE_MATCHES,
    Verification,
    impostor_curve,
    impostor_scores,
    propose_thresholds,
    review_fmr,
    threshold_of_impostors,
    verify_all,
    verify_pairs,
)

__all__ = [
    "FALSE_MATCHES",
    "ConditionFigures",
    "EvaluationError",
    "Gallery",
    "GroupRate",
    "Identification",
    "Pair",
    "PictureSet",
    "Verification",
    "embed_pictures",
    "group_rates",
    "identification",
    "impostor_curve",
    "impostor_scores",
    "measure_conditions",
    "missing_pictures",
    "open_pictures",
    "plot",
    "propose_thresholds",
    "rate_interval",
    "read_descriptors",
    "read_labels",
    "read_pairs",
    "review_fmr",
    "threshold_of_impostors",
    "verify_all",
    "verify_pairs",
]
