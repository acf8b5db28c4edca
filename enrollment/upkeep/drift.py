"""Differences between SQL and its copies, and the result of a reconciliation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from django.utils.translation import gettext_lazy

EXAMPLES: Final = 5  # ids listed for each kind of drift


class Kind(Enum):
    """The ways in which Milvus and the picture storage can differ from SQL."""

    DELETION_PENDING = gettext_lazy(
        "vectors and files of deleted pictures that are still to be removed"
    )
    NO_EMBEDDING = gettext_lazy("pictures without an embedding")
    STALE = gettext_lazy("embeddings made with replaced weights")
    NOT_INDEXED = gettext_lazy("embeddings pending or failed")
    MISSING = gettext_lazy("embeddings missing in Milvus")
    DIFFERENT = gettext_lazy("vectors with another person or path than in SQL")
    STRAY = gettext_lazy("vectors in Milvus that no embedding accounts for")
    STRAY_PARTITION = gettext_lazy("partitions in Milvus that no embedding accounts for")
    NOT_JUDGED = gettext_lazy("pictures not compared with the gallery")
    ORPHAN_FILE = gettext_lazy("stored files that no row names")
    MISSING_FILE = gettext_lazy("pictures whose file is missing")
    MISSING_DOCUMENT = gettext_lazy("consents whose document is missing")


@dataclass(slots=True)
class Finding:
    """How often one kind of drift was found, with the first few ids or names."""

    count: int = 0
    examples: list[int | str] = field(default_factory=list)


@dataclass(slots=True)
class Reconciliation:
    """What a reconciliation found, repaired, and could not repair."""

    found: dict[Kind, Finding] = field(default_factory=dict)
    indexed: int = 0  # embeddings written to Milvus
    computed: int = 0  # embeddings computed while a server holds the vector database
    waiting: int = 0  # embeddings that the server still has to write to Milvus
    removed: int = 0  # deleted vectors and embeddings
    dropped_partitions: int = 0
    deleted_files: int = 0
    judged: int = 0  # pictures compared with the gallery, without the newly indexed ones
    unmended: Counter[str] = field(default_factory=Counter)  # by reason
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        done = (
            self.indexed,
            self.removed,
            self.dropped_partitions,
            self.deleted_files,
            self.judged,
        )
        return any(done)

    def note(self, kind: Kind, ids: Sequence[int | str], count: int | None = None) -> None:
        """Record `ids` under the kind; `count` is their full number if `ids` holds only the first."""
        if ids:
            finding = self.found.setdefault(kind, Finding())
            finding.count += len(ids) if count is None else count
            finding.examples += ids[: EXAMPLES - len(finding.examples)]
