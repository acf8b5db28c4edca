"""Compare Milvus and the picture storage with SQL and repair the differences.

The check and the repair share one code path: without `mend` the same comparisons run and nothing is
written. A run can be interrupted at any step; the next run continues from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from enrollment import index, judging
from enrollment.gallery import pictures_without
from enrollment.index import Track, batches, index_batches, untracked
from enrollment.models import FaceEmbedding, FaceImage, Removal
from enrollment.upkeep.drift import EXAMPLES, Kind, Reconciliation
from enrollment.upkeep.picture_files import compare_files
from recognition.exceptions import RecognitionError, VectorStoreLocked
from recognition.networks import NETWORKS, find_weights, load_network, usable_names
from recognition.vector_store import (
    DEFAULT_PARTITION,
    StoredRow,
    get_vector_store,
    model_of_partition,
    partition_name,
)

# With a Milvus server, other processes may be storing pictures: first the file, then the row.
UPLOAD_TAKES_AT_MOST: Final = timedelta(minutes=15)
COMPARED_AT_A_TIME: Final = 1_000  # rows of Milvus looked up in SQL with one query

Status = FaceEmbedding.Status


def reconcile(
    *,
    mend: bool,
    rebuild: bool = False,
    keep: bool = False,
    model: str | None = None,
    files: bool = True,
    track: Track = untracked,
) -> Reconciliation:
    """Compare Milvus and the picture storage with SQL and, with `mend`, repair the differences.

    `keep` keeps embeddings of other weights, for installations that still use these. If a server
    holds the embedded database, `keep` computes vectors and leaves copying them to the server.
    `model` restricts the run to that model's embeddings and leaves files alone, as does `files=False`
    for all models. `rebuild` first empties Milvus, or that model's part of it. `track` wraps long loops, for a progress bar. Raise
    `VectorStoreUnavailable` when Milvus cannot be used; what was done before stays.
    """
    return _Run(mend=mend, keep=keep, model=model, files=files, track=track).run(rebuild)


class _Run:
    def __init__(
        self, *, mend: bool, keep: bool, model: str | None, files: bool, track: Track
    ) -> None:
        self.mend = mend
        self.files = files
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
        self._check_rows()
        if self.mend:
            self.result.removed += index.apply_deletions()
            if self.files:
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
        if self.files and not self.model:
            # With the embedded database no other process can enrol, so no row may follow.
            takes = timedelta(0) if self.store.is_embedded else UPLOAD_TAKES_AT_MOST
            before = self.started_at - takes
            compare_files(self.result, mend=self.mend, before=before, track=self.track)
        return self.result

    # Comparing SQL rows

    def _compute_beside_server(self) -> Reconciliation:
        """Compute the missing vectors; the server that holds the database copies them."""
        self._create_rows()
        lacking = self._waiting().filter(vector__isnull=True).values_list("pk", flat=True)
        ids = self._computable(list(lacking))
        for batch, begun in index_batches(ids, self.track, _("Computing")):
            index.compute(batch, begun)
            self.result.computed += len(batch) - self._note_failed(batch)
        self.result.waiting = self._waiting().filter(vector__isnull=False).count()
        return self.result

    def _empty(self) -> None:
        """Delete the vectors, then mark the rows pending.

        In this order, SQL is unchanged when the database is locked by another process.
        """
        if self.model:
            for name in self._stored_partitions():
                self.store.drop_partition(name)
        else:
            self.store.clear()
        self.rows.filter(status=Status.INDEXED).update(status=Status.PENDING)

    def _check_rows(self) -> None:
        self._note_rows(Kind.DELETION_PENDING, Removal.objects.all())
        for model, fingerprint in self.fingerprints.items():
            self._note_rows(Kind.NO_EMBEDDING, pictures_without(model=model))
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
        """Return unindexed rows that can be indexed.

        These are rows of the current weights, and rows with a vector whose model has no weights
        here.
        """
        ready = Q(vector__isnull=False) & ~Q(model__in=self.fingerprints)
        for model, fingerprint in self.fingerprints.items():
            ready |= Q(model=model, fingerprint=fingerprint)
        unfinished = Q(vector__isnull=True) | ~Q(status=Status.INDEXED)
        return self.rows.filter(ready & unfinished)

    def _create_rows(self) -> None:
        for model, fingerprint in self.fingerprints.items():
            lacking = pictures_without(model=model, fingerprint=fingerprint)
            ids = list(lacking.values_list("pk", flat=True))
            for batch in batches(ids, COMPARED_AT_A_TIME):
                # Another process may have created the rows or deleted the picture meanwhile.
                try:
                    with transaction.atomic():
                        index.create_pending(FaceImage.objects.filter(pk__in=batch), [model])
                except IntegrityError:
                    continue

    # Writing to Milvus

    def _index(self, ids: Iterable[int]) -> None:
        ids = self._computable(list(ids))
        for batch, begun in index_batches(ids, self.track):
            report = index.index_rows(batch, begun=begun)
            self.result.indexed += report.indexed
            if report.failed:
                self.store.ping()  # raises, and so ends the run, when Milvus is down
                self._note_failed(batch)

    def _note_failed(self, ids: Sequence[int]) -> int:
        """Count the failed embeddings among `ids` by reason; return how many."""
        failed = FaceEmbedding.objects.filter(pk__in=ids, status=Status.FAILED).only("error")
        reasons = [row.error_message for row in failed]
        self.result.unmended.update(reasons)
        return len(reasons)

    def _computable(self, ids: list[int]) -> list[int]:
        """Return the ids without those that need a network whose weights do not load."""
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

    # Comparing Milvus with SQL

    def _compare_partitions(self) -> None:
        self.store.compare_memory()  # which reloads itself and logs, if it differs
        # SQL rows are created before their partition, so list the partitions first.
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
        return [name for name in names if self.model in (None, model_of_partition(name))]

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
        """Return the ids that do not belong in the partition; add those to write again to
        `to_index`."""
        strays: list[int] = []
        # Read before Milvus is, as in `note_missing`: what is enrolled meanwhile is not missing.
        missing = set(self._indexed_ids(rows))
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
            missing.difference_update(row.id for row in batch)
        self.result.note(Kind.STRAY, strays)
        for some in batches(sorted(missing), COMPARED_AT_A_TIME):  # without those deleted meanwhile
            there = rows.filter(pk__in=some, status=Status.INDEXED)
            self._note_missing(there.values_list("pk", flat=True), to_index)
        return strays

    def _indexed_ids(self, rows: QuerySet[FaceEmbedding]) -> Iterator[int]:
        """Return the ids that should be in Milvus; vectors of replaced weights are never searched."""
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
        """Delete stray vectors before anything is written: Milvus Lite keeps one tombstone an id."""
        for name, ids in strays.items():
            self.store.delete(name, ids)
            self.store.erase(name, ids)
            self.result.removed += len(ids)
            for batch in batches(ids, COMPARED_AT_A_TIME):
                # Deleting an id from the wrong partition may delete it from the right one too.
                elsewhere = FaceEmbedding.objects.filter(pk__in=batch, vector__isnull=False)
                to_index.update(elsewhere.values_list("pk", flat=True))

    # Embeddings of replaced weights

    def _drop_stale(self) -> None:
        """Delete embeddings of replaced weights whose picture has an indexed current embedding."""
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
        """Judge the remaining pictures. Runs last, as indexing has already judged its own."""
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


def _truth(rows: QuerySet[FaceEmbedding], stored: list[StoredRow]) -> dict[int, tuple[str, str]]:
    found = rows.filter(pk__in=[row.id for row in stored]).values_list(
        "pk", "face_image__person__person_id", "face_image__original_path"
    )
    return {pk: (person_id, path) for pk, person_id, path in found}


def _stored_values(row: StoredRow) -> tuple[str, str]:
    return row.person_id, row.image_path


def pictures_to_embed() -> int:
    """Count pictures that were never embedded with the weights in use of some model."""
    lacking = FaceImage.objects.none()
    for name in usable_names():
        lacking |= pictures_without(model=name, fingerprint=find_weights(name).fingerprint)
    return lacking.count()


def known_models() -> list[str]:
    """Return the models that a run can be restricted to: registered ones and those with rows in
    SQL."""
    held = FaceEmbedding.objects.order_by().values_list("model", flat=True).distinct()
    return list(dict.fromkeys([*NETWORKS, *held]))
