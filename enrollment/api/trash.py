"""Endpoints of the trash: what can be undone, undo it, restore a person, erase at once."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext
from rest_framework.request import Request
from rest_framework.response import Response

from enrollment import corrections
from enrollment.api import person_serializers as serializers
from enrollment.api import trash_schema as schema
from enrollment.api.persons import PageCall, PersonCall, person_answer
from enrollment.desk import erase_item_with_receipts
from enrollment.exceptions import NotInTrash
from enrollment.models import TrashItem
from enrollment.web import Act, acts_to_undo
from recognition.api.access import require


class TrashView(PersonCall, PageCall):
    """List what can be undone, newest first."""

    page_serializer_class = serializers.TrashPageSerializer
    queryset = TrashItem.objects.all()  # of which model, for the OpenAPI document
    permissions = {"GET": Act.BROWSE}

    @schema.trash_list
    def get(self, request: Request) -> Response:
        return self.read_page()

    def get_queryset(self) -> QuerySet[TrashItem]:
        return corrections.in_trash().prefetch_related(corrections.PERSONS_OF_ITEMS)


class TrashItemView(PersonCall):
    """Erase an item of the trash at once."""

    serializer_class = serializers.RestoreFormSerializer
    permissions = {"DELETE": Act.BROWSE}

    @schema.trash_erase
    def delete(self, request: Request, item_id: int) -> Response:
        item = _item(request, item_id)
        receipts = erase_item_with_receipts(item.pk)
        return Response(serializers.ErasedSerializer.answer({"receipts": receipts}))


class TrashUndoView(PersonCall):
    """Undo a deletion, a move, a merge or an import."""

    serializer_class = serializers.RestoreFormSerializer
    permissions = {"POST": Act.BROWSE}

    @schema.trash_undo
    def post(self, request: Request, item_id: int) -> Response:
        item = _item(request, item_id)
        restored = corrections.undo(item, **self.read_form(request))
        answer = {
            "person_ids": [person.person_id for person in restored.persons],
            "pictures": len(restored.pictures),
        }
        return Response(serializers.RestoredSerializer.answer(answer))


class PersonRestoreView(PersonCall):
    """Restore a deleted person with all pictures."""

    serializer_class = serializers.RestoreFormSerializer
    permissions = {"POST": Act.DELETE_PERSON}

    @schema.persons_restore
    def post(self, request: Request, person_id: str) -> Response:
        form: dict[str, Any] = self.read_form(request)
        restored = corrections.restore(corrections.trashed_person(person_id), **form)
        return person_answer(restored.persons[0].person_id, request)


def _item(request: Request, item_id: int) -> TrashItem:
    """Return the item, if the request may undo it. Raise `NotInTrash`."""
    item = corrections.in_trash().filter(pk=item_id).first()
    if item is None:
        raise NotInTrash(gettext("The trash does not hold this any more."))
    for act in acts_to_undo(item):
        require(request, act)
    return item
