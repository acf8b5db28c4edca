"""Signal handlers that request indexing when rows are saved; the work runs after the commit."""

from __future__ import annotations

from typing import Any, Final

from django.db.models.signals import post_save, pre_save

from enrollment.index import queue, removals
from enrollment.models import FaceEmbedding, FaceImage, Person, removals_noted

_RENAMED: Final = "_renamed"  # set on a person between pre_save and post_save


def register_signal_handlers() -> None:
    pre_save.connect(person_about_to_be_saved, Person, dispatch_uid="person_about_to_be_saved")
    post_save.connect(person_saved, Person, dispatch_uid="person_saved")
    post_save.connect(face_image_saved, FaceImage, dispatch_uid="face_image_saved")
    removals_noted.connect(removals.request_removals, dispatch_uid="removals_noted")


def person_about_to_be_saved(instance: Person, raw: bool, **kwargs: Any) -> None:
    same_person = Person.objects.filter(pk=instance.pk)
    is_renamed = not raw and same_person.exclude(person_id=instance.person_id).exists()
    vars(instance)[_RENAMED] = is_renamed


def person_saved(instance: Person, **kwargs: Any) -> None:
    if vars(instance).pop(_RENAMED):
        queue.request_upsert(FaceEmbedding.objects.filter(face_image__person=instance))


def face_image_saved(instance: FaceImage, created: bool, raw: bool, **kwargs: Any) -> None:
    if raw:
        return
    if created:
        queue.request_embeddings([instance])
    else:
        Person.objects.filter(cover=instance).exclude(pk=instance.person_id).update(cover=None)
        queue.request_upsert(instance.embeddings.all())
