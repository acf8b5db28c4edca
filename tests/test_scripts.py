"""The scripts on a tiny project, so that installing it needs no network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_SECONDS = 120
# All that script/env may count on besides Python and git.
TOOLS = ("bash", "cat", "dirname", "env", "flock", "ls", "mkdir", "rm", "touch")


class FirstRun(NamedTuple):
    """A project after its first run, and what each of the two commands said that began it at once."""

    root: Path
    said: list[str]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    """Two commands at once on a new project, to be copied: making an environment takes seconds."""
    root = make_project(tmp_path_factory.mktemp("scripts") / "my project")
    both = [
        subprocess.Popen(
            [str(root / "script" / "manage")],
            env=environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _each in range(2)
    ]
    said = [process.communicate(timeout=TIMEOUT_SECONDS)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    return FirstRun(root, said)


@pytest.fixture
def installed(first_run: FirstRun, tmp_path: Path) -> Path:
    """A project in a folder with a space in its name, after its first run."""
    return Path(shutil.copytree(first_run.root, tmp_path / "my project", symlinks=True))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project before its first run."""
    return make_project(tmp_path / "my project")


def make_project(root: Path) -> Path:
    shutil.copytree(ROOT / "script", root / "script")
    (root / "requirements.txt").write_text("# nothing\n")
    (root / "manage.py").write_text("import sys; print(sys.prefix, sys.argv[1:])\n")
    return root


def run(root: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(root / "script" / "manage"), *words],
        env=environment(variables),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )


def environment(variables: dict[str, str]) -> dict[str, str]:
    hidden = {"VENV", "REQUIREMENTS", "TEST_REQUIREMENTS", "PYTHON"}
    base = {name: value for name, value in os.environ.items() if name not in hidden}
    return base | {"PIP_NO_INDEX": "1"} | variables


def test_second_run_installs_nothing_and_passes_its_words_on(installed: Path) -> None:
    again = run(installed, "enroll", "a b", "*")
    assert again.stdout == f"{installed / '.venv'} ['enroll', 'a b', '*']\n"
    assert "nstalling" not in again.stderr


def test_changed_requirements_are_installed(installed: Path) -> None:
    with (installed / "requirements.txt").open("a") as file:
        file.write("# changed\n")
    assert "Installing requirements.txt into .venv" in run(installed).stderr
    assert "nstalling" not in run(installed).stderr


def test_failed_install_says_so_and_is_tried_again(installed: Path) -> None:
    missing = installed / "missing.txt"
    missing.write_text("no-such-package-of-ours==1\n")
    refused = run(installed, REQUIREMENTS="missing.txt")
    assert refused.returncode == 1
    assert "pip could not install missing.txt" in refused.stderr
    missing.write_text("# nothing any more\n")
    mended = run(installed, REQUIREMENTS="missing.txt")
    assert mended.returncode == 0
    assert "Making the virtual environment" not in mended.stderr


def test_whoever_watches_sees_what_is_installed(installed: Path, tmp_path: Path) -> None:
    """The first time it takes minutes, in which nothing moved."""
    wheel = make_wheel(tmp_path / "wheels")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (installed / "requirements.txt").write_text(f"tiny==1 --hash=sha256:{digest}\n")
    watched, terminal = os.openpty()
    subprocess.run(
        [str(installed / "script" / "manage")],
        env=environment({"PIP_FIND_LINKS": str(wheel.parent)}),
        stdout=terminal,
        stderr=terminal,
        timeout=TIMEOUT_SECONDS,
        check=True,
    )
    os.close(terminal)
    assert "Successfully installed tiny-1" in os.read(watched, 65536).decode()
    os.close(watched)


def test_package_is_refused_unless_its_hash_is_the_locked_one(
    installed: Path, tmp_path: Path
) -> None:
    wheel = make_wheel(tmp_path / "wheels")
    lock = installed / "requirements.txt"
    wheels = {"PIP_FIND_LINKS": str(wheel.parent)}

    lock.write_text(f"tiny==1 --hash=sha256:{'0' * 64}\n")
    other = run(installed, **wheels)
    assert other.returncode == 1
    assert "DO NOT MATCH THE HASHES" in other.stderr

    lock.write_text("tiny==1\n")
    without = run(installed, **wheels)
    assert without.returncode == 1
    assert "--require-hashes" in without.stderr

    lock.write_text(f"tiny==1 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    assert run(installed, **wheels).returncode == 0


def make_wheel(folder: Path) -> Path:
    """Build the smallest package that pip installs."""
    folder.mkdir()
    wheel = folder / "tiny-1-py3-none-any.whl"
    about = "tiny-1.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{about}/RECORD", f"{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    return wheel


def test_torch_without_cuda_comes_by_itself_from_its_own_index(
    installed: Path, tmp_path: Path
) -> None:
    """The hashes of that index are not in our lock, so nothing else may come from there."""
    make_wheel(tmp_path / "wheels")
    (installed / "requirements-torch-cpu.txt").write_text("tiny==1\n")
    (installed / "requirements-cpu.txt").write_text("# nothing\n")
    smaller = {"REQUIREMENTS": "requirements-cpu.txt", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    assert run(installed, **smaller).returncode == 0
    assert list(installed.glob(".venv/lib/python*/site-packages/tiny-1.dist-info"))
    assert "nstalling" not in run(installed, **smaller).stderr


def test_tests_install_their_lock_beside_that_of_the_service(installed: Path) -> None:
    (installed / "requirements-test.txt").write_text("# nothing\n")
    both = {"TEST_REQUIREMENTS": "requirements-test.txt"}
    assert "Installing requirements.txt requirements-test.txt into" in run(installed, **both).stderr
    assert "nstalling" not in run(installed).stderr
    assert "nstalling" not in run(installed, **both).stderr


def test_interrupted_install_is_made_anew(installed: Path) -> None:
    (installed / ".venv" / "installed.requirements.txt").unlink(missing_ok=True)
    (installed / ".venv" / "installing").touch()
    again = run(installed)
    assert again.returncode == 0, again.stderr
    assert "Making the virtual environment .venv" in again.stderr


def test_two_first_runs_at_once_share_one_install(first_run: FirstRun) -> None:
    said = first_run.said
    assert sum("Making the virtual environment .venv" in text for text in said) == 1
    assert sum("waiting for it" in text for text in said) <= 1


def test_folder_that_is_no_environment_is_left_alone(project: Path, tmp_path: Path) -> None:
    """`venv --clear` would delete its contents."""
    precious = tmp_path / "home" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("all my work")
    refused = run(project, VENV=str(precious.parent))
    assert refused.returncode == 1
    assert "is not empty and no virtual environment" in refused.stderr
    assert precious.read_text() == "all my work"


def test_missing_python_is_told_in_a_sentence(project: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name))
    refused = run(project, PATH=str(tools))
    assert refused.returncode == 1
    assert "No Python 3.11 or newer" in refused.stderr
    assert "command not found" not in refused.stderr


def test_ci_runs_the_same_script_as_a_developer() -> None:
    last = (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1]
    assert last.endswith('/../script/test"')
