"""Saved and deleted rows ask for their vectors to follow; the work itself waits for the commit."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models.signals import post_delete, post_save, pre_save

from enrollment.index import indexing
from enrollment.models import FaceEmbedding, FaceImage, Person


def register_signal_handlers() -> None:
    pre_save.connect(person_about_to_be_saved, Person, dispatch_uid="person_about_to_be_saved")
    post_save.connect(person_saved, Person, dispatch_uid="person_saved")
    post_save.connect(face_image_saved, FaceImage, dispatch_uid="face_image_saved")
    post_delete.connect(face_image_deleted, FaceImage, dispatch_uid="face_image_deleted")
    post_delete.connect(
        face_embedding_deleted, FaceEmbedding, dispatch_uid="face_embedding_deleted"
    )


def person_about_to_be_saved(instance: Person, raw: bool, **kwargs: Any) -> None:
    same_person = Person.objects.filter(pk=instance.pk)
    instance.is_renamed = not raw and same_person.exclude(person_id=instance.person_id).exists()


def person_saved(instance: Person, **kwargs: Any) -> None:
    if instance.is_renamed:
        indexing.request_upsert(FaceEmbedding.objects.filter(face_image__person=instance))


def face_image_saved(instance: FaceImage, created: bool, raw: bool, **kwargs: Any) -> None:
    if raw:
        return
    if created:
        indexing.request_embeddings([instance])
    else:
        Person.objects.filter(cover=instance).exclude(pk=instance.person_id).update(cover=None)
        indexing.request_upsert(instance.embeddings.all())


def face_image_deleted(instance: FaceImage, **kwargs: Any) -> None:
    storage, name = instance.image.storage, instance.image.name

    def delete_file() -> None:  # no partial: when one fails, Django 5.2 drops the hooks after it
        storage.delete(name)

    if name:
        transaction.on_commit(delete_file, robust=True)


def face_embedding_deleted(instance: FaceEmbedding, **kwargs: Any) -> None:
    indexing.request_deletion(instance)
