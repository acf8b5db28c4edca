"""Choose the face of a group photo: of one that waits and is not enrolled yet, or anew for a picture.

One that waits has a folder of its own in `DATA_DIR/imports`, which only the server's account can read.
The folder's name holds the uploading account and the person. It is deleted when a face is chosen, when
the picture is left out, when the person is deleted, and otherwise after a day.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import numpy as np
from django.conf import settings
from django.utils.translation import gettext

from enrollment import index, journal
from enrollment.enrolling.chosen_files import MOST_BYTES_IN_REQUESTS
from enrollment.enrolling.inspection import Upload
from enrollment.enrolling.services import Outcome, enroll_pictures
from enrollment.enrolling.staging_folder import forget_old_imports, imports_folder
from enrollment.exceptions import StorageUnavailable
from enrollment.gallery import compared_weights, data_uri, read_picture, thresholds_in_force
from enrollment.models import FaceEmbedding, FaceImage, Person
from recognition.embedding import Crop, FaceNotChosen, crop_upload, embed_crops
from recognition.exceptions import NoSuchFace, RecognitionError
from recognition.networks import usable_names

# Of one account, for all persons together.
MOST_WAITING: Final = 100  # pictures
NOBODY: Final = -1
_STATE: Final = "faces.json"
_PICTURE: Final = "picture"
_TAKEN: Final = "taken-"  # before the name of the folder while its picture is enrolled
TAKEN_SECONDS: Final = 600.0  # an enrolment that takes longer was cut off


class TooManyWaiting(RecognitionError):
    """The account already has as many waiting pictures as are kept."""

    code = "too_many_waiting"
    status = 409


@dataclass(frozen=True, slots=True)
class WaitingFace:
    """A face to choose: `uri` is its crop as a `data:` URI, `record` its `Crop.face_record()`."""

    uri: str
    record: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class WaitingPicture:
    """A picture as it was uploaded, and its faces, largest first; `key` is unique for owner and person.

    `likeliest` is the index of the face most similar to the person's enrolled pictures, None without
    any, `NOBODY` if no face is similar to them. `upload_key` keeps it from being stored twice.
    """

    key: str
    filename: str
    faces: tuple[WaitingFace, ...]
    folder: Path
    likeliest: int | None
    upload_key: str | None


def keep_waiting(outcomes: Iterable[Outcome], owner: int, person: Person) -> None:
    """Keep the uploads that were refused with `FaceNotChosen`, for `waiting_pictures` to return.

    An upload that cannot be kept gets another error, which says why.
    """
    forget_old_imports()
    for outcome in outcomes:
        if isinstance(outcome.error, FaceNotChosen):
            try:
                _keep(outcome.upload, outcome.error, owner, person)
            except RecognitionError as error:
                outcome.error = error


def _keep(upload: Upload, error: FaceNotChosen, owner: int, person: Person) -> None:
    content = upload.read()
    _check_room(owner, len(content))
    faces = [{"uri": data_uri(crop.pixels), "record": crop.face_record()} for crop in error.crops]
    likeliest = _likeliest(error.crops, person)
    state = {"filename": upload.shown_path, "faces": faces, "likeliest": likeliest}
    state["upload_key"] = f"waiting-{token_hex(8)}"
    home = Path(tempfile.mkdtemp(prefix="", dir=imports_folder()))
    try:
        (home / _PICTURE).write_bytes(content)
        (home / _STATE).write_text(json.dumps(state))
        # From here on it is seen, whole; unless the same file waits already, which is as good.
        home.rename(_folder(owner, person.pk, upload.digest))
    except OSError as failure:
        shutil.rmtree(home, ignore_errors=True)
        if not _folder(owner, person.pk, upload.digest).exists():
            raise _not_kept() from failure


def _likeliest(crops: Sequence[Crop], person: Person) -> int | None:
    """Return the index of the crop most similar to the person's enrolled pictures, None without any.

    Return `NOBODY` if no crop reaches the threshold for review.
    """
    weights = compared_weights()
    rows = weights.rows.filter(face_image__person=person) if weights else ()
    vectors = [row.computed_array() for row in rows]
    if not weights or not vectors:
        return None
    try:
        probes = embed_crops([crop.pixels for crop in crops], weights.model, bulk=True)
    except RecognitionError:  # then nothing is said of the likeliest
        return None
    if probes.fingerprint != weights.fingerprint:  # the weights file was replaced meanwhile
        return None
    similarities = (np.stack(vectors) @ probes.vectors.T).max(0)
    limits = thresholds_in_force(weights)
    if limits and similarities.max() < limits.review.similarity:
        return NOBODY
    return int(similarities.argmax())


def _not_kept() -> StorageUnavailable:
    return StorageUnavailable(
        gettext(
            "The picture shows several faces, and there is no room to keep it until you have chosen one. "
            "Have the administrator check the free space and the rights of DATA_DIR."
        )
    )


def _check_room(owner: int, size: int) -> None:
    held = [_size(folder) for folder in _folders(owner)]
    limit = MOST_BYTES_IN_REQUESTS * settings.MAX_REQUEST_BYTES
    if len(held) >= MOST_WAITING or sum(held) + size > limit:
        message = gettext(
            "The picture shows several faces, and too many pictures wait for you to choose a face. "
            "Choose for those or leave them out, then upload it again."
        )
        raise TooManyWaiting(message)


def _size(folder: Path) -> int:
    try:
        return (folder / _PICTURE).stat().st_size
    except FileNotFoundError:  # somebody chose it meanwhile
        return 0


def _folder(owner: int | str, person_id: int, digest: str) -> Path:
    return imports_folder() / f"faces-{owner}-{person_id}-{digest}"


def _folders(owner: int | str, person: int | str = "*", digest: str = "*") -> list[Path]:
    return list(imports_folder().glob(f"faces-{owner}-{person}-{digest}"))


def count_waiting(owner: int, person: Person) -> int:
    """Return how many pictures wait for this account to choose the person's face."""
    return len(_folders(owner, person.pk))


def waiting_pictures(owner: int, person: Person) -> list[WaitingPicture]:
    """Return the pictures that wait for this account to choose the person's face, by file name."""
    pictures = (_load(folder) for folder in _folders(owner, person.pk))
    return sorted(filter(None, pictures), key=lambda picture: (picture.filename, picture.key))


def _load(folder: Path) -> WaitingPicture | None:
    try:
        state = json.loads((folder / _STATE).read_text())
    except FileNotFoundError:  # somebody chose it meanwhile
        return None
    faces = tuple(WaitingFace(**face) for face in state["faces"])
    key, likeliest = folder.name.rpartition("-")[2], state.get("likeliest")
    upload_key = state.get("upload_key")
    return WaitingPicture(key, state["filename"], faces, folder, likeliest, upload_key)


def enroll_chosen(
    chosen: Mapping[WaitingPicture, int], person: Person, source: str
) -> list[Outcome]:
    """Enrol each picture with its face of this index (from 0); return an outcome for each.

    Pictures that another request took meanwhile have no outcome. If the enrolment as a whole fails,
    the error is raised and the pictures keep waiting; so they do, after a while, if it is cut off.
    """
    taken = {picture: home for picture in chosen if (home := _take(picture))}
    try:
        with ExitStack() as opened:
            uploads = [
                Upload(
                    person.person_id,
                    picture.filename,
                    opened.enter_context((home / _PICTURE).open("rb")),
                    key=picture.upload_key,
                    face=picture.faces[chosen[picture]].record,
                    is_known=True,
                )
                for picture, home in taken.items()
            ]
            outcomes = enroll_pictures(uploads, source=source)
    except BaseException:
        for home in taken.values():
            _give_back(home)
        raise
    for home in taken.values():
        shutil.rmtree(home, ignore_errors=True)  # the person may be erased meanwhile
    return outcomes


def _take(picture: WaitingPicture) -> Path | None:
    """Move the picture out of sight of a second click; return its folder, None if that was faster."""
    try:
        return picture.folder.rename(imports_folder() / f"{_TAKEN}{picture.folder.name}")
    except OSError:  # it is gone, or the same file was uploaded again while it is enrolled
        return None


def _give_back(home: Path) -> None:
    try:
        home.rename(home.with_name(home.name.removeprefix(_TAKEN)))
    except OSError:  # the same file waits there already
        shutil.rmtree(home, ignore_errors=True)


def give_back_taken() -> None:
    """Let pictures wait again whose enrolment was cut off, by a crash of the server."""
    for home in imports_folder().glob(f"{_TAKEN}*"):
        with suppress(FileNotFoundError):  # done meanwhile
            if home.stat().st_ctime < time.time() - TAKEN_SECONDS:
                _give_back(home)


def leave_out(pictures: Iterable[WaitingPicture]) -> None:
    """Delete waiting pictures without enrolling them."""
    for picture in pictures:
        shutil.rmtree(picture.folder, ignore_errors=True)


def forget_waiting_for(person_id: int) -> None:
    """Delete the pictures of all accounts that wait for the person with this primary key."""
    taken = imports_folder().glob(f"{_TAKEN}faces-*-{person_id}-*")
    for folder in [*_folders("*", person_id), *taken]:
        shutil.rmtree(folder, ignore_errors=True)


def waiting_keys(person_id: int) -> list[str]:
    """Return names of the pictures that wait for the person with this primary key."""
    return [_key(folder) for folder in _folders("*", person_id)]


def move_waiting(person_id: int, to: int, keys: Collection[str] | None = None) -> None:
    """Reassign the pictures that wait for one person (by primary key) to another.

    All of them after a merge, or those with the `waiting_keys` that it is undone for.
    """
    for folder in _folders("*", person_id):
        if keys is not None and _key(folder) not in keys:
            continue
        _faces, owner, _person, digest = folder.name.split("-")
        try:
            folder.rename(_folder(owner, to, digest))
        except OSError:  # the same file waits there already
            shutil.rmtree(folder, ignore_errors=True)


def _key(folder: Path) -> str:
    _faces, owner, _person, digest = folder.name.split("-")
    return f"{owner}-{digest}"


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
