"""What can be done to the gallery, and which permission each act needs: by the API and the pages alike."""

from __future__ import annotations

from enum import StrEnum


class Act(StrEnum):
    """An act by the permission that it needs.

    Searching, comparing and embedding need no more than to be let in. Who makes a new person on the way
    (pictures of somebody new, pictures moved to somebody new) also needs `ADD_PERSON`.
    """

    BROWSE = "enrollment.view_person"  # persons with their pictures, doubts among them
    ADD_PERSON = "enrollment.add_person"
    CHANGE_PERSON = "enrollment.change_person"  # id, name, terms, cover
    DELETE_PERSON = "enrollment.delete_person"  # and merge
    ADD_PICTURES = "enrollment.add_faceimage"
    CHANGE_PICTURES = "enrollment.change_faceimage"  # whom they show; dismiss what speaks against
    DELETE_PICTURES = "enrollment.delete_faceimage"
