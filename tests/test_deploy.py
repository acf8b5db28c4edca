"""What is deployed with: the Dockerfile, Compose and systemd name only files and settings that exist."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from enrollment.pages.help import CHAPTERS
from faceproject.configuration import SETTINGS
from tests.test_door import program

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = [ROOT / "compose.yaml", ROOT / "compose.scale.yaml"]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
KNOWN = {item.name for item in SETTINGS}
# Of the scripts and of Python, not of the service.
OTHERS = {"VENV", "REQUIREMENTS", "HOME", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
FORMS = {"services", "volumes"}


def tracked() -> list[str]:
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def sent() -> set[str]:
    """The files that `.dockerignore` lets into the container: the last line that fits decides."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    def is_sent(name: str) -> bool:
        ignored = False
        for rule in rules:
            pattern = rule.removeprefix("!")
            if fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}/"):
                ignored = not rule.startswith("!")
        return not ignored

    return {name for name in tracked() if is_sent(name)}


def test_the_container_has_what_runs_and_nothing_else() -> None:
    names = sent()
    kinds = ("enrollment/", "faceproject/", "recognition/", "static/", "templates/", "locale/")
    wanted = {name for name in tracked() if name.startswith((*kinds, "weights/"))}
    assert wanted <= names
    assert {"manage.py", "script/env", "script/server", "requirements-cpu.txt"} <= names
    help_pages = {f"docs/{name}.md" for name in CHAPTERS}
    help_pages |= {f"docs/{name}.pt-BR.md" for name in CHAPTERS}
    assert help_pages <= names
    rest = {name.partition("/")[0] for name in names - wanted - help_pages}
    assert not rest & {"tests", "docs", "data", "training", "client", ".git", "artifacts"}


def test_what_the_scripts_of_the_container_name_is_in_it() -> None:
    names = sent()
    for script in ("server", "worker", "manage", "milvus", "env"):
        assert f"script/{script}" in names
    copied = re.findall(r"^COPY (?!--from)(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for pattern in set(copied) - {"."}:
        assert fnmatch.filter(names, pattern), pattern


def test_the_container_sets_what_exists() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    last = re.findall(r"^ENV (.+)$", text, re.MULTILINE)[-1]
    names = set(re.findall(r"(\w+)=", last))
    assert {"DATA_DIR", "HOST", "PORT"} <= names <= KNOWN | OTHERS
    assert re.search(r"^USER \d+$", text, re.MULTILINE)


def test_a_linter_finds_nothing_in_the_dockerfile() -> None:
    if not (hadolint := shutil.which("hadolint")):
        pytest.skip("hadolint is not installed: it comes with requirements-test.txt on x86-64.")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def services(file: Path) -> dict[str, dict]:
    return yaml.safe_load(file.read_text())["services"]


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_compose_sets_what_exists_and_takes_no_right(file: Path) -> None:
    ours = {name: each for name, each in services(file).items() if "build" in each}
    assert ours
    for name, each in ours.items():
        assert set(each["environment"]) <= KNOWN, name
        assert each["read_only"] and each["cap_drop"] == ["ALL"] and each["init"], name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        assert each["volumes"] == ["data:/data"], name
        assert each["logging"]["options"]["max-size"], name
        for word in each.get("command", [])[:1]:
            assert (ROOT / word).is_file()


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_compose_reads_the_file(file: Path) -> None:
    """Have Compose itself read it, which needs no daemon."""
    if docker := shutil.which("docker-compose"):
        compose = [docker]
    else:
        compose = [program("docker"), "compose"]
        if subprocess.run([*compose, "version"], capture_output=True).returncode:
            pytest.skip("Compose is not installed.")
    asked = re.findall(r"\$\{(\w+):\?", file.read_text())
    environment = {"PATH": os.environ["PATH"]} | dict.fromkeys(asked, "/given")
    words = [*compose, "--file", str(file), "config", "--quiet"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_compose_knows_what_its_services_name(file: Path) -> None:
    declared = yaml.safe_load(file.read_text())
    assert {name for name in declared if not name.startswith("x-")} == FORMS
    for each in declared["services"].values():
        waits = each.get("depends_on", [])
        assert set(waits) <= set(declared["services"])
        for volume in each.get("volumes", []):
            source = volume.rpartition(":/")[0] if "${" in volume else volume.partition(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
            elif not source.startswith("${"):
                assert source in declared["volumes"]
        image = each.get("image", "faces")
        assert image == "faces" or (":" in image and not image.endswith(":latest"))


def test_the_proxy_of_compose_finds_the_lines_that_it_changes() -> None:
    command = services(COMPOSE[1])["proxy"]["command"][-1]
    site = (ROOT / "deploy" / "nginx" / "faces.conf").read_text()
    changes = re.findall(r's/(.+?)/(.+?)/g?"', command)
    assert len(changes) == 2 and all(before in site for before, _after in changes)
    prometheus = services(COMPOSE[1])["prometheus"]["entrypoint"][-1]
    targets = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    assert '"localhost:8000"' in prometheus and '"localhost:8000"' in targets


def test_both_units_are_guarded_alike() -> None:
    assert len(UNITS) == 2
    guards = [unit.read_text().partition("# Nothing is written")[2] for unit in UNITS]
    assert guards[0] and guards[0] == guards[1]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_reads_the_unit_and_finds_little_exposed(unit: Path, tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    text = unit.read_text()
    for name in re.findall(r"/srv/faces/(\S+)", re.sub(r"^#.*$", "", text, flags=re.MULTILINE)):
        assert (ROOT / name).exists()
    here = text.replace("/srv/faces", str(ROOT)).replace("=faces\n", "=root\n", 2)
    (tmp_path / unit.name).write_text(here)
    words = [analyze, "verify", "--man=no", str(tmp_path / unit.name)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert unit.name not in done.stderr, done.stderr
    words = [analyze, "security", "--offline=true", "--threshold=20", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("This systemd is too old to look at the file of a unit.")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_root_compiles_what_the_account_may_read_and_not_write(
    unit: Path, foreign: bool, tmp_path: Path
) -> None:
    """But not by a Python that is another account's."""
    (line,) = re.findall(r"^ExecStartPre=\+-/bin/sh -c '(.+)'$", unit.read_text(), re.MULTILINE)
    folders = ("enrollment", "faceproject", "recognition")
    for folder in folders:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "module.py").touch(mode=0o644)
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    venv = python.parent.parent
    if foreign and os.geteuid() == 0:
        os.chown(venv, 65534, 65534)
    elif foreign:
        venv = Path("/usr")  # root's
    environment = {"VENV": str(venv), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        ["/bin/sh", "-c", line.replace("$$", "$")],
        cwd=tmp_path,
        env=environment,
        umask=0o077,
        check=True,
        timeout=60,
    )
    if foreign:
        assert not list(tmp_path.rglob("__pycache__"))
        return
    for folder in folders:
        (compiled,) = (tmp_path / folder / "__pycache__").iterdir()
        assert compiled.stat().st_mode & 0o444 == 0o444
        assert compiled.parent.stat().st_mode & 0o555 == 0o555
