"""Lines about accounts: logins, refusals, tokens, and changes of accounts and what they may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db.models.signals import m2m_changed, post_delete, post_save
from rest_framework.authtoken.models import Token, TokenProxy

from enrollment.journal.authors import acting, current_author
from enrollment.journal.chain import record
from enrollment.journal.notes import note, note_refusal
from enrollment.models import AccessToken, Action

_UNTOLD: Final = {"last_login"}  # a login has a line of its own
_restoring: ContextVar[bool] = ContextVar("restoring", default=False)


@contextmanager
def rows_restored() -> Iterator[None]:
    """Write no line about rights that are put back with their rows: the restored journal has theirs.

    Django tells of saved rows that they are restored (`raw`), but not of their many-to-many fields.
    """
    token = _restoring.set(True)
    try:
        yield
    finally:
        _restoring.reset(token)


def register_account_handlers() -> None:
    user = get_user_model()
    user_logged_in.connect(_logged_in, dispatch_uid="journal")
    user_logged_out.connect(_logged_out, dispatch_uid="journal")
    user_login_failed.connect(_login_failed, dispatch_uid="journal")
    for model in (user, Group, AccessToken, Token, TokenProxy):
        post_save.connect(_saved, model, dispatch_uid="journal")
        post_delete.connect(_deleted, model, dispatch_uid="journal")
    for through in (user.groups.through, user.user_permissions.through, Group.permissions.through):
        m2m_changed.connect(_rights_changed, through, dispatch_uid="journal")


def _logged_in(user: Any, **kwargs: Any) -> None:
    _note_of(user, Action.LOGGED_IN)


def _logged_out(user: Any, **kwargs: Any) -> None:
    if user is not None:
        _note_of(user, Action.LOGGED_OUT)


def _note_of(user: Any, action: Action) -> None:
    """Note what the account did itself, though the request does not have it yet or any more."""
    author = replace(current_author(), who=user.get_username(), kind="account")
    with acting(lambda: author):
        note(action)


def account_meant(credentials: dict[str, Any]) -> str:
    """Return the name of the account that somebody tried to log in to, empty if there is none.

    What is no account's name is neither kept nor logged: it may be a password in the wrong field.
    """
    given = str(credentials.get("username") or "")
    users = get_user_model().objects.filter(username=given)
    return str(users.values_list("username", flat=True).first() or "")


def _login_failed(credentials: dict[str, Any], request: Any = None, **kwargs: Any) -> None:
    known = account_meant(credentials)
    reason = "too_many" if getattr(request, "axes_locked_out", False) else "wrong_password"
    note_refusal(Action.LOGIN_REFUSED, known, account=known, reason=reason)


def _saved(instance: Any, created: bool, raw: bool, update_fields: Any, **kwargs: Any) -> None:
    if raw or (update_fields and set(update_fields) <= _UNTOLD):
        return
    if isinstance(instance, AccessToken | Token):
        if created:
            record(Action.TOKEN_MADE, facts=_facts(instance))
    else:
        record(Action.ACCOUNT_CHANGED, facts=_facts(instance) | {"made": created})


def _deleted(instance: Any, **kwargs: Any) -> None:
    if isinstance(instance, AccessToken | Token):
        record(Action.TOKEN_WITHDRAWN, facts=_facts(instance))
    else:
        record(Action.ACCOUNT_CHANGED, facts=_facts(instance) | {"deleted": True})


def _rights_changed(instance: Any, action: str, pk_set: Any, **kwargs: Any) -> None:
    if _restoring.get():
        return
    if action in ("post_add", "post_remove", "post_clear") and (pk_set or action == "post_clear"):
        facts = _facts(instance) | {"rights": action.removeprefix("post_")}
        record(Action.ACCOUNT_CHANGED, facts=facts)


def _facts(instance: Any) -> dict[str, Any]:
    """Return whose account, token or group it is."""
    match instance:
        case AccessToken():
            account = instance.user.get_username()
            return {"account": account, "token": instance.name, "scope": instance.scope}
        case Token():
            return {"account": instance.user.get_username()}
        case Group():
            return {"group": instance.name}
    return {"account": str(instance)}
