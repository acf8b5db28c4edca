"""Access tokens, which programs send instead of a password."""

from __future__ import annotations

import secrets
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from enrollment.models.consent import Purpose

GALLERY: Final = {"person", "faceimage", "faceembedding"}


def digest_of(secret: str) -> str:
    """Return the SHA-256 hex digest under which a token is stored and found.

    A token is 256 random bits, so it needs no slow password hash.
    """
    return sha256(secret.encode()).hexdigest()


class AccessToken(models.Model):
    """A token of an account. It grants the account's permissions, limited by its scope."""

    class Scope(models.TextChoices):
        SEARCH = "search", _("search and compare")
        ENROL = "enrol", _("also browse, enrol and correct")
        ADMINISTER = "administer", _("all that the account may")

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        related_name="access_tokens",
        verbose_name=_("account"),
    )
    name = models.CharField(_("name"), max_length=100, help_text=_("Of the program that has it."))
    scope = models.CharField(_("may"), max_length=10, choices=Scope, default=Scope.SEARCH)
    beginning = models.CharField(_("begins with"), max_length=8, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    purposes = models.ManyToManyField(
        Purpose,
        blank=True,
        related_name="tokens",
        verbose_name=_("purposes"),
        help_text=_("If any: it finds only people whose consent has one of them."),
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    expires_at = models.DateTimeField(
        _("ends"), null=True, blank=True, help_text=_("Empty: never.")
    )
    last_used_at = models.DateTimeField(_("last used"), null=True, editable=False)

    class Meta:
        verbose_name = _("token")
        verbose_name_plural = _("tokens")
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.name} ({self.beginning}…)"

    @classmethod
    def issue(
        cls, *, user: Any, name: str, scope: str, expires_at: datetime | None
    ) -> tuple[AccessToken, str]:
        """Create a token. Return its row and the secret, which is stored nowhere."""
        token = cls(user=user, name=name, scope=scope, expires_at=expires_at)
        secret = token.draw()
        token.save()
        return token, secret

    def draw(self) -> str:
        """Set a new random secret on this unsaved row and return the secret."""
        secret = secrets.token_urlsafe(32)
        self.beginning, self.digest = secret[:8], digest_of(secret)
        return secret

    @property
    def has_ended(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    def allows(self, permission: str) -> bool:
        """Return whether the scope lets the token use this permission of the account."""
        match self.scope:
            case self.Scope.ADMINISTER:
                return True
            case self.Scope.ENROL:
                app, _dot, codename = permission.partition(".")
                act, _line, model = codename.partition("_")
                return app == "enrollment" and model in GALLERY and act != "export"
        return False
