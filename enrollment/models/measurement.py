"""Measurements of the whole gallery: its own thresholds, and the result of the last audit."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from recognition.decision import Thresholds
from recognition.networks.descriptor import Threshold


class Calibration(models.Model):
    """Thresholds measured on this gallery. They take precedence over those of the weights."""

    model = models.CharField(max_length=50)
    fingerprint = models.CharField(max_length=40)
    match = models.FloatField()
    match_far = models.FloatField()
    review = models.FloatField()
    review_far = models.FloatField()
    genuine_pairs = models.PositiveIntegerField()
    impostor_pairs = models.PositiveIntegerField()
    persons = models.PositiveIntegerField()
    curve = models.JSONField(
        default=list, help_text="similarities at other rates, as [[far, cosine]]"
    )
    created_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = _("calibration")
        verbose_name_plural = _("calibrations")
        constraints = [
            models.UniqueConstraint(
                fields=["model", "fingerprint"], name="one_calibration_per_weights"
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.fingerprint}"

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(
            match=Threshold(self.match, self.match_far, self.impostor_pairs),
            review=Threshold(self.review, self.review_far, self.impostor_pairs),
            curve=tuple(Threshold(cosine, fmr, self.impostor_pairs) for fmr, cosine in self.curve),
        )


class Examination(models.Model):
    """The result of the last gallery audit. It holds ids only, so it names no deleted person."""

    model = models.CharField(max_length=50)
    pictures = models.PositiveIntegerField()
    findings = models.JSONField(default=dict)
    seconds = models.FloatField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("examination")
        verbose_name_plural = _("examinations")

    def __str__(self) -> str:
        return f"{self.model} {self.created_at:%Y-%m-%d %H:%M}"
