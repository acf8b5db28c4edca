"""nginx as `deploy/nginx/faces.conf` sets it up, on ports of the tests' own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "faces.example.org"

# What a distribution's own nginx.conf says around the file.
NGINX = """
{user} daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {site}
}}
"""


def find_program(name: str) -> str | None:
    """Return the path of a program, also of those for administrators only."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def make_certificate(folder: Path, openssl: str) -> None:
    """Write cert.pem and key.pem, for the name of the example and for this machine."""
    words = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    words += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    words += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(words, check=True, capture_output=True)


def changed(text: str, *changes: tuple[str, str]) -> str:
    for pattern, replacement in changes:
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert count, f"{pattern} is not in the file any more."
    return text


def nginx_command(
    nginx: str, folder: Path, http: int, https: int, certificate: Path, servers: Sequence[int]
) -> list[str]:
    """Write the configuration for servers on these ports into `folder`; return the command."""
    upstream = " ".join(f"server 127.0.0.1:{port};" for port in servers)
    site = changed(
        (ROOT / "deploy" / "nginx" / "faces.conf").read_text(),
        (r"listen 80;", f"listen 127.0.0.1:{http};"),
        (r"listen 443 ssl;", f"listen 127.0.0.1:{https} ssl;"),
        (r"^ +listen \[::\]:.*\n", ""),
        (r"/etc/faces/tls", str(certificate)),
        (r"/var/log/nginx", str(folder)),
        (r"server 127\.0\.0\.1:8000;", upstream),
    )
    user = "user root;" if os.geteuid() == 0 else ""  # who may write in this folder
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, site=site, user=user))
    return [nginx, "-p", str(folder), "-c", str(file)]
