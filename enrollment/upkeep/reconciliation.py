"""Compares Milvus and the picture storage with SQL, and makes them equal to it.

Looking and mending are one walk: without `mend` the same comparisons are made and nothing is written.
Every step leaves a state that the next run understands, so a run may be cut off anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from enrollment import index, judging
from enrollment.models import FaceEmbedding, FaceImage, Removal
from enrollment.upkeep.drift import EXAMPLES, Kind, Reconciliation
from enrollment.upkeep.loops import Track, batches, untracked
from enrollment.upkeep.picture_files import compare_files
from recognition.exceptions import RecognitionError, VectorStoreLocked
from recognition.networks import NETWORKS, find_weights, load_network, usable_names
from recognition.vector_store import (
    DEFAULT_PARTITION,
    StoredRow,
    get_vector_store,
    partition_name,
)

COMPARED_AT_A_TIME: Final = 1_000  # rows of Milvus looked up in SQL by one query

Status = FaceEmbedding.Status


def reconcile(
    *,
    mend: bool,
    rebuild: bool = False,
    keep: bool = False,
    model: str | None = None,
    track: Track = untracked,
) -> Reconciliation:
    """Compares the copies with SQL and, with `mend`, makes them equal to it.

    `keep` leaves the embeddings of other weights where they are: those go on answering whoever still
    has these weights. With it a database that the server has open is no obstacle: then vectors are
    made, and left to the server to copy.
    `model` restricts the run to that model's embeddings; files are then left alone. `rebuild` empties
    Milvus first (of that model). `track` wraps long loops: items, what is done, how many if known.
    Raises `VectorStoreUnavailable` when Milvus cannot be used; what was done until then stays.
    """
    return _Run(mend=mend, keep=keep, model=model, track=track).run(rebuild)


class _Run:
    def __init__(self, *, mend: bool, keep: bool, model: str | None, track: Track) -> None:
        self.mend = mend
        self.keep = keep
        self.model = model
        self.track = track
        self.started_at = timezone.now()
        self.store = get_vector_store()
        self.result = Reconciliation()
        self.rows = FaceEmbedding.objects.filter(**({"model": model} if model else {}))
        self.fingerprints = {
            name: find_weights(name).fingerprint for name in usable_names() if model in (None, name)
        }

    def run(self, rebuild: bool) -> Reconciliation:
        if rebuild:
            self._empty()
        try:
            self.store.ping()
        except VectorStoreLocked:
            if not (self.keep and self.mend):
                raise
            return self._compute_beside_server()
        self._look_at_rows()
        if self.mend:
            self.result.removed += index.apply_deletions()
            self.result.deleted_files += index.remove_files()[0]
            self._create_rows()
            self._index(self._waiting().values_list("pk", flat=True))
        self._compare_partitions()
        if self.mend:
            if not self.keep:
                self._drop_stale()
            self._drop_unused_partitions()
            self.store.flush()
        if not self.model:
            self._judge()
            compare_files(
                self.result,
                mend=self.mend,
                started_at=self.started_at,
                alone=self.store.is_embedded,  # whose process is the only one to enrol
                track=self.track,
            )
        return self.result

    # SQL alone

    def _compute_beside_server(self) -> Reconciliation:
        """Makes the vectors; the server, which has the database, copies them by itself."""
        self._create_rows()
        lacking = self._waiting().filter(vector__isnull=True).values_list("pk", flat=True)
        ids = self._computable(list(lacking))
        for batch in batches(self.track(ids, _("Computing"), len(ids)), index.BATCH_SIZE):
            index.compute(batch)
            self.result.computed += len(batch) - self._note_failed(batch)
        self.result.waiting = self._waiting().filter(vector__isnull=False).count()
        return self.result

    def _empty(self) -> None:
        """Emptied first, so that a database held by another process refuses before SQL changes."""
        if self.model:
            for name in self._stored_partitions():
                self.store.drop_partition(name)
        else:
            self.store.clear()
        self.rows.filter(status=Status.INDEXED).update(status=Status.PENDING)

    def _look_at_rows(self) -> None:
        self._note_rows(Kind.DELETION_PENDING, Removal.objects.all())
        for model, fingerprint in self.fingerprints.items():
            self._note_rows(Kind.NO_EMBEDDING, _pictures_without(model=model))
            self._note_rows(Kind.STALE, self._stale(model, fingerprint))
        self._note_rows(Kind.NOT_INDEXED, self._waiting())
        for model in self._models_of_rows() - set(self.fingerprints):
            count = self.rows.filter(model=model).count()
            self.result.notes.append(
                ngettext(
                    "%(count)d embedding of %(model)s is kept as it is: the model has no weights here.",
                    "%(count)d embeddings of %(model)s are kept as they are: the model has no weights "
                    "here.",
                    count,
                )
                % {"count": count, "model": model}
            )

    def _note_rows(self, kind: Kind, rows: QuerySet[Any]) -> None:
        examples = list(rows.order_by("pk").values_list("pk", flat=True)[:EXAMPLES])
        self.result.note(kind, examples, rows.count() if examples else 0)

    def _models_of_rows(self) -> set[str]:
        return set(self.rows.order_by().values_list("model", flat=True).distinct())

    def _stale(self, model: str, fingerprint: str) -> QuerySet[FaceEmbedding]:
        return self.rows.filter(model=model).exclude(fingerprint=fingerprint)

    def _waiting(self) -> QuerySet[FaceEmbedding]:
        """Rows to be indexed that can be: of the present weights, or of absent ones with a vector."""
        ready = Q(vector__isnull=False) & ~Q(model__in=self.fingerprints)
        for model, fingerprint in self.fingerprints.items():
            ready |= Q(model=model, fingerprint=fingerprint)
        unfinished = Q(vector__isnull=True) | ~Q(status=Status.INDEXED)
        return self.rows.filter(ready & unfinished)

    def _create_rows(self) -> None:
        for model, fingerprint in self.fingerprints.items():
            lacking = _pictures_without(model=model, fingerprint=fingerprint)
            ids = list(lacking.values_list("pk", flat=True))
            for batch in batches(ids, COMPARED_AT_A_TIME):
                # Another process may have made the rows, or deleted the picture, meanwhile.
                try:
                    with transaction.atomic():
                        index.create_pending(FaceImage.objects.filter(pk__in=batch), [model])
                except IntegrityError:
                    continue

    # Into Milvus

    def _index(self, ids: Iterable[int]) -> None:
        ids = self._computable(list(ids))
        for batch in batches(self.track(ids, _("Indexing"), len(ids)), index.BATCH_SIZE):
            report = index.index_rows(batch)
            self.result.indexed += report.indexed
            if report.failed:
                self.store.ping()  # a Milvus that went away ends the run
                self._note_failed(batch)

    def _note_failed(self, ids: Sequence[int]) -> int:
        """Counts those of the embeddings that failed, by reason; returns how many."""
        failed = FaceEmbedding.objects.filter(pk__in=ids, status=Status.FAILED).only("error")
        reasons = [row.error_message for row in failed]
        self.result.unmended.update(reasons)
        return len(reasons)

    def _computable(self, ids: list[int]) -> list[int]:
        """The ids less those that need a network whose weights do not load."""
        lacking: dict[str, set[int]] = {}
        for batch in batches(ids, COMPARED_AT_A_TIME):
            rows = FaceEmbedding.objects.filter(pk__in=batch, vector__isnull=True)
            for pk, model in rows.values_list("pk", "model"):
                lacking.setdefault(model, set()).add(pk)
        hopeless: set[int] = set()
        for model, waiting in lacking.items():
            try:
                load_network(model)
            except RecognitionError as error:
                self.result.unmended[str(error)] += len(waiting)
                hopeless |= waiting
        return [pk for pk in ids if pk not in hopeless]

    # Milvus against SQL

    def _compare_partitions(self) -> None:
        # Rows come before their partition, so the partitions are listed before the rows.
        stored = self._stored_partitions()
        expected = self._expected_partitions()
        strays: dict[str, list[int]] = {}
        to_index: set[int] = set()
        for name in stored:
            if name in expected:
                strays[name] = self._compare_partition(name, expected.pop(name), to_index)
            else:
                self.result.note(Kind.STRAY_PARTITION, [name])
        for rows in expected.values():
            self._note_missing(self._indexed_ids(rows), to_index)
        if not self.model:
            strays[DEFAULT_PARTITION] = [row.id for row in self.store.iterate(DEFAULT_PARTITION)]
            self.result.note(Kind.STRAY, strays[DEFAULT_PARTITION])
        if self.mend:
            self._remove_strays(strays, to_index)
            self._index(sorted(to_index))

    def _stored_partitions(self) -> list[str]:
        names = self.store.partitions()
        return [name for name in names if self.model in (None, name.rpartition("_")[0])]

    def _expected_partitions(self) -> dict[str, QuerySet[FaceEmbedding]]:
        pairs = self.rows.order_by().values_list("model", "fingerprint").distinct()
        return {
            partition_name(model, fingerprint): self.rows.filter(
                model=model, fingerprint=fingerprint
            )
            for model, fingerprint in pairs
        }

    def _compare_partition(
        self, name: str, rows: QuerySet[FaceEmbedding], to_index: set[int]
    ) -> list[int]:
        """Returns the ids that are not the partition's; adds those to write again to `to_index`."""
        strays: list[int] = []
        seen: set[int] = set()
        label = _("Comparing %(name)s") % {"name": name}
        stored = self.track(self.store.iterate(name), label, rows.count())
        for batch in batches(stored, COMPARED_AT_A_TIME):
            truth = _truth(rows, batch)
            strays += [row.id for row in batch if row.id not in truth]
            different = [
                row.id for row in batch if row.id in truth and truth[row.id] != _stored_values(row)
            ]
            self.result.note(Kind.DIFFERENT, different)
            to_index.update(different)
            seen.update(row.id for row in batch)
        self.result.note(Kind.STRAY, strays)
        self._note_missing((pk for pk in self._indexed_ids(rows) if pk not in seen), to_index)
        return strays

    def _indexed_ids(self, rows: QuerySet[FaceEmbedding]) -> Iterator[int]:
        """Those that should be in Milvus; replaced weights answer no search, so theirs need not."""
        stale = Q(pk__in=[])
        for model, fingerprint in self.fingerprints.items():
            stale |= Q(model=model) & ~Q(fingerprint=fingerprint)
        rows = rows.filter(status=Status.INDEXED, vector__isnull=False).exclude(stale)
        return rows.values_list("pk", flat=True).iterator()

    def _note_missing(self, ids: Iterable[int], to_index: set[int]) -> None:
        missing = list(ids)
        self.result.note(Kind.MISSING, missing)
        to_index.update(missing)

    def _remove_strays(self, strays: dict[str, list[int]], to_index: set[int]) -> None:
        """Removed before anything is written: Milvus Lite keeps one tombstone for an id."""
        for name, ids in strays.items():
            self.store.delete(name, ids)
            self.store.erase(name, ids)
            self.result.removed += len(ids)
            for batch in batches(ids, COMPARED_AT_A_TIME):
                # An id in the wrong partition may have been taken out of the right one with it.
                elsewhere = FaceEmbedding.objects.filter(pk__in=batch, vector__isnull=False)
                to_index.update(elsewhere.values_list("pk", flat=True))

    # What replaced weights left

    def _drop_stale(self) -> None:
        """Last, and only where the picture's new embedding can be found by a search."""
        for model, fingerprint in self.fingerprints.items():
            stale = self._stale(model, fingerprint)
            current = FaceEmbedding.objects.filter(
                face_image=OuterRef("face_image"),
                model=model,
                fingerprint=fingerprint,
                status=Status.INDEXED,
            )
            replaced = list(stale.filter(Exists(current)).values_list("pk", flat=True))
            label = _("Dropping replaced embeddings")
            for batch in batches(self.track(replaced, label, len(replaced)), COMPARED_AT_A_TIME):
                FaceEmbedding.objects.filter(pk__in=batch).delete()
            self.result.removed += len(replaced)
            if kept := stale.count():
                reason = _(
                    "The picture was not embedded again with the new weights of %(model)s; its old "
                    "embedding is kept."
                )
                self.result.unmended[reason % {"model": model}] += kept
        index.apply_deletions()

    def _drop_unused_partitions(self) -> None:
        for name in self._stored_partitions():
            if name not in self._expected_partitions():
                self.store.drop_partition(name)
                self.result.dropped_partitions += 1

    def _judge(self) -> None:
        """After all else: what was indexed on the way is judged already."""
        waiting = judging.unjudged()
        self._note_rows(Kind.NOT_JUDGED, waiting)
        if not self.mend:
            return
        ids = list(waiting.values_list("pk", flat=True))
        for batch in batches(self.track(ids, _("Judging"), len(ids)), index.BATCH_SIZE):
            judging.judge(batch)
        left = waiting.filter(pk__in=ids).count()
        self.result.judged = len(ids) - left
        if left:
            reason = _("The picture was not compared with the gallery; the log says why.")
            self.result.unmended[reason] += left


def _pictures_without(**embedding: str) -> QuerySet[FaceImage]:
    rows = FaceEmbedding.objects.filter(face_image=OuterRef("pk"), **embedding)
    return FaceImage.objects.filter(~Exists(rows))


def _truth(rows: QuerySet[FaceEmbedding], stored: list[StoredRow]) -> dict[int, tuple[str, str]]:
    found = rows.filter(pk__in=[row.id for row in stored]).values_list(
        "pk", "face_image__person__person_id", "face_image__original_path"
    )
    return {pk: (person_id, path) for pk, person_id, path in found}


def _stored_values(row: StoredRow) -> tuple[str, str]:
    return row.person_id, row.image_path


def known_models() -> list[str]:
    """The models a run can be restricted to: those of the registry and those that SQL still holds."""
    held = FaceEmbedding.objects.order_by().values_list("model", flat=True).distinct()
    return list(dict.fromkeys([*NETWORKS, *held]))
