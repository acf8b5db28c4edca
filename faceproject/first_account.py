"""The admin account that the environment names, for an installation that nobody set up by hand."""

from __future__ import annotations

import os
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils.translation import gettext

from enrollment.upkeep import SETTING_UP, one_at_a_time


def make_named_account() -> str:
    """Create the account of `DJANGO_SUPERUSER_…` if it is missing. Return a sentence if it was made.

    Raise `CommandError` if its password is too weak.
    """
    name = os.environ.get("DJANGO_SUPERUSER_USERNAME")
    password = os.environ.get("DJANGO_SUPERUSER_PASSWORD")
    users = get_user_model()
    if not (name and password):
        return ""
    with one_at_a_time(SETTING_UP):  # another server may start at the same time
        if users.objects.filter(username=name).exists():
            return ""
        _check_password(users(username=name), password)
        os.environ.setdefault("DJANGO_SUPERUSER_EMAIL", "")
        call_command("createsuperuser", interactive=False, verbosity=0)
    return gettext("Made the admin account '%(name)s'.") % {"name": name}


def has_admin() -> bool:
    """Return whether anybody can administer the installation."""
    return get_user_model().objects.filter(is_superuser=True).exists()


def _check_password(user: Any, password: str) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        reason = " ".join(error.messages)
        raise CommandError(f"DJANGO_SUPERUSER_PASSWORD: {reason}") from error
