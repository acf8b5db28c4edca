"""The errors of the vector store: what failed, and what the user can do."""

from __future__ import annotations

import logging

from recognition.exceptions import VectorStoreLocked, VectorStoreUnavailable
from recognition.log_text import first_line
from recognition.sentences import gettext as _

logger = logging.getLogger(__name__)


def database_locked() -> VectorStoreLocked:
    """Return the error for an embedded database that another process has open."""
    return VectorStoreLocked(
        _(
            "The embedded vector database is open in another process, usually the running "
            "server. Stop that one first; or serve the database to both with `script/milvus` "
            "and set MILVUS_URI to http://127.0.0.1:19530."
        )
    )


def folder_is_file(error: OSError) -> VectorStoreUnavailable:
    """Return the error for a file in place of the embedded database's folder; log `error`."""
    _log(error)
    return VectorStoreUnavailable(
        _(
            "MILVUS_URI names a file, and the embedded vector database is a folder. Move the file "
            "away (an older Milvus Lite made it), then run `manage.py reindex`."
        )
    )


def database_failed(error: Exception) -> VectorStoreUnavailable:
    """Return the error for a failure of the embedded database; log `error`."""
    _log(error)
    return VectorStoreUnavailable(
        _(
            "The embedded vector database failed. Check that the folder in MILVUS_URI is writable and "
            "its disk not full. If it is damaged, stop the server and run "
            "`manage.py reindex --rebuild`: it is made anew from SQL."
        )
    )


def server_failed(error: Exception) -> VectorStoreUnavailable:
    """Return the error for a failure of the Milvus server; log `error`."""
    _log(error)
    return VectorStoreUnavailable(
        _(
            "The Milvus server did not answer or refused the call. Check that it runs and that "
            "MILVUS_URI and MILVUS_TOKEN are right; then run `manage.py reindex`."
        )
    )


def other_schema() -> VectorStoreUnavailable:
    """Return the error for a collection of our name with another schema."""
    return VectorStoreUnavailable(
        _(
            "The collection face_embeddings in the vector database has other fields than this "
            "version writes. Nothing was changed. Point MILVUS_URI at an empty database, or "
            "replace the collection with `manage.py reindex --rebuild`."
        )
    )


def _log(error: Exception) -> None:
    logger.warning("Milvus failed: %s: %s", type(error).__name__, first_line(error))
