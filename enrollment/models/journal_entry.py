"""The journal: who did or saw what, when and from where; append-only, each line chained to the one
before by a hash.

What names a person stands in `JournalSubject.personal`, apart from the event, which holds only its
hash over a salt. So both can be erased, and the chain still verifies.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC
from typing import Any

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class Action(models.TextChoices):
    """What happened. The values stay as they are: they stand in chained lines and in exports."""

    CREATED = "created", _("person created")
    CHANGED = "changed", _("person changed")
    MERGED = "merged", _("people merged")
    DELETED = "deleted", _("person deleted")
    ERASED = "erased", _("person erased")
    RESTORED = "restored", _("restored")
    UNDONE = "undone", _("undone")
    PICTURES_ADDED = "pictures_added", _("pictures added")
    PICTURES_MOVED = "pictures_moved", _("pictures moved")
    PICTURES_DELETED = "pictures_deleted", _("pictures deleted")
    FACE_CHOSEN = "face_chosen", _("face chosen")
    DOUBTS_DISMISSED = "doubts_dismissed", _("doubts dismissed")
    SETTLED = "settled", _("faces of the inbox named")
    DISCARDED = "discarded", _("faces of the inbox discarded")
    FEEDBACK = "feedback", _("match confirmed or rejected")
    KEPT_APART = "kept_apart", _("people said to be two")
    IMPORTED = "imported", _("imported")
    EXPORTED = "exported", _("exported")
    BACKED_UP = "backed_up", _("backup made")
    BACKUP_RESTORED = "backup_restored", _("backup restored")
    CALIBRATED = "calibrated", _("calibrated")
    LINES_REMOVED = "lines_removed", _("old journal lines removed")
    SETTINGS_CHANGED = "settings_changed", _("settings changed")
    VIEWED = "viewed", _("person looked at")
    SEARCHED = "searched", _("face searched")
    VERIFIED = "verified", _("face verified")
    LOGGED_IN = "logged_in", _("logged in")
    LOGGED_OUT = "logged_out", _("logged out")
    LOGIN_REFUSED = "login_refused", _("login refused")
    TOKEN_REFUSED = "token_refused", _("token refused")
    TOKEN_MADE = "token_made", _("token made")
    TOKEN_WITHDRAWN = "token_withdrawn", _("token withdrawn")
    ACCOUNT_CHANGED = "account_changed", _("account changed")


def journal_actions() -> list[tuple[str, Any]]:
    """Return the choices of `JournalEntry.action`; a function, so that a new one is no migration."""
    return list(Action.choices)


class AuthorKind(models.TextChoices):
    ACCOUNT = "account", _("account")
    TOKEN = "token", _("token")
    OPEN = "open", _("without an account")
    COMMAND = "command", _("command")
    SERVER = "server", _("server")


class Channel(models.TextChoices):
    PAGE = "page", _("page")
    API = "api", _("API")
    ADMIN = "admin", _("admin")
    COMMAND = "command", _("command")
    SERVER = "server", _("server")


class JournalChain(models.Model):
    """The two ends of a chain: its last line, and the line before the first one that is kept.

    Searches are kept for another time than changes, and a chain can be cut at its beginning only;
    therefore they are a chain of their own.
    """

    class Name(models.TextChoices):
        CHANGES = "changes"
        SEARCHES = "searches"

    name = models.CharField(max_length=10, primary_key=True, choices=Name)
    number = models.BigIntegerField(default=0)
    hash = models.CharField(max_length=64, blank=True)
    anchor_number = models.BigIntegerField(default=0)
    anchor_hash = models.CharField(max_length=64, blank=True)

    class Meta:
        verbose_name = _("chain of the journal")
        verbose_name_plural = _("chains of the journal")

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class JournalEntry(models.Model):
    """A line of the journal. `facts` are numbers and settings, nothing that names a person."""

    chain = models.CharField(max_length=10, choices=JournalChain.Name)
    number = models.BigIntegerField(_("number"))
    at = models.DateTimeField(_("time"), default=timezone.now, db_index=True)
    action = models.CharField(_("what"), max_length=30, choices=journal_actions, db_index=True)
    who = models.CharField(_("who"), max_length=150, blank=True, db_index=True)
    kind = models.CharField(_("kind of author"), max_length=10, choices=AuthorKind)
    via = models.CharField(
        _("by"), max_length=100, blank=True, help_text=_("The name of the token or command.")
    )
    address = models.CharField(_("address"), max_length=45, blank=True)
    channel = models.CharField(_("channel"), max_length=10, choices=Channel)
    request_id = models.CharField(
        _("request"), max_length=64, blank=True, help_text=_("As in the log and in X-Request-ID.")
    )
    facts = models.JSONField(_("facts"), default=dict)
    previous_hash = models.CharField(max_length=64, blank=True)
    hash = models.CharField(max_length=64)

    class Meta:
        verbose_name = _("journal entry")
        verbose_name_plural = _("journal entries")
        ordering = ["-at", "-pk"]
        constraints = [
            models.UniqueConstraint(fields=["chain", "number"], name="one_line_a_number")
        ]

    def __str__(self) -> str:
        return f"{self.chain} {self.number}"

    def compute_hash(self, subjects: list[JournalSubject]) -> str:
        """Return the SHA-256 hex digest of this line with its subjects, in their order."""
        content = [
            self.previous_hash,
            self.chain,
            self.number,
            self.at.astimezone(UTC).isoformat(),
            [self.action, self.who, self.kind, self.via, self.address, self.channel],
            self.request_id,
            self.facts,
            [[subject.person_pk, subject.role, subject.personal_hash] for subject in subjects],
        ]
        return hashlib.sha256(canonical(content)).hexdigest()


class JournalSubject(models.Model):
    """A person whom a line is about.

    `person_pk` is the primary key, which outlives the person; `role` is empty for the person who
    was acted on. `personal` holds id and name as they were, and what was changed; it is None after
    the person was erased, and where `personal_hash` is empty there never was any.
    """

    class Role(models.TextChoices):
        FROM = "from", _("from")
        MERGED = "merged", _("merged")
        SHOWN = "shown", _("shown")

    entry = models.ForeignKey(JournalEntry, models.CASCADE, related_name="subjects")
    person_pk = models.BigIntegerField(db_index=True)
    role = models.CharField(max_length=10, blank=True, choices=Role)
    personal = models.JSONField(null=True)
    salt = models.CharField(max_length=32, blank=True)
    personal_hash = models.CharField(max_length=64, blank=True)

    class Meta:
        verbose_name = _("person of a journal entry")
        verbose_name_plural = _("people of journal entries")
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"#{self.person_pk}"

    def compute_hash(self) -> str:
        """Return the SHA-256 hex digest of salt and personal fields."""
        return hashlib.sha256(self.salt.encode() + canonical(self.personal)).hexdigest()


def canonical(value: Any) -> bytes:
    """Return the one JSON text of the value that hashes are made over, as ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
