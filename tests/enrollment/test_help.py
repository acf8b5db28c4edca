"""Help: the chapters of docs/ as pages, in both languages, to which every page leads."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from django.test import Client

from enrollment.models import Person
from enrollment.pages.help import CHAPTERS
from tests.enrollment.test_views import Markup

pytestmark = pytest.mark.django_db


def ids(local: Client, path: str, language: str, tag: str = "h[1-6]") -> set[str]:
    text = local.get(path, headers={"accept-language": language}).text
    return set(re.findall(rf'<{tag} id="([^"]+)"', text))


@pytest.mark.parametrize("name", CHAPTERS)
def test_both_languages_have_the_same_parts_and_links_that_lead_there(local, name):
    parts = {language: ids(local, f"/help/{name}", language) for language in ("en", "pt-br")}
    assert len(parts["en"]) > 5 and parts["en"] == parts["pt-br"]
    for language in ("en", "pt-br"):
        page = local.get(f"/help/{name}", headers={"accept-language": language})
        every = {each: ids(local, f"/help/{each}", language) for each in CHAPTERS}
        own = {each: ids(local, f"/help/{each}", language, "span") for each in CHAPTERS}
        links = [each["href"] for each in Markup(page).find("a") if "#" in each["href"]]
        (article,) = re.findall(r'<article class="help">(.*?)</article>', page.text, re.DOTALL)
        hrefs = re.findall(r'href="([^"]*)"', article)
        assert hrefs and all(href.startswith(("#", "/help/")) for href in hrefs)
        assert links and "<img" not in article
        assert "style=" not in article  # forbidden by the policy; aligned columns have it
        for link in links:
            path, _, part = link.partition("#")
            chapter = path.removeprefix("/help/") or name
            assert part == "main" or unquote(part) in every[chapter] | own[chapter], link
    assert 'id="main"' in page.text


def test_help_without_a_chapter_is_the_first(local):
    assert local.get("/help/", follow=True).redirect_chain == [("/help/operators", 302)]


def test_unknown_chapters_are_not_files(local):
    for name in ("privacy", "README", "nobody"):
        assert local.get(f"/help/{name}").status_code == 404


def test_pages_lead_to_their_part(local):
    person = Person.objects.create(person_id="ana")
    known = {name: ids(local, f"/help/{name}", "en") for name in CHAPTERS}
    paths = ["/", "/compare", "/inbox/", "/people/", "/people/new", f"/people/{person.pk}/"]
    paths += [f"/people/{name}" for name in ("doubts", "audit", "trash", "import")]
    paths += ["/imports/"]
    told = set()
    for path in paths:
        (link,) = re.findall(r'href="/help/(\w+)(?:#([\w-]+))?"', local.get(path).text)
        assert link[1] in known[link[0]], path
        told.add(link)
    assert len(told) >= 7


def test_the_admin_leads_to_help(admin_client):
    known = ids(admin_client, "/help/gallery", "en")
    for path in ("", "enrollment/trashitem/", "enrollment/faceimage/"):
        (part,) = re.findall(
            r'href="/help/gallery#?([^"]*)"', admin_client.get(f"/admin/{path}").text
        )
        assert part in known | {""} and bool(part) == bool(path)
