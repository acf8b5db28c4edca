"""A hanging database does not delay scrapes, and many scrapes query it only once."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import DatabaseError

from faceproject import metrics
from faceproject.metrics import Question

# Its threads close what they opened; none is opened here.
pytestmark = pytest.mark.django_db(transaction=True)


def test_many_scrapes_ask_once():
    asked = []
    question = Question(lambda: asked.append(1) or len(asked))
    assert [question.answer() for _scrape in range(5)] == [1] * 5
    question.forget()
    assert question.answer() == 2


def test_what_hangs_is_not_asked_again_and_counts_as_away(monkeypatch):
    monkeypatch.setattr(metrics, "PATIENCE_SECONDS", 0.05)
    release, asked = threading.Event(), []
    question = Question(lambda: asked.append(1) or release.wait(10))
    begin = time.monotonic()
    question.forget()
    assert question.answer() is None
    question.forget()
    assert question.answer() is None
    assert time.monotonic() - begin < 5 and len(asked) == 1
    release.set()
    monkeypatch.setattr(metrics, "PATIENCE_SECONDS", 5)
    assert question.answer() is True


def test_what_fails_is_away_until_it_is_asked_again():
    fails = [True]

    def ask() -> str:
        if fails:
            raise DatabaseError("away")
        return "there"

    question = Question(ask)
    assert question.answer() is None
    fails.clear()
    assert question.answer() is None  # for some seconds the answer stands
    question.forget()
    assert question.answer() == "there"
