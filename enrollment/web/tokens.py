"""Token authentication for programs: `AccessToken`, and the tokens of version 1.0."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any, Final

from django.db import DatabaseError
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext
from rest_framework import authentication
from rest_framework.authtoken.models import Token
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from enrollment.journal import note_refusal, short_wait
from enrollment.models import AccessToken, Action, digest_of

logger = logging.getLogger(__name__)

NOTED_EVERY: Final = timedelta(minutes=10)
SCHEMES: Final = (b"token", b"bearer")


class TokenAuthentication(authentication.TokenAuthentication):
    """Authentication by the header `Authorization: Token …`, or `Bearer …` as other services have it."""

    keyword = "Bearer"  # for the OpenAPI document: its readers then give the token alone

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        header = authentication.get_authorization_header(request).split()
        if not header or header[0].lower() not in SCHEMES:
            return None
        if len(header) != 2 or not header[1].isascii():
            note_refusal(Action.TOKEN_REFUSED, reason="unreadable")
            raise AuthenticationFailed(
                gettext(
                    "The header Authorization cannot be read: 'Token', one space and the token are expected."
                )
            )
        return self.authenticate_credentials(header[1].decode())

    def authenticate_header(self, request: Request) -> str:
        return "Token"

    def authenticate_credentials(self, key: str) -> tuple[Any, Any]:
        # Not first(), which sorts the only one there is: a tenth of a small request.
        news = AccessToken.objects.order_by().select_related("user").filter(digest=digest_of(key))
        token = (
            next(iter(news), None) or Token.objects.select_related("user").filter(key=key).first()
        )
        if token is None:
            note_refusal(Action.TOKEN_REFUSED, reason="unknown")
            raise AuthenticationFailed(
                gettext(
                    "No account has this token: it was withdrawn, or not copied whole. Have the "
                    "administrator make a new one."
                )
            )
        if isinstance(token, AccessToken) and token.has_ended:
            message = gettext(
                "This token ended on %(date)s: have the administrator make a new one."
            )
            _note_refused(token, "ended")
            ended = date_format(timezone.localtime(token.expires_at), "DATETIME_FORMAT")
            raise AuthenticationFailed(message % {"date": ended})
        if not token.user.is_active:
            _note_refused(token, "inactive")
            raise AuthenticationFailed(
                gettext(
                    "The account of this token is not active. Have the administrator activate it, or make "
                    "a token for another one."
                )
            )
        if isinstance(token, AccessToken):
            _note_use(token)
        return token.user, token


def _note_refused(token: AccessToken | Token, reason: str) -> None:
    account = token.user.get_username()
    note_refusal(Action.TOKEN_REFUSED, account, account=account, reason=reason)


def _note_use(token: AccessToken) -> None:
    """Store when the token was last used, at most every ten minutes; never fail the request."""
    now = timezone.now()
    if token.last_used_at and now - token.last_used_at < NOTED_EVERY:
        return
    try:
        with short_wait():
            AccessToken.objects.filter(pk=token.pk).update(last_used_at=now)
    except DatabaseError as error:
        logger.warning("The use of token %s is not noted: %s", token, error)


def accounts_with_old_tokens() -> list[str]:
    """Return the names of accounts with tokens of version 1.0, which have no scope and no end."""
    return list(Token.objects.order_by("user__username").values_list("user__username", flat=True))
