"""The indexing state of pictures and persons, as SQL annotations and as badges."""

from __future__ import annotations

from typing import NamedTuple

from django.db.models import (
    Case,
    Count,
    Exists,
    OuterRef,
    Q,
    QuerySet,
    TextChoices,
    Value,
    When,
)
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from enrollment import gallery
from enrollment.gallery import count_of, pictures_of_each
from enrollment.models import Doubt, FaceEmbedding, FaceImage, Person, SearchEntry
from recognition.networks import find_weights, usable_names

Status = FaceEmbedding.Status


class SyncState(TextChoices):
    """The indexing state of a picture; a person has the worst state of their pictures."""

    INDEXED = "indexed", _("searchable")
    PENDING = "pending", _("not searchable yet")
    FAILED = "failed", _("failed")


class InSearches(NamedTuple):
    """How many pictures searches find, do not find yet, and will not find before it is mended."""

    found: int
    waiting: int
    failed: int


def in_searches(pictures: int) -> InSearches:
    """Return the counts for a gallery of so many pictures, by what their embeddings' rows say."""
    rows = FaceEmbedding.objects.order_by()
    failed = rows.filter(status=Status.FAILED).values("face_image").distinct()
    pending = rows.filter(status=Status.PENDING).exclude(face_image__in=failed)
    # Far faster than a look for the pictures that no row names.
    named = rows.aggregate(count=Count("face_image", distinct=True))["count"]
    waiting = pending.values("face_image").distinct().count() + pictures - named
    broken = failed.count()
    return InSearches(pictures - waiting - broken, waiting, broken)


def is_failed() -> Q:
    """Return a filter for pictures with a failed embedding."""
    return Q(Exists(_embeddings().filter(status=Status.FAILED)))


def is_pending() -> Q:
    """Return a filter for pictures with a pending embedding, or without one of the current weights."""
    pending = ~Exists(_embeddings()) | Exists(_embeddings().filter(status=Status.PENDING))
    for model in usable_names():
        current = _embeddings().filter(model=model, fingerprint=find_weights(model).fingerprint)
        pending |= ~Exists(current)
    return pending & ~is_failed()


def is_doubtful() -> Q:
    """Return a filter for pictures with an open doubt."""
    return Q(Exists(Doubt.objects.filter(face_image=OuterRef("pk"))))


def _embeddings() -> QuerySet[FaceEmbedding]:
    return FaceEmbedding.objects.filter(face_image=OuterRef("pk"))


def sync_state() -> Case:
    """Return an annotation with the state of a picture."""
    return Case(
        When(is_failed(), then=Value(SyncState.FAILED)),
        When(is_pending(), then=Value(SyncState.PENDING)),
        default=Value(SyncState.INDEXED),
    )


def person_sync_state() -> Case:
    """Return an annotation with the state of a person; empty without pictures."""
    pictures = FaceImage.objects.filter(person=OuterRef("pk"))
    return Case(
        When(Exists(pictures.filter(is_failed())), then=Value(SyncState.FAILED)),
        When(Exists(pictures.filter(is_pending())), then=Value(SyncState.PENDING)),
        When(Exists(pictures), then=Value(SyncState.INDEXED)),
        default=Value(""),
    )


def with_pictures(persons: QuerySet[Person]) -> QuerySet[Person]:
    """Annotate `gallery.with_pictures`, and the numbers of doubtful, failed and pending pictures."""
    pictures = pictures_of_each()
    return gallery.with_pictures(persons).annotate(
        doubtful_count=count_of(pictures.filter(is_doubtful())),
        failed_count=count_of(pictures.filter(is_failed())),
        pending_count=count_of(pictures.filter(is_pending())),
    )


def badge(state: str, text: str, title: str = "") -> SafeString:
    """Return a coloured badge with this text; `title` is its tooltip."""
    return format_html('<span class="sync-{}" title="{}">{}</span>', state, title, text)


def decision_badge(entry: SearchEntry) -> SafeString:
    """Return a badge for the decision of a search, in the colours of the search page."""
    return badge(entry.decision or "none", entry.get_decision_display() or gettext("No verdict"))


def person_badges(person: Person) -> SafeString:
    """Return the badges of a person annotated by `with_pictures`."""
    failed, pending, doubtful = (
        person.failed_count,
        person.pending_count,
        person.doubtful_count,
    )
    if not person.picture_count:
        return badge("none", gettext("no pictures"))
    badges = []
    if not failed and not pending:
        badges.append((badge(SyncState.INDEXED, SyncState.INDEXED.label),))
    if failed:
        text = ngettext("%(count)d failed", "%(count)d failed", failed) % {"count": failed}
        badges.append((badge(SyncState.FAILED, text),))
    if pending:
        text = ngettext("%(count)d not searchable yet", "%(count)d not searchable yet", pending) % {
            "count": pending
        }
        badges.append((badge(SyncState.PENDING, text),))
    if doubtful:
        text = ngettext("%(count)d doubtful", "%(count)d doubtful", doubtful) % {"count": doubtful}
        badges.append((badge("doubtful", text),))
    return format_html_join(" ", "{}", badges)


def picture_badges(picture: FaceImage) -> SafeString:
    """Return the badges of a picture: the worst state of its embeddings, and its doubts.

    The tooltip names the models and what hinders them. Prefetch embeddings and doubts.
    """
    rows = picture.embeddings.all()
    states = {row.status for row in rows} or {Status.PENDING}
    worst = next(s for s in (Status.FAILED, Status.PENDING, Status.INDEXED) if s in states)
    told = [f"{row.model}: {row.get_status_display()}. {row.error_message}" for row in rows]
    badges = [badge(worst, worst.label, "\n".join(told))]
    if reasons := " ".join(doubt.message for doubt in picture.doubts.all()):
        badges.append(badge("doubtful", gettext("doubtful"), reasons))
    if picture.judged_at is None:
        badges.append(badge("none", gettext("not judged yet")))
    return format_html_join(SafeString("<br>"), "{}", ((item,) for item in badges))
