"""`manage.py serve`: run the production server in one process."""

from __future__ import annotations

import logging
import threading
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils.translation import gettext, ngettext

from enrollment.gallery import faceless_pictures, pictures_out_of_search
from enrollment.upkeep import BacklogThread, is_upgrade_unfinished
from enrollment.web import accounts_with_old_tokens
from faceproject.first_account import has_admin, make_named_account
from faceproject.server import DRAIN_SECONDS, CannotListen, Server
from recognition.api.access import is_loopback_name, open_to, root_address
from recognition.api.peer import is_supported
from recognition.conf import get_settings
from recognition.exceptions import RecognitionError, VectorStoreLocked, VectorStoreUnavailable
from recognition.liveness import has_liveness, load_liveness
from recognition.networks import has_weights, is_unconverted, load_network, usable_names
from recognition.vector_store import get_vector_store, reset_vector_store

logger = logging.getLogger(__name__)

NAMED_PICTURES = 5  # pictures without a face that the start message names


class Command(BaseCommand):
    help = "Serves the page, the admin and the API at HOST and PORT until SIGTERM or Ctrl-C."
    requires_migrations_checks = True

    def handle(self, **options: Any) -> None:
        if is_upgrade_unfinished():
            raise CommandError(
                gettext("An upgrade was cut off. Run 'script/manage upgrade' to go on with it.")
            )
        server = self._listen()
        try:
            self._say_account()
            self._say_old_tokens()
        except DatabaseError as error:
            raise CommandError(
                gettext(
                    "The SQL database does not answer as it should (%(reason)s). Bring it up to date "
                    "with 'script/manage migrate'; see DATABASE_URL in docs/configuration.md."
                )
                % {"reason": error}
            ) from error
        self._open_store()
        self._say_faceless()
        if lost := pictures_out_of_search():
            self.stderr.write(lost)
        self._say_addresses(server.port)
        threading.Thread(target=preload, name="preload", daemon=True).start()
        backlog = BacklogThread()
        backlog.start()
        try:
            server.run()
        finally:
            self._say(gettext("Stopping: the vectors are written to disk."))
            backlog.stop(timeout=DRAIN_SECONDS)
            reset_vector_store()

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _listen(self) -> Server:
        from faceproject.wsgi import application  # which loads the middleware

        try:
            return Server(
                application,
                host=settings.HOST,
                port=settings.PORT,
                threads=settings.THREADS,
            )
        except CannotListen as error:
            raise CommandError(str(error)) from error

    def _say_account(self) -> None:
        """Create the account that the environment names; if there is no admin, say how to make one."""
        if made := make_named_account():
            self._say(made)
        elif not has_admin():
            self._say(
                gettext(
                    "There is no admin account yet. Make one, while this runs, with: "
                    "script/manage createsuperuser"
                )
            )

    def _say_old_tokens(self) -> None:
        if names := accounts_with_old_tokens():
            self._say(
                gettext(
                    "These accounts have tokens of version 1.0, which are kept readable and never end; make "
                    "them new ones, then delete the old: %(names)s."
                )
                % {"names": ", ".join(names)}
            )

    def _open_store(self) -> None:
        """Open the vector store. Raise `CommandError` if another process holds it.

        An unreachable server only gives a warning.
        """
        try:
            get_vector_store().ping()
        except VectorStoreLocked as error:
            raise CommandError(str(error)) from error
        except VectorStoreUnavailable as error:
            consequence = gettext("Until then searches answer 503.")
            self.stderr.write(f"{error} {consequence}")

    def _say_faceless(self) -> None:
        """Warn of enrolled pictures without a face, which earlier versions accepted.

        They are named by number: a service's start stands in its log, which names nobody.
        """
        faceless = faceless_pictures().order_by("pk").values_list("pk", flat=True)
        if count := faceless.count():
            named = ", ".join(f"#{pk}" for pk in faceless[:NAMED_PICTURES])
            text = ngettext(
                "In %(count)d enrolled picture no face was found (%(named)s). It can match anybody: see "
                "'manage.py audit_gallery'.",
                "In %(count)d enrolled pictures no face was found (%(named)s). They can match anybody: "
                "see 'manage.py audit_gallery'.",
                count,
            )
            more = ", …" if count > NAMED_PICTURES else ""
            self.stderr.write(text % {"count": count, "named": named + more})

    def _say_addresses(self, port: int) -> None:
        host = settings.HOST
        root = root_address(port)
        self._say(gettext("Search page:  %(url)s") % {"url": f"{root}/"})
        self._say(gettext("Admin:        %(url)s") % {"url": f"{root}/admin/"})
        self._say(gettext("API:          %(url)s") % {"url": f"{root}/api/docs"})
        self._say(open_to() or gettext("Everybody needs an account."))
        if settings.API_AUTH_REQUIRED is None and not is_supported():
            self._say(
                gettext(
                    "This system does not tell whose program connects, so nobody is let in without an "
                    "account. API_AUTH_REQUIRED=0 opens the server to whoever reaches it."
                )
            )
        if not is_loopback_name(host) and not settings.HTTPS:
            self._say(
                gettext(
                    "HOST=%(host)s serves other machines over plain HTTP: passwords, tokens and faces can "
                    "be read on the way. Put a proxy with TLS in front and set HTTPS=1; see "
                    "docs/configuration.md."
                )
                % {"host": host}
            )
        if not is_loopback_name(host) and all(map(is_loopback_name, settings.ALLOWED_HOSTS)):
            self._say(
                gettext(
                    "Other machines are answered 400 until ALLOWED_HOSTS lists the names and "
                    "addresses by which they call this one."
                )
            )


def preload() -> None:
    """Load the models of PRELOAD_MODELS, or the default one, so that the first request need not wait.

    Convert the others, too, where that was not done yet: whoever enrols first would wait for it.
    """
    settings = get_settings()
    default = (settings.default_model,) if has_weights(settings.default_model) else ()
    first = settings.preload_models or default
    for name in dict.fromkeys([*first, *usable_names()]):
        try:
            if name in first or is_unconverted(name):
                load_network(name)
        except RecognitionError as error:
            logger.error("%s is not loaded at the start: %s", name, error)
    if has_liveness():  # whoever fetched it asks for it
        try:
            load_liveness()
        except RecognitionError as error:
            logger.error("The liveness check is not loaded at the start: %s", error)
