"""The help pages: chapters of `docs/` for operators, rendered from Markdown, in both languages."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language
from django.views.decorators.http import require_safe

from recognition.api.access import page_access

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

CHAPTERS: Final = ("operators", "gallery")
_DOCS: Final = Path(settings.BASE_DIR) / "docs"
_LINK: Final = re.compile(r"(?P<chapter>[a-z]*)(?:\.pt-BR)?(?:\.md)?(?P<part>#.*)?")


@page_access
@require_safe
def chapter(request: HttpRequest, name: str) -> HttpResponse:
    """Show a chapter in the language of the page."""
    if name not in CHAPTERS:
        raise Http404
    portuguese = (get_language() or "").startswith("pt")
    title, text = _rendered(name, portuguese)
    return render(request, "enrollment/help.html", {"title": title, "text": text})


@cache
def _rendered(name: str, portuguese: bool) -> tuple[str, SafeString]:
    """Return the title and the HTML of a chapter.

    A heading of the translation has the id of its English heading too, so that a link of a page
    leads to the same part in both languages.
    """
    english = _parsed(name)
    tokens = _parsed(f"{name}.pt-BR") if portuguese else english
    ids = [_slug(title) for title in _titles(english)]
    titles = _titles(tokens)
    if len(ids) != len(titles):
        ids = [_slug(title) for title in titles]
    opened = (token for token in tokens if token.type == "heading_open")
    for heading, title, id_ in zip(opened, titles, ids, strict=True):
        heading.attrSet("id", id_)
        if (own := _slug(title)) != id_:
            following = tokens[tokens.index(heading) + 1]
            anchor = type(heading)("html_inline", "", 0, content=f'<span id="{own}"></span>')
            following.children = [anchor, *(following.children or [])]
    for token in tokens:
        if token.children:
            token.children = _served(token.children)
    html = _markdown().renderer.render(tokens, _markdown().options, {})
    return titles[0], mark_safe(html)  # noqa: S308  of our own files, in which HTML is escaped


@cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt  # commands do without it

    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _parsed(name: str) -> list[Token]:
    return _markdown().parse((_DOCS / f"{name}.md").read_text(encoding="utf-8"))


def _titles(tokens: list[Token]) -> list[str]:
    return [
        following.content
        for token, following in zip(tokens, tokens[1:], strict=False)
        if token.type == "heading_open"
    ]


def _slug(title: str) -> str:
    """Return the id that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _served(tokens: list[Token]) -> list[Token]:
    """Return the inline tokens without pictures, and of links those that lead to a chapter."""
    kept, opened = [], []
    for token in tokens:
        if token.type == "link_open":
            address = _address(str(token.attrGet("href") or ""))
            opened.append(address)
            if address:
                token.attrSet("href", address)
                kept.append(token)
        elif token.type == "link_close":
            if opened.pop():
                kept.append(token)
        elif token.type != "image":
            kept.append(token)
    return kept


def _address(link: str) -> str:
    """Return where a link of a chapter leads to among the help pages; empty for anywhere else."""
    found = _LINK.fullmatch(link)
    if not found:
        return ""
    name, part = found["chapter"], found["part"] or ""
    if not name:
        return part
    return reverse("help", args=[name]) + part if name in CHAPTERS else ""
