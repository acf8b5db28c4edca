"""What many tests of the gallery begin with."""

from __future__ import annotations

import pytest
from django.test import Client


@pytest.fixture
def commits(django_capture_on_commit_callbacks):
    """A context that runs at its end what a commit would."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


@pytest.fixture
def boss(admin_user) -> Client:
    """The browser of somebody who may do everything."""
    browser = Client(headers={"host": "localhost"})
    browser.force_login(admin_user)
    return browser
