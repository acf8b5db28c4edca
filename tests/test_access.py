"""Access control by address, headers and account: open to this machine, closed to others."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.contrib.auth import get_user_model
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from recognition.api.access import is_cross_site, is_loopback_name, is_own, root_address
from recognition.api.peer import PEER
from tests.pictures import upload

PATH = "/api/milvus/stats"


@pytest.fixture
def user(db):
    return get_user_model().objects.create_user("ana", password="a long password")


@pytest.fixture
def request_with(rf, settings):
    """Return a GET request with these headers from this address."""

    def make(host: str = "localhost:8000", address: str = "127.0.0.1", **headers: str):
        settings.ALLOWED_HOSTS = ["*"]
        peer = SimpleNamespace(is_own=is_loopback_name(address))
        meta = {"REMOTE_ADDR": address, PEER: peer}
        return rf.get(PATH, headers={"host": host} | headers, **meta)

    return make


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.8.9.1", "[::1]", "::1"])
def test_names_of_this_machine(name):
    assert is_loopback_name(name)


@pytest.mark.parametrize(
    "name", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "127.0.0.1.nip.io"]
)
def test_names_that_may_mean_another_machine(name):
    assert not is_loopback_name(name)


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]"),
        ("faces.example", "faces.example"),
        ("0.0.0.0", "localhost"),
        ("::", "localhost"),
        ("*", "localhost"),
    ],
)
def test_the_address_to_open_is_one_that_is_answered(settings, host, shown):
    settings.HOST = host
    assert root_address(8000) == f"http://{shown}:8000"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("localhost:8000", "127.0.0.1"),
        ("LOCALHOST:8000", "127.0.0.1"),
        ("127.0.0.1:8000", "127.0.0.1"),
        ("[::1]:8000", "::1"),
        ("localhost", "::1"),
    ],
)
def test_a_request_of_this_machine_is_own(request_with, host, address):
    assert is_own(request_with(host, address))


@pytest.mark.parametrize(
    ("host", "address", "headers"),
    [
        pytest.param("localhost", "10.0.0.7", {}, id="another machine"),
        pytest.param("localhost", "", {}, id="no address"),
        pytest.param("rebound.example", "127.0.0.1", {}, id="DNS rebinding"),
        pytest.param(
            "localhost", "127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, id="forwarded for"
        ),
        pytest.param(
            "localhost", "127.0.0.1", {"x-forwarded-proto": "https"}, id="forwarded proto"
        ),
        pytest.param("localhost", "127.0.0.1", {"x-forwarded-for": ""}, id="empty header"),
        pytest.param("localhost", "127.0.0.1", {"forwarded": "for=1.2.3.4"}, id="RFC 7239"),
        pytest.param("localhost", "127.0.0.1", {"x-real-ip": "1.2.3.4"}, id="nginx"),
        pytest.param("localhost", "127.0.0.1", {"via": "1.1 proxy"}, id="via"),
        pytest.param("localhost", "127.0.0.1", {"cf-connecting-ip": "1.2.3.4"}, id="Cloudflare"),
    ],
)
def test_what_may_come_from_elsewhere_is_not_local(request_with, host, address, headers):
    assert not is_own(request_with(host, address, **headers))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5"])
def test_a_server_that_listens_to_others_is_local_to_nobody(request_with, settings, host):
    settings.HOST = host
    assert not is_own(request_with())


def test_a_connection_of_which_nothing_is_known_is_nobodys(rf):
    """Other servers, such as `runserver`, do not provide the `Peer`."""
    assert not is_own(rf.get(PATH, headers={"host": "localhost"}, REMOTE_ADDR="127.0.0.1"))


def test_another_users_program_is_not_local(rf):
    stranger = {PEER: SimpleNamespace(is_own=False)}
    assert not is_own(rf.get(PATH, headers={"host": "localhost"}, **stranger))


def test_no_header_makes_a_peer(rf):
    headers = {"host": "localhost", PEER: "1", "recognition-peer": "1"}
    assert not is_own(rf.get(PATH, headers=headers))


@pytest.mark.parametrize(
    ("headers", "cross"),
    [
        ({}, False),
        ({"origin": "http://localhost:8000"}, False),
        ({"origin": "http://localhost:3000"}, True),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://[::1"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "https://ours.example"}, False),
    ],
)
def test_what_another_sites_page_sends_is_told_apart(request_with, settings, headers, cross):
    settings.CSRF_TRUSTED_ORIGINS = ["https://ours.example"]
    assert is_cross_site(request_with(**headers)) is cross


def test_a_stranger_is_asked_for_a_token(api, db):
    response = api.get(PATH, REMOTE_ADDR="10.0.0.7")
    body = response.json()
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Token"
    assert body["error"] == "not_authenticated"
    assert "Authorization: Token" in body["message"]


def test_a_token_opens_the_door(api, user):
    token = Token.objects.create(user=user).key
    headers = {"authorization": f"Token {token}"}
    assert api.get(PATH, REMOTE_ADDR="10.0.0.7", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("value", "address"),
    [("Token wrong", "127.0.0.1"), ("Token wrong", "10.0.0.7"), ("Token \xff", "127.0.0.1")],
)
def test_a_wrong_token_is_401_even_here(api, db, value, address):
    response = api.get(PATH, REMOTE_ADDR=address, headers={"authorization": value})
    assert response.status_code == 401
    assert response.json()["error"] == "authentication_failed"


def test_a_disabled_user_stays_out(api, user):
    token = Token.objects.create(user=user).key
    user.is_active = False
    user.save()
    response = api.get(PATH, headers={"authorization": f"Token {token}"})
    assert response.status_code == 401


@pytest.mark.parametrize(
    ("required", "address", "status"),
    [
        (None, "127.0.0.1", 200),
        (None, "10.0.0.7", 401),
        (True, "127.0.0.1", 401),
        (False, "10.0.0.7", 200),
    ],
)
def test_the_administrator_has_the_last_word(api, db, settings, required, address, status):
    settings.API_AUTH_REQUIRED = required
    assert api.get(PATH, REMOTE_ADDR=address).status_code == status


def test_another_sites_page_may_not_send_pictures(api, db):
    response = api.post(
        "/api/embedding", {"image": upload()}, headers={"origin": "http://evil.example"}
    )
    assert response.status_code == 403
    assert response.json()["error"] == "permission_denied"
    assert "WWW-Authenticate" not in response


def test_our_own_page_may_send_pictures(api, db):
    headers = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    response = api.post("/api/embedding", {"image": upload()}, headers=headers)
    assert response.status_code == 200


def test_a_link_on_another_site_may_lead_here(api, db):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert api.get("/api/models", headers=headers).status_code == 200


def test_a_session_without_its_csrf_token_is_403(user):
    browser = APIClient(enforce_csrf_checks=True, headers={"host": "localhost"})
    browser.force_login(user)
    response = browser.post("/api/embedding", {"image": upload()})
    assert response.status_code == 403
    assert "without its CSRF token. Reload the page" in response.json()["message"]


def test_health_needs_no_account(api, db):
    assert api.get("/api/health", REMOTE_ADDR="10.0.0.7").status_code == 200


@pytest.mark.parametrize(
    "path", ["/api/embedding", "/api/embeddings/batch", "/api/milvus/insert", "/api/milvus/search"]
)
def test_every_call_about_faces_needs_an_account_elsewhere(api, db, path):
    response = api.post(path, {"image": upload()}, REMOTE_ADDR="10.0.0.7")
    assert response.status_code == 401
