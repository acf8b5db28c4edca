"""Find out from the Linux kernel which program is at the other end of a local connection.

The kernel lists both ends of a connection within the machine, with their owners, in `/proc/net/tcp`
and `tcp6`. Headers, protocol versions and addresses cannot tell a proxy from a person; the owner
and the other sockets of the program at the other end can.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

logger = logging.getLogger(__name__)

# The key of the `Peer` in a request's META. No header can set it.
PEER: Final = "recognition.peer"
PROC: Final = Path("/proc")
LISTENING: Final = "0A"
BOTH_ENDS_OPEN: Final = (1, 8)  # TCP_ESTABLISHED, TCP_CLOSE_WAIT
SOCKET_LINK: Final = "socket:["


class Row(NamedTuple):
    """One end of a connection as in `/proc/net/tcp`: hexadecimal addresses with ports."""

    local: str
    remote: str
    state: str
    uid: int
    inode: str  # "0": no process owns the socket any more


class Peer:
    """The program at the other end of a TCP connection that this process accepted."""

    # The hash of the headers with which it was let in, and until when it need not be examined again.
    let_in: tuple[int | None, float] = (None, 0.0)

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @cached_property
    def is_own(self) -> bool:
        """Whether a program of this process's user opened the connection, and serves nobody else.

        False when this is uncertain: not on Linux, across containers, or for a program that cannot
        be inspected. False also for a program that has a listening socket or a connection accepted
        from one, since it may forward requests of others (nginx, haproxy or socat run by the same
        user).
        """
        try:
            return self._examine()
        except (OSError, ValueError, IndexError) as error:
            logger.info("Whose program a connection belongs to cannot be told: %s", error)
            return False

    def _examine(self) -> bool:
        near, far = self._connection.getsockname()[:2], self._connection.getpeername()[:2]
        if not ipaddress.ip_address(far[0].partition("%")[0]).is_loopback:
            return False
        own = os.geteuid()
        if own == int((PROC / "sys/kernel/overflowuid").read_text()):
            return False  # the overflow uid stands for all users unknown in this namespace
        rows, theirs, ours = list(_rows()), _hex(*far), _hex(*near)
        # A set: rows come twice when connections are made while the kernel writes the table.
        ends = {(row.uid, row.inode) for row in rows if row.local in theirs and row.remote in ours}
        # While our end is open, no other connection can have these addresses, so the row is ours.
        info = self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        if len(ends) != 1 or info[0] not in BOTH_ENDS_OPEN:
            return False
        ((uid, inode),) = ends
        return uid == own and inode != "0" and _serves_nobody(uid, inode, rows)


def is_supported() -> bool:
    """Return whether this system can tell who is at the other end of a connection."""
    return sys.platform == "linux" and (PROC / "net/tcp").exists()


def own_user() -> str:
    """Return the name of the user who runs this process."""
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):  # not Unix, or a user without a name, as in some containers
        return str(getattr(os, "geteuid", str)())


def _serves_nobody(uid: int, inode: str, rows: list[Row]) -> bool:
    served_ports = {_port(row.local) for row in rows if row.state == LISTENING}
    serving = {row.inode for row in rows if _port(row.local) in served_ports}
    for process in _processes(uid):
        inodes = _socket_inodes(process)
        if inode not in inodes:
            continue
        if inodes & serving:
            logger.info(
                "Process %s of this user connects here and serves others itself: it needs an account.",
                process.rpartition("/")[2],
            )
            return False
        return True
    return False


def _rows() -> Iterator[Row]:
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (PROC / table).read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            fields = line.split()
            yield Row(fields[1], fields[2], fields[3], int(fields[7]), fields[9])


def _hex(host: str, port: int) -> set[str]:
    """Return the address as the tables write it: 32-bit words in native byte order, IPv4 in both
    forms."""
    address = ipaddress.ip_address(host.partition("%")[0])
    version_4 = address if address.version == 4 else address.ipv4_mapped
    written = {address.packed}
    if version_4:
        written |= {version_4.packed, b"\0" * 10 + b"\xff\xff" + version_4.packed}
    return {f"{_words(packed)}:{port:04X}" for packed in written}


def _words(packed: bytes) -> str:
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def _processes(uid: int) -> Iterator[str]:
    """Yield the folders of the user's processes that this process may inspect."""
    for entry in os.scandir(PROC):
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                yield entry.path
        except OSError:  # it has ended
            continue


def _socket_inodes(process: str) -> set[str]:
    inodes = set()
    with suppress(OSError):  # it has ended, or may not be looked into
        for entry in os.scandir(f"{process}/fd"):
            try:
                target = os.readlink(entry.path)  # noqa: PTH115 (thousands of them)
            except OSError:  # closed meanwhile: a busy program opens and closes all the time
                continue
            if target.startswith(SOCKET_LINK):
                inodes.add(target[len(SOCKET_LINK) : -1])
    return inodes
