"""`manage.py milvus`: serve the embedded vector database to several processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management import BaseCommand, CommandError
from django.utils.translation import gettext as _

from recognition.api.access import is_loopback_name
from recognition.conf import get_settings
from recognition.exceptions import RecognitionError
from recognition.vector_store import LiteVectorStore

DEFAULT_PORT: Final = 19530


class Command(BaseCommand):
    help = (
        "Serves the embedded vector database to other processes of this machine, until SIGTERM or "
        "Ctrl-C. For them, and for this, MILVUS_URI is http://127.0.0.1:19530 or another free port."
    )
    requires_system_checks = ["recognition", "files"]

    def handle(self, **options: Any) -> None:
        uri = str(get_settings().milvus_uri)
        parts = urlsplit(uri)
        is_address = "://" in uri
        if is_address and not (
            parts.scheme in ("http", "tcp") and is_loopback_name(parts.hostname or "")
        ):
            raise CommandError(
                _(
                    "MILVUS_URI names a Milvus server elsewhere, which needs none of this. To serve the "
                    "embedded database set MILVUS_URI to http://127.0.0.1:19530."
                )
            )
        folder = settings.DATA_DIR / "milvus_face.db" if is_address else Path(uri)
        port = parts.port or DEFAULT_PORT if is_address else DEFAULT_PORT
        _check_free(folder)
        self.stdout.write(
            _(
                "Serving the vector database. For the other processes: MILVUS_URI=http://127.0.0.1:%d"
            )
            % port
        )
        self.stdout.flush()
        _become_server(folder, port)


def _check_free(folder: Path) -> None:
    """Create the folder for its owner only. Raise `CommandError` if another process has it open."""
    store = LiteVectorStore(folder)
    try:
        store.ping()
    except RecognitionError as error:
        raise CommandError(str(error)) from error
    store.close()


def _become_server(folder: Path, port: int) -> None:
    program = Path(sys.executable).with_name("milvus-lite")
    # Only one worker: concurrent writes would lose rows.
    words = [
        "server",
        "--data-dir",
        folder,
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--max-workers",
        1,
    ]
    os.execv(program, [str(word) for word in (program, *words)])  # noqa: S606
