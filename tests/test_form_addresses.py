"""Who opens the address of a form by a bookmark or a reload comes to the page where the form stands."""

from __future__ import annotations

import pytest
from django.urls import reverse

from enrollment.pages import urls
from tests.enrollment.gallery import add_vectors

GIVEN = {"pk": 1, "number": 1, "place": 1, "token": 1, "numbers": "a", "name": "operators"}


@pytest.mark.parametrize(
    ("form", "page"),
    [
        ("/people/{pk}/add", "/people/{pk}/"),
        ("/people/{pk}/cover?picture=3", "/people/{pk}/?picture=3"),
        ("/people/trash/7/undo", "/people/trash"),
        ("/people/trash/7/erase", "/people/trash"),
        ("/inbox/undo?kind=doubt", "/inbox/?kind=doubt"),
        ("/answers/abc/1", "/answers/abc"),
        ("/logout", "/"),
        ("/admin/logout/", "/admin/"),
    ],
)
def test_opening_a_form_leads_to_its_page(boss, form: str, page: str) -> None:
    pk = add_vectors({"ana": 1})[0].person_id
    response = boss.get(form.format(pk=pk))
    assert (response.status_code, response.headers["location"]) == (302, page.format(pk=pk))


@pytest.mark.parametrize("page", urls.urlpatterns, ids=lambda page: page.name)
def test_no_page_is_blank(boss, page) -> None:
    names = page.pattern.converters.keys()
    address = (
        reverse(page.name, kwargs={name: GIVEN[name] for name in names}) if page.name else "/help/"
    )
    response = boss.get(address)
    assert response.status_code in (200, 302, 404)
    assert response.content or response.headers["location"]


def test_a_program_is_told_which_methods_there_are(boss) -> None:
    assert boss.head("/logout").status_code == 405
    assert boss.put("/inbox/undo").status_code == 405
    assert boss.get("/api/milvus/insert").status_code == 405
