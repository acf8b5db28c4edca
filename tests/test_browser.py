"""The search page in a real browser: with a script, without one, by keyboard, on a phone."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from enrollment.services import Upload, enroll_pictures
from tests.pictures import draw_picture

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_MS = 60_000  # a search waits for a busy machine, never for a fixed time

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        not CHROMIUM, reason="No chromium: apt-get install chromium, or set CHROMIUM to its path."
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with pytest.MonkeyPatch.context() as patch, playwright.sync_playwright() as engine:
        # Playwright's own event loop runs in this thread; the ORM is not called from within it.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, live_server, weights: str) -> Iterator:
    """Opens the search page in a fresh profile, with one person enrolled."""
    enroll("ana", draw_picture(seed=1))
    contexts = []

    def open_page(**options) -> playwright.Page:
        contexts.append(browser.new_context(base_url=live_server.url, locale="en", **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda message: page.faults.append(message.text))
        page.goto("/")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """The picture that is enrolled, as a file to choose."""
    path = tmp_path / "who.jpg"
    path.write_bytes(draw_picture(seed=1))
    return path


def enroll(person_id: str, content: bytes) -> None:
    upload = Upload("picture.jpg", io.BytesIO(content))
    enroll_pictures(person_id=person_id, uploads=[upload], source="api", use_face_detection=False)


def assert_found(page: playwright.Page) -> None:
    playwright.expect(page.get_by_role("heading", name="ana")).to_be_visible(timeout=TIMEOUT_MS)
    playwright.expect(page.locator(".hit .similarity")).to_contain_text("100.0%")
    stored = page.locator(".hit img")
    stored.scroll_into_view_if_needed()
    page.wait_for_function("image => image.naturalWidth > 0", arg=stored.element_handle())


def test_search_without_a_script(open_page, photo: Path) -> None:
    page = open_page(java_script_enabled=False)
    page.get_by_label("Picture").set_input_files(photo)
    page.get_by_role("button", name="Search").click()
    playwright.expect(page.get_by_role("heading", name="ana")).to_be_visible(timeout=TIMEOUT_MS)
    playwright.expect(page.locator(".hit .similarity")).to_contain_text("100.0%")


def test_search_with_a_script_does_not_reload(open_page, photo: Path) -> None:
    page = open_page()
    page.evaluate("window.stays = true")
    page.get_by_label("Picture").set_input_files(photo)
    playwright.expect(page.locator("#preview")).to_be_visible()
    page.get_by_role("button", name="Search").click()
    assert_found(page)
    playwright.expect(page.get_by_role("status")).to_contain_text("First: ana, 100.0%")
    assert page.evaluate("window.stays")
    assert page.faults == []


def test_keyboard_alone_is_enough(open_page, photo: Path) -> None:
    page = open_page()
    page.get_by_label("Picture").set_input_files(photo)  # the chooser is the system's own
    page.get_by_label("Picture").focus()
    visited = []
    for _ in range(4):
        visited.append(page.evaluate("document.activeElement.name || document.activeElement.id"))
        page.keyboard.press("Tab")
    assert visited == ["image", "model", "top_k", "search-button"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert_found(page)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param('new DragEvent("drop", { dataTransfer: files, bubbles: true })', id="drop"),
        pytest.param(
            'new ClipboardEvent("paste", { clipboardData: files, bubbles: true })', id="paste"
        ),
    ],
)
def test_picture_can_be_dropped_and_pasted(open_page, photo: Path, event: str) -> None:
    page = open_page()
    give = f"""(content) => {{
        const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
        const files = new DataTransfer();
        files.items.add(new File([bytes], "given.jpg", {{ type: "image/jpeg" }}));
        document.querySelector("#drop-zone").dispatchEvent({event});
    }}"""
    page.evaluate(give, base64.b64encode(photo.read_bytes()).decode())
    playwright.expect(page.locator("#file-name")).to_have_text("given.jpg")
    page.get_by_role("button", name="Search").click()
    assert_found(page)


def test_bad_file_and_no_file_are_told_in_place(open_page, tmp_path: Path) -> None:
    page = open_page()
    page.get_by_role("button", name="Search").click()
    playwright.expect(page.locator("#results")).to_contain_text("No picture was chosen.")
    bad = tmp_path / "who.jpg"
    bad.write_text("<html>")
    page.get_by_label("Picture").set_input_files(bad)
    page.get_by_role("button", name="Search").click()
    playwright.expect(page.locator("#results")).to_contain_text("This picture cannot be used")
    playwright.expect(page.get_by_role("status")).to_contain_text("The file is of type HTML")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_needs_no_sideways_scrolling(open_page, photo: Path, scheme: str) -> None:
    enroll("x" * 200, draw_picture(seed=1))
    page = open_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.get_by_label("Picture").set_input_files(photo)
    page.get_by_role("button", name="Search").click()
    playwright.expect(page.locator(".hit")).to_have_count(2, timeout=TIMEOUT_MS)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(244, 246, 249)", "dark": "rgb(15, 20, 26)"}[scheme]
