"""Options of commands: numbers within limits, files to be written, and options that need another one."""

from __future__ import annotations

import errno
import os
from argparse import ArgumentTypeError
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _


def positive_whole(text: str) -> int:
    """Return the whole number of 1 or more. Raise `ArgumentTypeError`."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(_("'%(given)s' is no whole number of 1 or more.") % {"given": text})
    return int(text)


def positive(text: str) -> float:
    """Return the finite number of 0 or more. Raise `ArgumentTypeError`."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ArgumentTypeError(_("'%(given)s' is no number of 0 or more.") % {"given": text})
    return number


def writable(text: str) -> Path:
    """Return the path of a file that can be written. Raise `ArgumentTypeError`: before the long work."""
    path = Path(text)
    place = path if path.exists() else path.parent
    reason = 0
    if path.is_dir():
        reason = errno.EISDIR
    elif not place.exists():
        reason = errno.ENOENT
    elif not os.access(place, os.W_OK):
        reason = errno.EACCES
    if reason:
        message = _("%(file)s cannot be written: %(reason)s.")
        raise ArgumentTypeError(message % {"file": path, "reason": os.strerror(reason)})
    return path


def require_with(options: Mapping[str, Any], needed: str, *names: str) -> None:
    """Raise `CommandError` if one of the options `names` is given without `needed`, for which it is."""
    if options[needed] is None or options[needed] is False:
        for name in names:
            if options[name]:
                given, other = (f"--{each.replace('_', '-')}" for each in (name, needed))
                message = _("%(given)s is for %(other)s alone: give both, or neither.")
                raise CommandError(message % {"given": given, "other": other})
