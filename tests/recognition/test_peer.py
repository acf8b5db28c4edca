"""Which program is at the other end of a connection, with real processes and connections."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from recognition.api import peer
from recognition.api.peer import Peer, is_supported

pytestmark = pytest.mark.skipif(not is_supported(), reason="Only Linux tells whose a socket is.")
NOBODY = 65534
SECONDS = 60

# Connects, does what it is told, says so, and waits until it is let go.
CLIENT = """
import encodings.idna, os, socket, sys
kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "another user":
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
if kind == "listens":
    listener = socket.create_server(("127.0.0.1", 0))
if kind == "was called":  # as the child of a forking proxy, or one that inetd started
    listener = socket.create_server(("127.0.0.1", 0))
    caller = socket.create_connection(listener.getsockname())
    called, _ = listener.accept()
    if os.fork():
        os.wait(); sys.exit()
    listener.close(); caller.close()
connection = socket.create_connection((host, port), 20)
if kind == "half closed":
    connection.shutdown(socket.SHUT_WR)
if kind == "gone":
    connection.close()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def peer_of() -> Iterator[Callable[..., Peer]]:
    """Return the `Peer` of a program that connects here by an address of this machine."""
    programs: list[subprocess.Popen[str]] = []
    connections: list[socket.socket] = []

    def accept(kind: str = "plain", host: str = "127.0.0.1", listen: str = "127.0.0.1") -> Peer:
        family = socket.AF_INET6 if ":" in listen else socket.AF_INET
        with socket.create_server((listen, 0), family=family) as listener:
            listener.settimeout(SECONDS)
            arguments = [kind, host, str(listener.getsockname()[1])]
            programs.append(
                subprocess.Popen(
                    [sys.executable, "-c", CLIENT, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            connections.append(listener.accept()[0])
            assert programs[-1].stdout.readline() == "ready\n"
        return Peer(connections[-1])

    yield accept
    for connection in connections:
        connection.close()
    for program in programs:
        program.communicate(timeout=SECONDS)


@pytest.mark.parametrize(
    ("listen", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "::ffff:127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "::1"),
    ],
)
def test_own_program_by_every_address_of_the_loopback(peer_of, listen, host):
    assert peer_of(host=host, listen=listen).is_own


def test_one_that_has_sent_all_still_is_own(peer_of):
    assert peer_of("half closed").is_own


def test_rows_that_come_twice_are_one(peer_of, monkeypatch):
    """As when connections are made while the kernel writes the table: its end is written again."""
    connected, rows = peer_of(), peer._rows
    monkeypatch.setattr(peer, "_rows", lambda: [*rows(), *rows()])
    assert connected.is_own


@pytest.mark.parametrize("kind", ["listens", "was called", "gone"])
def test_what_may_pass_on_anothers_request_is_not_own(peer_of, kind):
    assert not peer_of(kind).is_own


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can start a process of another user.")
def test_another_users_program(peer_of):
    assert not peer_of("another user").is_own


def test_own_program_through_an_outer_address(peer_of):
    """Like a connection through a container bridge or a forwarded port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("This machine has no address but loopback.")
        outer = probe.getsockname()[0]
    assert not peer_of(host=outer, listen=outer).is_own


def test_a_program_that_cannot_be_seen_is_not_own(peer_of, monkeypatch):
    """Like a program in another container with the same network."""
    connected = peer_of()
    monkeypatch.setattr(peer, "_processes", lambda uid: iter(()))
    assert not connected.is_own


def test_a_system_without_proc_has_no_own_programs(peer_of, monkeypatch, tmp_path):
    connected = peer_of()
    monkeypatch.setattr(peer, "PROC", tmp_path)
    assert not connected.is_own and not is_supported()


def test_the_user_who_stands_for_unknown_ones_owns_nothing(peer_of, monkeypatch):
    connected = peer_of()
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert not connected.is_own


def test_files_that_close_meanwhile_hide_no_socket(tmp_path):
    """Like those, the plain files cannot be read as links."""
    folder = tmp_path / "fd"
    folder.mkdir()
    for number in range(0, 40, 2):
        (folder / str(number)).touch()
        (folder / str(number + 1)).symlink_to(f"socket:[{number}]")

    assert peer._socket_inodes(tmp_path) == {str(number) for number in range(0, 40, 2)}
