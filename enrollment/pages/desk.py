"""The desk for data subjects: a page for each request that a person can make."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_safe

from enrollment import enrolling
from enrollment.backups import backups_holding
from enrollment.desk import Ground, erase_with_receipt
from enrollment.pages.desk_forms import ConsentForm, ErasureForm
from enrollment.pages.history import history
from enrollment.pages.people import get_shown, show
from enrollment.pages.people_forms import number_of
from enrollment.pages.people_page import people_page
from enrollment.web import Act, document_response, export_response, receipts_response


@people_page(Act.BROWSE, Act.EXPORT_PERSON)
@require_safe
def access(request: HttpRequest, pk: int) -> HttpResponse:
    """Say what the ZIP with everything about the person holds, and offer it."""
    return show(request, "desk/access", {"person": get_shown(pk)})


@people_page(Act.BROWSE, Act.EXPORT_PERSON)
@require_safe
def export(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Return the ZIP with everything about the person."""
    return export_response(get_shown(pk))


@people_page(Act.BROWSE)
@require_safe
def correction(request: HttpRequest, pk: int) -> HttpResponse:
    """Say what can be corrected and where, and who changed it before."""
    shown = get_shown(pk)
    return show(request, "desk/correction", {"person": shown} | history(request, shown))


@people_page(Act.BROWSE, Act.DELETE_PERSON)
@require_http_methods(["GET", "HEAD", "POST"])
def erasure(request: HttpRequest, pk: int) -> HttpResponse:
    """Say what is erased and which backups hold it; a POST erases and shows the receipt."""
    shown = get_shown(pk)
    form = ErasureForm(request.POST or None, initial={"ground": request.GET.get("ground")})
    if request.method == "POST" and form.is_valid():
        signed = erase_with_receipt(shown, Ground(form.cleaned_data["ground"]))
        return receipts_response(request, [signed])
    held = backups_holding(shown.created_at)
    return show(request, "desk/erasure", {"person": shown, "form": form, "backups": held})


@people_page(Act.BROWSE, Act.CHANGE_PERSON)
@require_http_methods(["GET", "HEAD", "POST"])
def consents(request: HttpRequest, pk: int) -> HttpResponse:
    """List the consents with their documents; a POST records one more, or removes one."""
    shown = get_shown(pk)
    if remove := request.POST.get("remove", ""):
        if number := number_of(remove):
            enrolling.remove_consent(shown, number)
            messages.success(request, gettext("The consent was removed."))
        return redirect("person-consents", pk)
    form = ConsentForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        enrolling.add_consent(shown, **form.cleaned_data)
        messages.success(request, gettext("The consent was recorded."))
        return redirect("person-consents", pk)
    recorded = shown.consents.prefetch_related("purposes")
    return show(request, "desk/consents", {"person": shown, "form": form, "consents": recorded})


@people_page(Act.BROWSE, Act.CHANGE_PERSON)
@require_safe
def document(request: HttpRequest, pk: int, number: int) -> HttpResponseBase:
    """Return the document of a consent, to be saved."""
    return document_response(enrolling.consent_of(get_shown(pk), number))
