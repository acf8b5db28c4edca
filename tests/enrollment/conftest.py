"""What many tests of the gallery begin with."""

from __future__ import annotations

import pytest
from django.test import Client


@pytest.fixture
def commits(django_capture_on_commit_callbacks):
    """A context manager that runs `on_commit` hooks at its end."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


@pytest.fixture
def boss(admin_user) -> Client:
    """A browser logged in with all permissions."""
    browser = Client(headers={"host": "localhost"})
    browser.force_login(admin_user)
    return browser
