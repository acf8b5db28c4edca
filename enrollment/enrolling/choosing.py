"""Choose which face of a group photo a picture is enrolled for, if not the largest."""

from __future__ import annotations

from django.utils.translation import gettext

from enrollment import index, journal
from enrollment.gallery import read_picture
from enrollment.models import FaceEmbedding, FaceImage
from recognition.embedding import Crop, crop_upload
from recognition.exceptions import NoSuchFace
from recognition.networks import usable_names


def faces_in(picture: FaceImage) -> list[Crop]:
    """Return the crop of every face in a stored picture, largest first. Raise `NoFaceDetected`."""
    return crop_upload(read_picture(picture), require_face=True, all_faces=True)


def choose_face(picture: FaceImage, face_index: int) -> None:
    """Enrol the picture for this face (0 is the largest). Raise `NoSuchFace`.

    The old vectors are deleted; searches find the new face on return.
    """
    crops = faces_in(picture)
    if not 0 <= face_index < len(crops):
        message = gettext("The picture has no such face. Reload the page and choose again.")
        raise NoSuchFace(message)
    crop = crops[face_index]
    with journal.changes():
        FaceImage.objects.filter(pk=picture.pk).update(
            chosen_face=crop.face_record(), use_face_detection=True, judged_at=None
        )
        for row in FaceEmbedding.objects.filter(face_image=picture):
            row.delete()
        facts = {"picture": picture.pk, "face": face_index}
        journal.record(journal.Action.FACE_CHOSEN, person=picture.person, facts=facts)
        ids = index.create_pending([picture], usable_names(), {picture.pk: crop})
    index.index_rows(ids, {picture.pk: crop})
