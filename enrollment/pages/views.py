"""The search page, the compare page, stored pictures, and the password page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final

from django.contrib.auth.views import PasswordChangeView
from django.contrib.messages.views import SuccessMessageMixin
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse_lazy
from django.utils.cache import patch_cache_control
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_safe
from rest_framework.exceptions import AuthenticationFailed

from enrollment.gallery import gallery_is_empty, note_search
from enrollment.models import FaceImage, Person, SearchEntry
from enrollment.pages import comparison
from enrollment.pages.forms import CompareForm, SearchForm, model_options
from enrollment.pages.identification import identify
from enrollment.pages.people_forms import number_of
from enrollment.pages.query_pictures import Problem, asked_faces
from enrollment.web import (
    Act,
    TokenAuthentication,
    error_text,
    kept_for,
    may_see,
    picture_response,
)
from recognition.api.access import is_cross_site, may, page_access
from recognition.conf import get_settings
from recognition.exceptions import RecognitionError

if TYPE_CHECKING:
    from django import forms
    from django.core.files.uploadedfile import UploadedFile

logger = logging.getLogger(__name__)

RIGHTS: Final = {
    "view_persons": Act.BROWSE,
    "judge": Act.CHANGE_PICTURES,
    "add_person": Act.ADD_PERSON,
    "add_pictures": Act.ADD_PICTURES,
}
FRAGMENT_HEADER: Final = "X-Fragment"  # sent by scripts that want only the results part


@page_access
@require_http_methods(["GET", "HEAD", "POST"])
def search(request: HttpRequest) -> HttpResponse:
    """Show the search form; for uploaded pictures, also the persons that each face resembles."""
    if request.method != "POST":
        return show_page(request, "search", SearchForm(), {"gallery_is_empty": gallery_is_empty()})
    form = SearchForm(request.POST, request.FILES)
    result = _result(form, partial(_identified, request))
    if "compared" in result:
        faces = asked_faces(result["pictures"])
        hits = [[shown.hit for shown in face.hits] for face in faces]
        aside = [[shown.hit for shown in face.aside] for face in faces]
        note_search(request, SearchEntry.Channel.PAGE, result["model"], hits, aside)
    return show_page(request, "search", form, result)


@page_access
@require_http_methods(["GET", "HEAD", "POST"])
def compare(request: HttpRequest) -> HttpResponse:
    """Show the form; for two uploaded pictures, or one and a person, also whether it is the same."""
    if request.method != "POST":
        return show_page(request, "compare", CompareForm(initial=_whom_to_compare(request)), {})
    form = CompareForm(request.POST, request.FILES)
    return show_page(request, "compare", form, _result(form, partial(comparison.compare, request)))


def _whom_to_compare(request: HttpRequest) -> dict[str, str]:
    """Return the form's values for the person by whose page the user came, given by key."""
    if not may(request, Act.BROWSE):
        return {}
    person = Person.objects.filter(pk=number_of(request.GET.get("person"))).first()
    return {"person": person.person_id} if person else {}


def _result(form: forms.Form, find: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Return what `find` returns for the valid form, or the problem that prevented it."""
    if not form.is_valid():
        messages = [str(text) for errors in form.errors.values() for text in errors]
        return {"problems": [Problem(gettext("Nothing was compared"), messages)]}
    try:
        return find(**form.cleaned_data)
    except RecognitionError as error:
        return {"problems": [Problem.of(error)]}


def _identified(
    request: HttpRequest,
    *,
    images: list[UploadedFile],
    model: str,
    top_k: int,
    **options: bool,
) -> dict[str, Any]:
    found = identify(request, images, model, top_k, **options)
    pictures = found["pictures"]
    problems = [item for item in pictures if isinstance(item, Problem)]
    # A problem of some pictures is shown beside the others' results.
    return {"problems": problems} if len(problems) == len(pictures) else found


def show_page(
    request: HttpRequest, page: str, form: forms.Form, context: dict[str, Any]
) -> HttpResponse:
    """Render only the results part for the page's script, otherwise the whole page."""
    problems = context.get("problems")
    status = problems[0].status if problems and not context.get("results") else 200
    context |= {f"may_{name}": may(request, act) for name, act in RIGHTS.items()}
    if request.headers.get(FRAGMENT_HEADER):
        response = render(request, f"enrollment/{page}_results.html", context, status=status)
        response.headers[FRAGMENT_HEADER] = "1"
    else:
        context |= {"form": form, "models": model_options(), "recognition": get_settings()}
        context["kept_for"] = kept_for()
        response = render(request, f"enrollment/{page}.html", context, status=status)
    patch_cache_control(response, private=True, no_cache=True)
    return response


def with_token_user(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Also accept API tokens, because API answers contain the URLs of these views."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            found = TokenAuthentication().authenticate(request)
        except AuthenticationFailed as error:
            raise PermissionDenied(str(error.detail)) from error
        if found:
            request.user, request.auth = found
        return view(request, *args, **kwargs)

    return guarded


@with_token_user
@page_access
@require_safe
def picture(request: HttpRequest, pk: int) -> HttpResponse:
    """Serve a stored picture; `?size=thumb` or `icon` gives a small JPEG, `face` one of its face."""
    if is_cross_site(request):
        raise PermissionDenied
    if not may_see(request, pk):
        raise PermissionDenied(
            gettext(
                "This picture is for those who may browse the gallery, and for an hour for those whose "
                "search found it. Search again."
            )
        )
    face_image = get_object_or_404(FaceImage, pk=pk)
    try:
        return picture_response(request, face_image)
    except (RecognitionError, ValidationError) as error:
        status = error.status if isinstance(error, RecognitionError) else 400
        text = error_text(error)
        return HttpResponse(text, content_type="text/plain; charset=utf-8", status=status)


class ChangePasswordView(SuccessMessageMixin, PasswordChangeView):
    """Change the user's own password; this ends their other sessions."""

    template_name = "registration/password.html"
    success_url = reverse_lazy("password")
    success_message = _("Your password was changed.")
