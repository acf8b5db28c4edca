"""Two web servers, workers, PostgreSQL, a real Milvus, a bucket and nginx: `script/scale`, shortly."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator

import pytest
import requests

from tests.drawn_faces import as_jpeg, draw_group
from tests.pictures import draw_picture, packed
from tests.scale import AT_ONCE, run_site
from tests.scale_parts import ACCOUNT, Missing, NotReady, Part, Site, running_site

PASSWORD = ACCOUNT["DJANGO_SUPERUSER_PASSWORD"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, _converted: None) -> Iterator[Site]:
    """All parts but the web servers and the worker."""
    folder = tmp_path_factory.mktemp("site")
    try:
        with running_site(folder, workers=1, session_seconds=2, RATE_EMBED="4/hour") as site:
            yield site
    except Missing as error:
        pytest.skip(str(error))
    except NotReady as error:
        if os.environ.get("TEST_MILVUS_SERVER") == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture
def webs(site: Site) -> list[Part]:
    site.run(*site.webs, *site.workers)
    return site.webs


class Browser:
    """A browser whose every request goes to the other web server than the one before."""

    def __init__(self, site: Site, webs: list[Part]) -> None:
        self.site, self.turns = site, list(webs)
        self.cookies = requests.cookies.RequestsCookieJar()

    def ask(self, method: str, path: str, **options) -> requests.Response:
        self.turns.reverse()
        pairs = {each.name: each.value for each in self.cookies}
        own = f"https://127.0.0.1:{self.turns[0].port}/"
        headers = options.pop("headers", {}) | {"Referer": own}
        if method == "POST":
            options["data"] = options.get("data", {}) | {
                "csrfmiddlewaretoken": pairs.get("csrftoken", "")
            }
        answer = self.site.ask(
            self.turns[0], method, path, cookies=pairs, headers=headers, **options
        )
        self.cookies.update(answer.cookies)
        return answer

    def log_in(self, password: str) -> int:
        self.ask("GET", "/login")
        form = {"username": ACCOUNT["DJANGO_SUPERUSER_USERNAME"], "password": password}
        return self.ask("POST", "/login", data=form).status_code


def when_it_rests(browser: Browser, address: str) -> str:
    """Return the page of an import that neither the servers nor the worker are at."""
    deadline = time.monotonic() + 60
    while "data-working" in (page := browser.ask("GET", address).text):
        assert time.monotonic() < deadline, page
        time.sleep(0.2)
    return page


def test_every_request_may_go_to_the_other_server(site: Site, webs: list[Part]) -> None:
    stranger = Browser(site, webs)
    assert [stranger.log_in("wrong") for _attempt in range(5)][-1] == 429
    site.sql("DELETE FROM axes_accessattempt RETURNING 1")
    browser = Browser(site, webs)
    assert browser.log_in(PASSWORD) == 302
    assert [browser.ask("GET", "/admin/").status_code for _server in webs] == [200, 200]

    # A ZIP that is unpacked by one server, looked at and confirmed through others
    archive = packed({"zip/a.jpg": draw_picture((112, 112), seed="zip")})
    staged = browser.ask("POST", "/people/import", files={"archive": ("a.zip", archive)})
    address = staged.headers["Location"]
    assert "zip/a.jpg" in when_it_rests(browser, address)
    assert browser.ask("POST", address).status_code == 302
    assert "1 picture was added" in when_it_rests(browser, address)
    person = site.sql("SELECT id FROM enrollment_person WHERE person_id = 'zip'")[0][0]

    # A group photo that waits for its face
    picture = {"pictures": ("group.jpg", as_jpeg(draw_group()))}
    form = {"use_face_detection": "on"}
    browser.ask("POST", f"/people/{person}/add", data=form, files=picture)
    asked = browser.ask("GET", f"/people/{person}/faces").text
    name = re.search(r'name="(face-\w+)"', asked)[1]
    browser.ask("POST", f"/people/{person}/faces", data={name: "0"})
    paths = f"SELECT original_path FROM enrollment_faceimage WHERE person_id = {person} ORDER BY id"
    assert site.sql(paths) == [("zip/a.jpg",), ("group.jpg",)]

    # What a program repeats, and how often it calls
    program = Browser(site, webs)
    body = {"person_id": "key", "use_face_detection": "false", "image_paths": json.dumps(["k.jpg"])}
    answers = [
        program.ask(
            "POST",
            "/api/milvus/insert",
            data=body,
            files={"images": ("k.jpg", draw_picture((112, 112), seed="key"))},
            headers={"Idempotency-Key": "once"},
        ).json()
        for _server in webs
    ]
    assert answers[0] == answers[1] and answers[0]["inserted_count"] == 1
    calls = [program.ask("POST", "/api/embedding").status_code for _call in range(6)]
    assert calls == [400, 400, 400, 400, 429, 429]


def test_what_one_server_writes_the_other_finds_or_misses_at_once(
    site: Site, webs: list[Part]
) -> None:
    """A copy of the vectors in a server's memory would be stale."""
    program = Browser(site, webs)
    for number in range(3):
        picture = draw_picture((112, 112), seed=f"seen{number}")
        crop = {"use_face_detection": "false"}
        form = crop | {"person_id": f"seen{number}"}
        program.ask("POST", "/api/milvus/insert", data=form, files={"images": ("a.jpg", picture)})
        for gone in (False, True):
            if gone:
                program.ask("DELETE", f"/api/persons/seen{number}")
            for _server in webs:
                answer = program.ask(
                    "POST", "/api/milvus/search", data=crop, files={"image": ("a.jpg", picture)}
                )
                found = [hit["person_id"] for hit in answer.json()["results"]]
                assert (f"seen{number}" in found) is not gone
    health = [site.ask(web, "GET", "/api/health").json() for web in webs]
    assert [each["searched_in"] for each in health] == ["milvus", "milvus"]


def test_nothing_is_lost_when_a_part_of_each_kind_is_killed(site: Site, webs: list[Part]) -> None:
    outcome = run_site(site, kills=1, seconds=0, clients=3, ways=AT_ONCE)
    assert not outcome.failed, outcome
    assert outcome.restarts.keys() >= {"web1", "worker1", "Milvus", "S3"}
    assert min(outcome.load.promises.answers[call] for call in ("insert", "search", "delete")) > 0
