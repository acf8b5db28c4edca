"""The search log."""

from __future__ import annotations

from typing import Final

from django.db import models
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _

from enrollment.models.person import Person
from recognition.decision import Decision

DECISION_LABELS: Final = [
    (Decision.MATCH.value, _("Match")),
    (Decision.REVIEW.value, _("Look closely")),
    (Decision.UNKNOWN.value, _("Unknown")),
]


class SearchEntry(models.Model):
    """A face that was searched or verified, and the best hit. The picture itself is never kept.

    When a person is deleted, the entries about them stay without the person.
    """

    class Channel(models.TextChoices):
        PAGE = "page", _("search page")
        API = "api", _("API")
        VERIFY = "verify", _("verification")

    created_at = models.DateTimeField(_("time"), default=timezone.now, db_index=True)
    username = models.CharField(
        _("who"), max_length=150, blank=True, help_text=_("Empty: no account was needed.")
    )
    channel = models.CharField(_("channel"), max_length=10, choices=Channel)
    model = models.CharField(_("model"), max_length=50)
    person = models.ForeignKey(
        Person,
        models.SET_NULL,
        null=True,
        related_name="search_entries",
        verbose_name=_("nearest person"),
        help_text=_("Empty: nobody was found, or the person was deleted since."),
    )
    similarity = models.FloatField(_("similarity"), null=True)
    decision = models.CharField(_("decision"), max_length=10, choices=DECISION_LABELS, blank=True)
    answers = models.PositiveIntegerField(
        _("pictures answered"), help_text=_("How many enrolled pictures the answer named.")
    )
    request_id = models.CharField(
        _("request"), max_length=64, blank=True, help_text=_("As in the log and in X-Request-ID.")
    )

    class Meta:
        verbose_name = _("search")
        verbose_name_plural = _("searches")
        ordering = ["-pk"]
        indexes = [models.Index(fields=["decision", "created_at"], name="search_decisions")]

    def __str__(self) -> str:
        at = date_format(timezone.localtime(self.created_at), "SHORT_DATETIME_FORMAT")
        return f"{self.username} {at}".strip()
