"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.recognition.milvus_server import free_port

USER = "postgres"  # the server refuses to run as root


class NoPostgresql(Exception):
    """This machine cannot run one; the message says why."""


def server_programs() -> Path:
    """Return the folder of the server's programs. Raise `NoPostgresql`."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    raise NoPostgresql("No PostgreSQL server on this machine: install postgresql to run this.")


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Run an empty PostgreSQL; yield its URL. Raise `NoPostgresql` where there is none."""
    programs = server_programs()
    owner = {}
    if os.getuid() == 0:
        try:
            account = pwd.getpwnam(USER)
        except KeyError as error:
            reason = f"PostgreSQL does not run as root, and there is no account {USER!r}."
            raise NoPostgresql(reason) from error
        owner = {"user": account.pw_uid, "group": account.pw_gid, "cwd": "/tmp"}
    folder = Path(
        tempfile.mkdtemp(prefix="postgresql-", dir="/tmp")
    )  # a short path, for the socket
    if owner:
        os.chown(folder, owner["user"], owner["group"])
    port = free_port()

    def control(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, "-D", folder, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=120,
            **owner,
        )

    try:
        control("initdb", "-U", "faces", "--auth=trust", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        control("pg_ctl", "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgres://faces@127.0.0.1:{port}/postgres"
        finally:
            control("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
