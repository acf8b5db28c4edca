"""A real browser for tests: Chromium with a fake camera, fresh profiles, and how pages look in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
TIMEOUT_MS = 60_000  # a busy machine is waited for, never a fixed time
expect.set_options(timeout=TIMEOUT_MS)

# The shell has the same engine in a process without windows, and opens a page at half the cost.
PROGRAMS = ("chromium-headless-shell", "chromium")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A camera that shows a file, and leave to use it.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
SCREENSHOTS = ROOT / "artifacts" if os.environ.get("SCREENSHOTS") else None  # for who looks at them
WIDTHS = (320, 390, 820, 1440)  # the first is 1280 at four times the size, too
AXE = Path(__file__).parent / "axe" / "axe.min.js"
# What axe finds that keeps people out, as "rule: where".
SERIOUS = """async () => {
    const { violations } = await axe.run({ resultTypes: ["violations"], selectors: false });
    return violations
        .filter(({ impact }) => impact === "serious" || impact === "critical")
        .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
}"""

IN_A_BROWSER = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        not CHROMIUM,
        reason="No chromium: apt-get install chromium-headless-shell, or set CHROMIUM to its path.",
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[playwright.Browser]:
    """Chromium with a fake camera that shows the first person."""
    film = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    film.write_bytes(as_jpeg(draw_face(PEOPLE[0], side=480)))
    flags = [*FLAGS, f"--use-file-for-fake-video-capture={film}"]
    with pytest.MonkeyPatch.context() as patch, playwright.sync_playwright() as engine:
        # Playwright's own event loop runs in this thread; the ORM is not called from within it.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, live_server, weights: str) -> Iterator[Callable[..., playwright.Page]]:
    """Open a page in a fresh profile; the browser's errors are in `page.faults`."""
    contexts = []

    def open_page(address: str = "/", **options) -> playwright.Page:
        options = {"locale": "en"} | options
        contexts.append(browser.new_context(base_url=live_server.url, **options))
        contexts[-1].set_default_timeout(TIMEOUT_MS)
        page = contexts[-1].new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda message: page.faults.append(message.text))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()


def serious_barriers(page: playwright.Page) -> list[str]:
    page.evaluate(AXE.read_text())
    return page.evaluate(SERIOUS)


# Colours change no width and words no contrast, so each of them with one of the other.
in_both_looks = pytest.mark.parametrize(("scheme", "locale"), [("light", "en"), ("dark", "pt-BR")])


def look_at(page: playwright.Page, name: str, *, kind: str) -> None:
    """Check at each width that nothing scrolls sideways and that there is no serious axe violation."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width, name
        if SCREENSHOTS:
            page.screenshot(path=SCREENSHOTS / f"{name}-{width}-{kind}.png", full_page=True)
    assert serious_barriers(page) == [], name
