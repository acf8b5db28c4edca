"""`manage.py create_token`: create an access token and print it once."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.translation import gettext as _

from enrollment.management.days import MOST_DAYS
from enrollment.models import AccessToken


class Command(BaseCommand):
    help = "Makes a token for a program and prints it, this once. The admin lists and revokes it."
    requires_system_checks = ["recognition", "files"]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("account", help="The account's name.")
        parser.add_argument("--name", required=True, help="Of the program that gets it.")
        parser.add_argument(
            "--scope", choices=AccessToken.Scope.values, default=AccessToken.Scope.SEARCH.value
        )
        parser.add_argument("--days", type=int, default=365, help="0: it never ends.")

    def handle(self, **options: Any) -> None:
        user = get_user_model().objects.filter(username=options["account"]).first()
        if user is None:
            message = _("There is no account '%(name)s'. Make it in the admin under Users.")
            raise CommandError(message % {"name": options["account"]})
        days = options["days"]
        if not 0 <= days <= MOST_DAYS:
            message = _("--days is %(days)d; 0 to %(most)d were expected.")
            raise CommandError(message % {"days": days, "most": MOST_DAYS})
        end = timezone.now() + timedelta(days=days) if days else None
        try:
            name = AccessToken._meta.get_field("name").clean(options["name"].strip(), None)
        except ValidationError as error:
            raise CommandError(f"--name: {' '.join(error.messages)}") from error
        _token, secret = AccessToken.issue(
            user=user, name=name, scope=options["scope"], expires_at=end
        )
        self.stdout.write(secret)
