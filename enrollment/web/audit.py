"""The report page of the gallery audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext
from django_tasks import TaskResultStatus

from enrollment.gallery import compared_weights, search_thresholds
from enrollment.judging import Kind, examine_and_keep
from enrollment.models import Examination, FaceImage, Person
from enrollment.web.permissions import Act
from enrollment.web.place import Place
from recognition.api.access import lacking_permission, may


@dataclass(frozen=True, slots=True)
class Section:
    """One kind of finding: the number found, and the stored cases whose rows still exist."""

    kind: Kind
    count: int
    cases: list[dict[str, Any]]


def audit_report(request: HttpRequest, *, place: Place) -> HttpResponse:
    """Show the last audit report; a POST runs the audit first."""
    if not may(request, Act.BROWSE):
        raise PermissionDenied(lacking_permission(Act.BROWSE))
    if request.method == "POST":
        _examine(request)
        return redirect(place.audit)
    examination = Examination.objects.order_by("-pk").first()
    weights = compared_weights()
    context = {
        "title": gettext("Gallery audit"),
        "examination": examination,
        "sections": _sections(examination.findings) if examination else [],
        "kinds": list(Kind),
        "may_merge": may(request, Act.DELETE_PERSON),
        "has_thresholds": bool(weights and search_thresholds(weights)),
    }
    return place.render(request, "audit", context)


def _examine(request: HttpRequest) -> None:
    result = examine_and_keep.enqueue()
    if result.status == TaskResultStatus.FAILED:
        messages.error(request, gettext("The examination failed; the log says why."))
    elif result.status == TaskResultStatus.SUCCESSFUL:
        messages.success(request, gettext("The gallery was examined."))
    else:
        messages.info(request, gettext("The gallery is being examined. Reload in a while."))


def _sections(findings: dict[str, Any]) -> list[Section]:
    cases = [case for finding in findings.values() for case in finding["cases"]]
    persons = Person.objects.in_bulk({pk for case in cases for pk in case["persons"]})
    pictures = FaceImage.objects.in_bulk({pk for case in cases for pk in case["pictures"]})
    return [
        Section(
            kind,
            findings[kind.value]["count"],
            [
                case
                | {
                    "persons": [persons[pk] for pk in case["persons"]],
                    "pictures": [pictures[pk] for pk in case["pictures"]],
                }
                for case in findings[kind.value]["cases"]
                if persons.keys() >= set(case["persons"])
                and pictures.keys() >= set(case["pictures"])
            ],
        )
        for kind in Kind
        if kind.value in findings
    ]
