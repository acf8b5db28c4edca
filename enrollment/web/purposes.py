"""Whom a request may find: accounts and tokens can be limited to purposes."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from enrollment.gallery import is_anybody_limited, persons_allowing
from enrollment.models import AccessToken, Person, Purpose


def searchable_by(request: Any) -> QuerySet[Person] | None:
    """Return the persons whom this request may find; None: everybody.

    An account is limited by the purposes of its groups, taken together, and its token by its own.
    A consent must allow both.
    """
    if not request.user.is_authenticated or not is_anybody_limited():
        return None
    limits = [Purpose.objects.filter(groups__user=request.user)]
    token = getattr(request, "auth", None)
    if isinstance(token, AccessToken):
        limits.append(token.purposes.all())
    persons: QuerySet[Person] | None = None
    for limit in limits:
        if purposes := set(limit.values_list("pk", flat=True)):
            allowed = persons_allowing(purposes)
            persons = allowed if persons is None else allowed.filter(pk__in=persons.values("pk"))
    return persons
