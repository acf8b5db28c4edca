"""Imports of many pictures: what was given, how far it is, and what became of each file."""

from __future__ import annotations

import secrets

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from enrollment.models.person import PERSON_ID_MAX_LENGTH
from enrollment.models.picture import PATH_MAX_LENGTH
from enrollment.models.sentence_fields import SentenceField, SentencesField
from enrollment.models.trash import ExactEncoder, TrashItem


def new_key() -> str:
    return secrets.token_hex(8)


class ImportJob(models.Model):
    """An import, carried out outside of the request. Its files lie in a folder named by `key`, or stay
    in `folder`.

    `key` also begins the upload keys of its pictures, so that after a crash none is stored twice
    and all can be taken back together. Whoever works on it holds `claim` until `claimed_until`.
    """

    class State(models.TextChoices):
        CHECKING = "checking", _("being looked at")
        READY = "ready", _("waits to be confirmed")
        RUNNING = "running", _("in progress")
        PAUSED = "paused", _("paused")
        FAILED = "failed", _("stopped")
        DONE = "done", _("done")
        CANCELLED = "cancelled", _("cancelled")

    class Source(models.TextChoices):
        ZIP = "zip", _("ZIP")
        WATCHED = "watched", _("watched folder")
        FOLDER = "folder", _("folder on the server")

    key = models.CharField(max_length=16, unique=True, default=new_key, editable=False)
    state = models.CharField(_("state"), max_length=10, choices=State, db_index=True)
    error = SentenceField(_("why it stopped"), blank=True)
    source = models.CharField(_("source"), max_length=10, choices=Source, default=Source.ZIP)
    label = models.CharField(_("file"), max_length=500, blank=True)
    folder = models.TextField(blank=True, help_text="where the files stay, not copied, meanwhile")
    owner = models.BigIntegerField(default=0, help_text="key of the account; 0: nobody's")
    author = models.JSONField(default=dict, help_text="as the journal names who does it")
    language = models.CharField(max_length=10, blank=True, help_text="of the reasons")
    options = models.JSONField(default=dict, help_text="how the pictures are enrolled")
    details = models.JSONField(default=dict, help_text="what people get who are new with it")
    handled = models.PositiveIntegerField(default=0, help_text="files in `seconds`, to tell a rate")
    seconds = models.FloatField(default=0.0)
    claim = models.CharField(max_length=16, blank=True)
    claimed_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField(_("time"), default=timezone.now, db_index=True)
    changed_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(_("confirmed at"), null=True)
    finished_at = models.DateTimeField(_("finished at"), null=True)
    undo = models.ForeignKey(
        TrashItem,
        models.SET_NULL,
        null=True,
        related_name="imports",
        db_constraint=False,  # version 1.0 beside this one does not know it
        help_text="what takes all of it back",
    )
    undone_at = models.DateTimeField(_("taken back at"), null=True)

    class Meta:
        verbose_name = _("import")
        verbose_name_plural = _("imports")
        ordering = ["-pk"]
        default_permissions = ()  # who may enrol persons and pictures may import

    def __str__(self) -> str:
        return self.label or f"{self._meta.verbose_name} {self.pk}"

    @property
    def is_confirmed(self) -> bool:
        return self.started_at is not None

    @property
    def is_over(self) -> bool:
        return self.state in (self.State.DONE, self.State.CANCELLED)

    @property
    def is_at_work(self) -> bool:
        """Whether it goes on by itself."""
        return self.state in (self.State.CHECKING, self.State.RUNNING) or (
            self.state == self.State.CANCELLED and self.finished_at is None
        )

    @property
    def username(self) -> str:
        return str(self.author.get("who", ""))


class ImportFile(models.Model):
    """A file of an import, and what becomes of it: `status` is a plan until `step` is `DONE`.

    While `is_kept`, a copy lies in the folder of the import.
    """

    class Step(models.IntegerChoices):
        NEW = 0
        CHECKED = 1
        DONE = 2

    class Rank(models.IntegerChoices):
        """The order of a report: what needs attention first."""

        REFUSED = 0
        DOUBTFUL = 1
        GOOD = 2

    job = models.ForeignKey(ImportJob, models.CASCADE, related_name="files")
    number = models.PositiveIntegerField()
    path = models.CharField(max_length=PATH_MAX_LENGTH, blank=True, help_text="as it was given")
    suffix = models.CharField(max_length=10, blank=True)
    address = models.TextField(blank=True, help_text="where it is still to be fetched from")
    is_kept = models.BooleanField(default=False)
    person_id = models.CharField(max_length=PERSON_ID_MAX_LENGTH, blank=True, db_index=True)
    person_pk = models.BigIntegerField(
        null=True, db_index=True, help_text="key of who has the picture: an id may change"
    )
    details = models.JSONField(
        default=dict, encoder=ExactEncoder, help_text="what the person gets who is new with it"
    )
    step = models.PositiveSmallIntegerField(choices=Step, default=Step.NEW)
    rank = models.PositiveSmallIntegerField(choices=Rank, default=Rank.GOOD)
    status = models.CharField(max_length=10, blank=True, help_text="a `FileStatus`")
    code = models.CharField(max_length=40, blank=True, help_text="of the error that refused it")
    reason = SentenceField(blank=True)
    warnings = SentencesField(default=list)
    face_detected = models.BooleanField(null=True)
    has_face = models.BooleanField(default=False, help_text="a small picture lies beside the file")
    searchable = models.BooleanField(default=True)
    candidates = models.JSONField(
        default=list, help_text="who it resembles: key, cosine, decision of each"
    )
    picture_pk = models.BigIntegerField(null=True, help_text="what was enrolled")
    probe_pk = models.BigIntegerField(
        null=True, help_text="where a refused face waits in the inbox"
    )

    class Meta:
        verbose_name = _("file of an import")
        verbose_name_plural = _("files of imports")
        ordering = ["number"]
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["job", "number"], name="one_file_per_number")
        ]
        indexes = [
            models.Index(fields=["job", "rank", "number"], name="import_report"),
            models.Index(fields=["job", "step", "status"], name="import_progress"),
        ]

    def __str__(self) -> str:
        return self.path or f"#{self.pk}"
