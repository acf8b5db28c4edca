"""The response that serves a stored picture."""

from __future__ import annotations

import logging

from django.core.cache import caches
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response, patch_cache_control
from django.utils.http import quote_etag
from django.utils.translation import gettext

from enrollment.exceptions import PictureMissing
from enrollment.gallery import SIDES, read_picture, thumbnail
from enrollment.journal import note_look
from enrollment.models import FaceImage
from recognition.api.fields import shortened
from recognition.exceptions import InvalidImage

logger = logging.getLogger(__name__)


def picture_response(request: HttpRequest, face_image: FaceImage) -> HttpResponse:
    """Return the stored file, or a small JPEG of the requested size; 304 when the client has it.

    Raises `ValidationError` for an unknown size, `PictureMissing`, or `StorageUnavailable`.
    """
    size = request.GET.get("size") or None
    if size is not None and size not in SIDES:
        message = gettext(
            "'%(given)s' was given; %(known)s or, for the whole picture, nothing is expected."
        )
        known = ", ".join(SIDES)
        raise ValidationError({"size": message % {"given": shortened(size), "known": known}})
    box = _face_box(face_image) if size == "face" else None
    # File names are never reused, so the name identifies the content.
    part = ",".join(f"{value:.0f}" for value in box or ())
    name = face_image.image.name or ""
    key = f"{name}?{size}={part}" if size else name
    etag = quote_etag(key)
    if size is None:  # small ones stand in lists and answers, whose pages are noted themselves
        note_look(face_image.person, picture=face_image.pk)
    response = get_conditional_response(request, etag=etag) or _picture(face_image, size, key, box)
    if response.status_code == 200:
        response.headers["ETag"] = etag
    # Revalidate each time, so that users who lost the permission stop seeing the picture.
    patch_cache_control(response, private=True, no_cache=True)
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _face_box(face_image: FaceImage) -> list[float] | None:
    face = face_image.embeddings.exclude(face=None).values_list("face", flat=True).first()
    return face and face["box"]


def _picture(
    face_image: FaceImage, size: str | None, key: str, box: list[float] | None
) -> HttpResponse:
    try:
        if size:
            small = _thumbnail(face_image, SIDES[size], key, box)
            return HttpResponse(small, content_type="image/jpeg")
    except InvalidImage as error:
        logger.exception("Picture %s is damaged: no thumbnail", face_image.pk)
        raise PictureMissing(gettext("The stored file of this picture is damaged.")) from error
    content = read_picture(face_image)
    is_jpeg = (face_image.image.name or "").endswith("jpg")
    return HttpResponse(content, content_type="image/jpeg" if is_jpeg else "image/png")


def _thumbnail(face_image: FaceImage, side: int, key: str, box: list[float] | None) -> bytes:
    """Return the thumbnail from a cache in memory, so that no second file must be deleted."""
    made = caches["thumbnails"]
    content = made.get(key)
    if content is None:
        longest = max(face_image.width, face_image.height)
        content = thumbnail(read_picture(face_image), side, box, longest=longest)
        made.set(key, content)
    return bytes(content)
