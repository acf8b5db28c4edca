"""The lock files contain what requirements*.in require, with a hash for each file, and agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# `name[extras]==version ; marker`, then its hashes on lines of their own.
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[\w,-]+\])?==([^\s;]+)", re.MULTILINE)
KINDS = ("requirements", "requirements-test", "requirements-retinaface", "requirements-tracing")
LOCKS = (*KINDS, "requirements-cpu")


def read(name: str) -> str:
    return (ROOT / name).read_text()


def pins(name: str) -> dict[str, str]:
    return {re.sub(r"[-_.]+", "-", pin[1]).lower(): pin[2] for pin in PIN.finditer(read(name))}


@pytest.mark.parametrize("kind", KINDS)
def test_lock_holds_what_is_asked_for(kind: str) -> None:
    asked = pins(f"{kind}.in")
    locked = pins(f"{kind}.txt")
    assert asked
    assert {name: locked.get(name) for name in asked} == asked, "script/lock writes the locks anew."


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_a_hash_and_no_index_but_pypi(lock: str) -> None:
    text = read(f"{lock}.txt")
    requirements = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert [each.split()[0] for each in requirements if "--hash=sha256:" not in each] == []
    assert "://" not in text
    assert not re.search(r"^--", text, re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS[1:])
def test_locks_agree(lock: str) -> None:
    service = pins("requirements.txt")
    other = {name: version for name, version in pins(f"{lock}.txt").items() if name in service}
    assert other == {name: service[name] for name in other}


def test_service_is_installed_without_what_only_tests_need() -> None:
    assert not set(pins("requirements-test.in")) & set(pins("requirements.txt"))


def test_smaller_install_is_the_same_without_cuda() -> None:
    left_out = set(pins("requirements.txt")) - set(pins("requirements-cpu.txt"))
    publishers = {name: version.removesuffix("+cpu") for name, version in torch_cpu().items()}
    assert publishers == {name: pins("requirements.txt")[name] for name in ("torch", "torchvision")}
    assert {re.split("-", name)[0] for name in left_out - set(publishers)} <= {
        "cuda",
        "nvidia",
        "triton",
    }


def test_what_others_wrote_runs_at_a_commit_that_we_name() -> None:
    """Tags can be moved to other code. The version in the comment is for readers and Dependabot."""
    workflows = [file.read_text() for file in (ROOT / ".github" / "workflows").iterdir()]
    used = re.findall(r"uses: (.+)", "\n".join(workflows))
    hooks = re.findall(r"rev: (.+)", read(".pre-commit-config.yaml"))
    assert used and hooks
    assert [
        each for each in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d[\d.]*", each)
    ] == []
    assert [
        each for each in hooks if not re.fullmatch(r"[0-9a-f]{40} # frozen: v\d[\d.]*", each)
    ] == []


def torch_cpu() -> dict[str, str]:
    return pins("requirements-torch-cpu.txt")
