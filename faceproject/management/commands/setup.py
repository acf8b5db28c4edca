"""`manage.py setup`: from an installed project to the first search, by questions or by flags."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import BaseCommand, CommandError, call_command
from django.utils.translation import gettext as _

from enrollment.gallery import gallery_is_empty
from faceproject.configuration import SETTINGS, as_text
from faceproject.environment import write_settings
from faceproject.first_account import has_admin, make_named_account
from recognition.api.access import open_to, root_address
from recognition.extras import EXTRAS
from recognition.setting import Setting

ASKED: Final = (
    "LANGUAGE_CODE",
    "HOST",
    "ALLOWED_HOSTS",
    "API_AUTH_REQUIRED",
    "PERSON_KEEP_DAYS",
    "SEARCH_LOG_DAYS",
)
KNOWN: Final = {item.name: item for item in SETTINGS}


class Command(BaseCommand):
    help = (
        "Asks for the language, the address, who needs an account, and retention, and writes the answers "
        "into .env; makes the database and the first account, fetches weights, and tests everything once. "
        "May be run again."
    )
    requires_system_checks: list[str] = []  # what is wrong may be what is to be set

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-input", action="store_true", help="ask nothing")
        parser.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for .env"
        )
        parser.add_argument(
            "--fetch",
            action="append",
            default=[],
            choices=[*EXTRAS],
            help="files to download and verify; may be given several times",
        )
        parser.add_argument("--apply", action="store_true", help="leave out the settings")

    def handle(self, **options: Any) -> None:
        if options["apply"]:
            self._apply(options["fetch"], asks=not options["no_input"])
            return
        given = dict(_parsed(each) for each in options["set"])
        if not options["no_input"]:
            given |= {name: self._ask(KNOWN[name]) for name in ASKED if name not in given}
            given = {name: value for name, value in given.items() if value is not None}
        if given:
            self._write(given)
        # The settings were read when this process began; the next one begins with the new ones.
        words = [sys.executable, str(settings.BASE_DIR / "manage.py"), "setup", "--apply"]
        words += ["--no-input"] if options["no_input"] else []
        words += [f"--fetch={name}" for name in options["fetch"]]
        self.stdout.flush()
        status = subprocess.call(words, env=os.environ | given)  # noqa: S603 (our own command)
        if status:
            sys.exit(status)

    def _ask(self, item: Setting) -> str | None:
        """Return the answer as it is written in `.env`; None to leave the setting as it is."""
        now = os.environ.get(item.name) or item.shown or item.written(item.default)
        self.stdout.write(f"\n{item.name}: {as_text(item.meaning)}")
        question = _("%(expected)s [%(now)s]: ") % {"expected": item.expected, "now": now}
        while True:
            answer = self._input(question).strip()
            if not answer:
                return None
            try:
                item.parse(answer)
            except (ValueError, ImproperlyConfigured):
                self.stdout.write(_expected(item, answer))
            else:
                return answer

    def _input(self, question: str) -> str:
        self.stdout.write(question, ending="")
        self.stdout.flush()
        try:
            return input()
        except EOFError:
            return ""

    def _write(self, values: dict[str, str]) -> None:
        file = Path(os.environ.get("ENV_FILE") or settings.BASE_DIR / ".env")
        try:
            if file.exists() and not file.is_file():
                raise OSError(file)
            write_settings(file, values)
        except (OSError, ValueError) as error:
            lines = " ".join(f"{name}={value}" for name, value in values.items())
            raise CommandError(
                _(
                    "The settings cannot be written to %(file)s. Set them in the environment instead: "
                    "%(lines)s"
                )
                % {"file": file.name, "lines": lines}
            ) from error
        self.stdout.write(_("Written to %(file)s.") % {"file": file.name})

    def _apply(self, names: list[str], *, asks: bool) -> None:
        steps: dict[str, Callable[[], object]] = {
            _("The database"): lambda: call_command("upgrade", no_reindex=True),
            _("The first account"): lambda: self._account(asks=asks),
            **{name: lambda name=name: call_command("fetch_weights", name) for name in names},
            _("A test from a picture to a search"): lambda: call_command("diagnose"),
        }
        failed = [name for name, step in steps.items() if not self._try(name, step)]
        self.stdout.write("\n" + (open_to() or _("Everybody needs an account.")))
        if failed:
            raise CommandError(_("Does not work: %(names)s.") % {"names": ", ".join(failed)})
        page = root_address(settings.PORT) + ("/people/new" if gallery_is_empty() else "/")
        self.stdout.write(_("Now start script/server and open %(page)s.") % {"page": page})

    def _try(self, name: str, step: Callable[[], object]) -> bool:
        self.stdout.write(self.style.MIGRATE_HEADING(f"\n{name}"))
        self.stdout.flush()
        try:
            step()
        except CommandError as error:
            self.stderr.write(self.style.ERROR(str(error)))
            return False
        return True

    def _account(self, *, asks: bool) -> None:
        if made := make_named_account():
            self.stdout.write(made)
        elif has_admin():
            self.stdout.write(_("There is one."))
        elif asks:
            call_command("createsuperuser")
        else:
            raise CommandError(
                _(
                    "There is none. Set DJANGO_SUPERUSER_USERNAME and DJANGO_SUPERUSER_PASSWORD, or make "
                    "one with 'script/manage createsuperuser'."
                )
            )


def _parsed(text: str) -> tuple[str, str]:
    """Return the name and value of NAME=VALUE. Raise `CommandError` if it is no setting."""
    name, _equals, value = text.partition("=")
    item = KNOWN.get(name)
    if item is None:
        raise CommandError(
            _("'%(name)s' is no setting. They are listed in .env.example.") % {"name": name}
        )
    try:
        item.parse(value)
    except (ValueError, ImproperlyConfigured) as error:
        raise CommandError(_expected(item, "…" if item.is_secret else value)) from error
    return name, value


def _expected(item: Setting, given: str) -> str:
    return _("%(name)s: '%(given)s' was given, and %(expected)s is expected.") % {
        "name": item.name,
        "given": given,
        "expected": item.expected,
    }
