"""The pages of people who ask "who is this?", and the stored pictures they are shown."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final

from django.core.cache import caches
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.cache import get_conditional_response, patch_cache_control
from django.utils.http import quote_etag
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_safe
from rest_framework.authentication import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed

from enrollment.forms import SearchForm, model_options
from enrollment.indexing import PictureMissing, read_picture
from enrollment.models import FaceImage
from enrollment.previews import data_uri, thumbnail
from enrollment.selectors import SearchHit, gallery_is_empty, search_gallery
from faceproject.access import is_cross_site, page_access
from recognition.conf import get_settings
from recognition.embedding import CroppedUpload, crop_uploads, embed_crops
from recognition.exceptions import RecognitionError
from recognition.networks import find_weights

logger = logging.getLogger(__name__)

FRAGMENT_HEADER: Final = "X-Fragment"  # asked for by search.js: the results without the page

PROBLEM_TITLES: Final = {
    "invalid_image": _("This picture cannot be used"),
    "image_too_large": _("This picture is too large"),
    "no_face_detected": _("No face was found"),
    "unknown_model": _("There is no such model"),
    "weights_unavailable": _("This model is not ready"),
    "out_of_device_memory": _("The graphics card is too small for this"),
    "vector_store_unavailable": _("The gallery cannot be searched now"),
    "vector_store_locked": _("Another program is using the gallery"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there are no results, and what to do about it."""

    title: str
    messages: list[str]
    code: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """The picture asked about, as the page shows it. `box` is (x, y, width, height) in pixels."""

    uri: str
    width: int
    height: int
    box: tuple[float, float, float, float] | None

    @classmethod
    def of(cls, upload: CroppedUpload) -> Probe:
        image, face = upload.image, upload.crop.face
        return cls(data_uri(image.pixels), image.width, image.height, face.box if face else None)


@dataclass(frozen=True, slots=True)
class ShownHit:
    """A hit with its similarity from 0 to 100; a negative cosine is no likeness at all."""

    hit: SearchHit

    @property
    def percent(self) -> float:
        return 100 * min(max(self.hit.similarity, 0.0), 1.0)


@page_access
@require_http_methods(["GET", "HEAD", "POST"])
def search(request: HttpRequest) -> HttpResponse:
    """The form; and, for a picture sent with it, the most similar faces of the gallery."""
    if request.method != "POST":
        return _answer(request, SearchForm(), {"gallery_is_empty": gallery_is_empty()})
    form = SearchForm(request.POST, request.FILES)
    if not form.is_valid():
        messages = [text for errors in form.errors.values() for text in errors]
        problem = Problem(gettext("Nothing was searched"), messages, "invalid")
        return _answer(request, form, {"problem": problem}, status=400)
    try:
        return _answer(request, form, _find(**form.cleaned_data))
    except RecognitionError as error:
        title = PROBLEM_TITLES.get(error.code, _("The search failed"))
        problem = Problem(str(title), [error.message], error.code)
        return _answer(request, form, {"problem": problem}, status=error.status)


def _find(*, image: Any, model: str, top_k: int) -> dict[str, Any]:
    """What the results part shows; raises RecognitionError."""
    find_weights(model)  # a model that cannot answer says so before the picture is looked at
    (upload,) = crop_uploads([(image.name, image.read())])
    if isinstance(upload, RecognitionError):
        raise upload
    shown = {"probe": Probe.of(upload), "model": model}
    if gallery_is_empty():
        return shown | {"gallery_is_empty": True}
    (hits,) = search_gallery(embed_crops([upload.crop.pixels], model), top_k)
    summary = ngettext("The most similar face", "The %(count)d most similar faces", len(hits))
    return shown | {
        "hits": [ShownHit(hit) for hit in hits],
        "summary": summary % {"count": len(hits)},
        "nothing_indexed": not hits,
    }


def _answer(
    request: HttpRequest, form: SearchForm, context: dict[str, Any], status: int = 200
) -> HttpResponse:
    """The results part alone for search.js, the whole page for everybody else."""
    if request.headers.get(FRAGMENT_HEADER):
        response = render(request, "enrollment/search_results.html", context, status=status)
        response.headers[FRAGMENT_HEADER] = "1"
    else:
        context |= {"form": form, "models": model_options(), "recognition": get_settings()}
        response = render(request, "enrollment/search.html", context, status=status)
    patch_cache_control(response, private=True, no_cache=True)
    return response


def with_token_user(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Lets programs in by the token that they use for the API, which names these addresses."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            found = TokenAuthentication().authenticate(request)
        except AuthenticationFailed as error:
            raise PermissionDenied(str(error.detail)) from error
        if found:
            request.user = found[0]
        return view(request, *args, **kwargs)

    return guarded


@with_token_user
@page_access
@require_safe
def picture(request: HttpRequest, pk: int) -> HttpResponse:
    """A stored picture, or with `?size=thumb` a JPEG of at most 320 pixels a side."""
    if is_cross_site(request):
        raise PermissionDenied
    return picture_response(request, get_object_or_404(FaceImage, pk=pk))


def picture_response(request: HttpRequest, face_image: FaceImage) -> HttpResponse:
    """The stored file, or with `?size=thumb` the small JPEG; nothing when the asker has it already."""
    small = request.GET.get("size") == "thumb"
    # A file's name is never used twice, so it stands for the content.
    etag = quote_etag(f"{face_image.image.name}{'?thumb' if small else ''}")
    response = get_conditional_response(request, etag=etag) or _picture(face_image, small)
    if response.status_code == 200:
        response.headers["ETag"] = etag
    # Asked again each time, so that who may no longer see a picture no longer does.
    patch_cache_control(response, private=True, no_cache=True)
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _picture(face_image: FaceImage, small: bool) -> HttpResponse:
    try:
        if small:
            return HttpResponse(_thumbnail(face_image), content_type="image/jpeg")
        content = read_picture(face_image)
    except PictureMissing as error:
        return _plain_not_found(error.message)
    except (OSError, SyntaxError, ValueError):
        logger.exception("Picture %s is damaged: no thumbnail", face_image.pk)
        return _plain_not_found(gettext("The stored file of this picture is damaged."))
    is_jpeg = face_image.image.name.endswith("jpg")
    return HttpResponse(content, content_type="image/jpeg" if is_jpeg else "image/png")


def _thumbnail(face_image: FaceImage) -> bytes:
    """From the memory of this process, which forgets it at its end: no second file to delete."""
    made = caches["thumbnails"]
    content = made.get(face_image.image.name)
    if content is None:
        content = thumbnail(read_picture(face_image))
        made.set(face_image.image.name, content)
    return content


def _plain_not_found(message: str) -> HttpResponse:
    return HttpResponse(message, content_type="text/plain; charset=utf-8", status=404)
