"""Every command of the documentation, run in a copy of the project as a new user would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.conf import settings
from django.test import override_settings
from faceclient import FaceClient

from recognition.networks import NETWORKS, find_weights
from recognition.networks.loader import unload_networks
from recognition.networks.weights import weights_file
from tests.conftest import convert_once
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face, draw_group

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "client" / "README.md", ROOT / "weights" / "README.md"]
TIMEOUT_SECONDS = 240  # a busy machine is waited for; a test may take 300
COPIED = ("client", "enrollment", "faceproject", "locale", "recognition", "script", "static")
COPIED += ("templates", "weights", "manage.py", "requirements.txt")

SERVES = "runs until it is stopped; the fixture `served` starts script/server"
INSTALLS = "installs packages from a registry"
DOCKER = "needs a Docker daemon; docs/container.md says what was tried"
DOWNLOADS = "downloads weights"
NOT_RUN = {
    "script/server": "is started by the fixture `served`",
    "DJANGO_SUPERUSER_USERNAME=me DJANGO_SUPERUSER_PASSWORD=… script/server": SERVES,
    "HOST=0.0.0.0 ALLOWED_HOSTS=faces.example.org,192.168.0.7 script/server": SERVES,
    "REQUIREMENTS=requirements-cpu.txt script/server": INSTALLS,
    "python manage.py runserver": SERVES,
    "python manage.py serve": SERVES,
    "script/milvus": f"{SERVES}; tests/recognition/test_milvus_command.py runs it",
    "script/worker": f"{SERVES}; tests/enrollment/test_backlog.py does its work",
    "script/test": "would run this test again",
    "script/manage createsuperuser": "asks for a password at a terminal",
    "script/manage setup": "asks at a terminal; tests/test_setup.py",
    "script/manage setup --no-input --set LANGUAGE_CODE=pt-br --set PERSON_KEEP_DAYS=365 --fetch yunet": DOWNLOADS,
    "git clone <this repository> faces && cd faces": "the address is not known yet",
    "git pull": "needs a published repository",
    "pip install -r requirements.txt": INSTALLS,
    "pip install -r requirements-retinaface.txt": INSTALLS,
    "pip install -r requirements-test.txt": INSTALLS,
    "pip install -r requirements-tracing.txt": INSTALLS,
    "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 script/server": SERVES,
    "sudo systemctl enable --now faces": "needs systemd and root",
    "journalctl -u faces -f": "needs systemd",
    "systemctl stop faces": "needs systemd and root",
    "systemctl start faces": "needs systemd and root",
    "git -C /srv/faces pull": "needs a published repository",
    "VENV=/srv/faces/.venv /srv/faces/script/manage check": "needs an installation in /srv/faces",
    "systemd-run --pty --wait --uid=faces --property=EnvironmentFile=-/etc/faces.env --setenv=DATA_DIR=/var/lib/faces --setenv=ENV_FILE=/dev/null /srv/faces/script/manage upgrade": "needs systemd and root",
    "systemd-run --pty --wait --uid=faces --property=EnvironmentFile=-/etc/faces.env --setenv=DATA_DIR=/var/lib/faces --setenv=ENV_FILE=/dev/null /srv/faces/script/manage backup /var/lib/faces/faces.tar": "needs systemd and root",
    "script/manage upgrade --undo": "there is no upgrade to undo; tests/enrollment/test_upgrade.py",
    "script/manage changepassword NAME": "asks for a password at a terminal",
    "pip install ./client": "changes the environment of the tests; the snippets import it from its folder",
    "script/manage fetch_weights yunet": DOWNLOADS,
    "script/manage fetch_weights liveness": DOWNLOADS,
    "script/manage fetch_weights mobilenetv3_large --url ADDRESS --sha256 HASH": DOWNLOADS,
    **dict.fromkeys(
        (
            "DJANGO_SUPERUSER_USERNAME=me DJANGO_SUPERUSER_PASSWORD='a long pass phrase' docker compose up --detach",
            "docker compose logs --follow",
            "docker compose exec faces script/manage diagnose",
            "docker compose exec faces script/manage createsuperuser",
            "docker compose exec faces script/manage backup /data/faces.tar",
            "docker compose cp faces:/data/faces.tar .",
            "docker compose cp faces:/data/faces.tar.erased .",
            "docker compose exec faces rm /data/faces.tar /data/faces.tar.erased",
            "docker compose exec faces script/manage backup /data/before.tar",
            "docker compose cp faces:/data/before.tar .",
            "docker compose cp faces:/data/before.tar.erased .",
            "docker compose exec faces rm /data/before.tar /data/before.tar.erased",
            "docker compose build",
            "docker compose stop faces",
            "docker compose run --rm faces script/manage upgrade",
            "docker compose up --detach",
            "docker compose --file compose.scale.yaml build",
            "docker compose --file compose.scale.yaml stop web1 web2 worker1 worker2",
            "docker compose --file compose.scale.yaml run --rm migrate script/manage upgrade",
            "docker compose --file compose.scale.yaml up --detach",
            "REQUIREMENTS=requirements.txt docker compose up --build --detach",
            "docker compose --file compose.scale.yaml up --build --detach",
        ),
        DOCKER,
    ),
    **dict.fromkeys(
        (
            "curl -F action=assign -F person_id=bia http://localhost:8000/api/inbox/probe-1",
            "curl -F answer_number=h2k7mq9xw3pb -F face=1 -F person_id=bia -F verdict=rejected "
            "http://localhost:8000/api/feedback",
        ),
        "needs a face that is kept; tests/test_api_examples.py and tests/enrollment/test_inbox.py",
    ),
    **dict.fromkeys(
        (
            "curl -F archive=@faces.zip -F 'legal_basis=consent of 2026-11-27' -F keep_until=2027-12-31 "
            "http://localhost:8000/api/jobs",
            "curl http://localhost:8000/api/jobs/1/files?status=refused",
        ),
        "needs a ZIP of pictures; tests/test_api_examples.py uploads one",
    ),
    **dict.fromkeys(
        (
            "script/manage watch FOLDER",
            "script/manage watch PASTA",
            "script/manage watch FOLDER --legal-basis 'consent of 2026-11-27' --keep-until 2099-12-31 --purpose door",
            "script/manage watch PASTA --legal-basis 'consentimento de 2026-11-27' --keep-until 2099-12-31 --purpose door",
        ),
        "runs until it is stopped; tests/enrollment/test_watched_folder.py",
    ),
    "script/chaos": "takes minutes; tests/test_crash.py runs it briefly",
    "script/chaos --clients 32 --minutes 3": "takes minutes; tests/test_load.py runs it briefly",
    "script/chaos --faults": "takes minutes; tests/test_faults.py runs it",
    **dict.fromkeys(
        ("script/scale", "script/scale 0 --seconds 60", "script/scale --from ../faces-1.0"),
        "starts seven services and takes minutes",
    ),
    "gpg --symmetric faces-2026-11-24.tar": "asks for a pass phrase at a terminal",
    **dict.fromkeys(
        (
            "script/manage export_person ID FILE",
            "script/manage erase_person ID --receipts FOLDER",
            "script/manage erase_person ID --ground withdrawal",
            "script/manage change_person ID --name NAME",
            "script/manage consents ID",
            "script/manage consents ID --add DOCUMENT --day 2026-11-27 --expires 2027-11-27 --purpose door",
            "script/manage receipt --verify receipt-7.json",
            "script/manage receipt --verify receipt-7.html --key public.pem",
            "script/manage receipt --again 7 --person-id ID",
        ),
        "needs a person who is enrolled, or erased; tests/enrollment/test_desk.py does it",
    ),
    "DATA_DIR=/srv/new script/manage restore …": "is run as `restore FILE`, with a DATA_DIR of its own",
    **dict.fromkeys(
        (
            "script/manage evaluate",
            "script/manage evaluate PHOTOS",
            "script/manage evaluate CROPS --aligned --conditions --plot figures.png --markdown figures.md",
            "script/manage evaluate CROPS --aligned --pairs pairs.csv",
            "script/manage evaluate CROPS --aligned --save",
            "script/manage evaluate FACES --aligned --groups labels.csv",
        ),
        "photos of people are not ours; tests/recognition/test_evaluate.py",
    ),
    **dict.fromkeys(
        (
            "script/manage benchmark",
            "script/manage benchmark PHOTOS",
            "script/manage benchmark ~/pictures/staff",
            "script/manage benchmark --gallery 1000 10000 100000 --json speed.json --plot speed.png",
            "script/manage benchmark --against http://localhost:5000",
            "script/manage benchmark PHOTOS --seconds 1.5 --gallery 1000 10000 100000",
        ),
        "takes minutes; tests/test_benchmark.py runs it briefly",
    ),
    **dict.fromkeys(
        (
            "script/manage calibrate",
            "script/manage calibrate --fmr 0.001",
            "script/manage calibrate --fmr 0.001 --save",
        ),
        "needs 145 pictures with faces; tests/enrollment/test_calibration.py has them",
    ),
}
# The vector database belongs to the server while it runs, and a restore wants an empty gallery.
NEEDS_NO_SERVER = re.compile(
    r"manage(\.py)? (enroll|reindex|restore|migrate|upgrade|backup)\b|^(cp|mkdir|mv|tar) "
)
INLINE = re.compile(r"(?:\w+=\S+ )*(?:script/|python manage|pip |curl |tar |gpg |git ).*")
HOST = re.compile(r"http://(?:localhost|127\.0\.0\.1):8000|http://faces\.example(?=/)|…(?=/api/)")
TOKEN = "9944b09199c62bcf9418"


class Snippet(NamedTuple):
    """Commands or a program in the documentation, and the answer shown below it."""

    place: str
    language: str
    lines: tuple[str, ...]
    shown: Any = None

    @property
    def page(self) -> str:
        return self.place.partition(":")[0]

    @property
    def needs_no_server(self) -> bool:
        return any(NEEDS_NO_SERVER.search(line) for line in self.lines)


def snippets() -> list[Snippet]:
    return [found for page in PAGES for found in _of_page(page)]


def _of_page(page: Path) -> list[Snippet]:
    text, name = page.read_text(), str(page.relative_to(ROOT))
    blocks = list(
        re.finditer(r"^```(\w*)\n(.*?)^```$|^#+ ([^\n]+)$", text, re.MULTILINE | re.DOTALL)
    )
    found, heading = [], ""
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        language, body, title = block.groups()
        heading = title or heading
        answer = _shown(following) if following and following[1] == "json" else None
        place = f"{name}: {heading}"
        if title and answer and title.startswith("GET /"):
            found.append(Snippet(place, "sh", (f"curl http://localhost:8000{title[4:]}",), answer))
        elif body and language in ("", "sh"):
            found.append(Snippet(place, "sh", _commands(body), answer))
        elif language in ("python", "js"):
            found.append(Snippet(place, language, (body,)))
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))
    inline = dict.fromkeys(span for span in spans if INLINE.fullmatch(span))
    return found + [Snippet(f"{name}: {span}", "sh", (span,)) for span in inline]


def _commands(body: str) -> tuple[str, ...]:
    lines = re.sub(r"\s*\\\n\s*", " ", body).splitlines()
    return tuple(re.sub(r"\s+# .*", "", line) for line in lines if line.strip())


def _shown(block: re.Match[str]) -> Any:
    """Return the JSON of a documented answer; omitted parts become empty."""
    return json.loads(re.sub(r",? ?…(?=[\]}])", "", block[2]))


def runnable() -> list[Snippet]:
    """Return each command once, without those that cannot be run."""
    seen, found = set(NOT_RUN), []
    for snippet in snippets():
        lines = tuple(line for line in snippet.lines if line not in seen)
        seen.update(lines)
        if lines:
            found.append(snippet._replace(lines=lines))
    return found


RUN = runnable()
BESIDE = [snippet for snippet in RUN if not snippet.needs_no_server]
ALONE = [snippet for snippet in RUN if snippet.needs_no_server]


class Project:
    """A copy of the project with pictures beside it, and its processes."""

    def __init__(self, folder: Path) -> None:
        self.root, self.home, self.url, self.token = folder / "faces", folder / "home", "", ""
        self.home.mkdir()
        (self.home / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
        kept = {
            name: os.environ[name] for name in ("LANG", "LD_LIBRARY_PATH") if name in os.environ
        }
        self.environment = kept | {
            "HOME": str(self.home),
            "PATH": f"{self.root / '.venv/bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "client"),
            "PORT": "0",
            "TORCH_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self._copy()
        self._draw()

    def _copy(self) -> None:
        # What other processes are writing, a converted network or compiled module, may vanish at once.
        unfinished = shutil.ignore_patterns(".part-*", "*.pyc.*")
        for name in COPIED:
            source, target = ROOT / name, self.root / name
            target.parent.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=unfinished)
            else:
                shutil.copy(source, target)
        python = self.root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        requirements = (self.root / "requirements.txt").read_text()
        installed = self.root / ".venv" / "installed.requirements.txt"
        installed.write_text(f"{sys.version}\n{requirements}")

    def _draw(self) -> None:
        ana, bia, who = (draw_face(seed) for seed in PEOPLE)
        for name, image in {"ana1": ana, "ana-1": ana, "a": ana, "face": bia, "b": bia}.items():
            (self.root / f"{name}.jpg").write_bytes(as_jpeg(image))
        for name in ("ana2", "ana-2", "who"):
            (self.root / f"{name}.jpg").write_bytes(as_jpeg(draw_face(PEOPLE[0], 1)))
        (self.root / "group.jpg").write_bytes(as_jpeg(draw_group()))
        ana.save(self.root / "a.png")
        # As the guides in both languages say, and one more, so that no page finds an empty gallery
        folders = {"pictures/staff": ana, "fotos/equipe": bia, "enrolled": who}
        for folder, image in folders.items():
            person = self.home / folder / "carla"
            person.mkdir(parents=True)
            (person / "1.jpg").write_bytes(as_jpeg(image))

    def bring_weights(self) -> None:
        """Install a user's own checkpoint, and provide another one to install, of one model only.

        The network in them is the bundled one, so its converted form is theirs: to convert each of
        them would take longer than all commands.
        """
        import torch
        from safetensors.torch import load_file

        weights = self.root / "weights"
        for file in weights.glob("resnet50_cosface.*"):
            file.unlink()
        state = load_file(weights / "mobilenetv3_large.safetensors")
        downloads = self.home / "downloads"
        downloads.mkdir()
        torch.save(state, weights / "mobilenetv3_large.ckpt")
        torch.save({"model": state}, downloads / "new.ckpt")
        bundled, converted = find_weights("mobilenetv3_large").digest, weights / "converted"
        for form in list(converted.glob(f"*{bundled}*")):
            for file in (weights / "mobilenetv3_large.ckpt", downloads / "new.ckpt"):
                own = form.name.replace(bundled, weights_file(file).digest)
                shutil.copytree(form, converted / own)

    def run(self, *words: str, **variables: str) -> str:
        done = subprocess.run(
            words,
            cwd=self.root,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        assert done.returncode == 0, f"{words[-1]}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def shell(self, command: str) -> str:
        if command.startswith("curl") and not shutil.which("curl"):
            pytest.skip("curl is not installed.")
        command = command.replace("FILE", "faces-2026-11-24.tar")
        is_restore = re.search(r"restore (\S+\.tar)", command)
        empty = {"DATA_DIR": str(self.root / f"new-{is_restore[1]}")} if is_restore else {}
        return self.run("bash", "-ec", self.addressed(command), **empty)

    def addressed(self, text: str) -> str:
        return HOST.sub(self.url, text).replace(TOKEN, self.token)

    def enroll(self) -> None:
        """Enrol only the persons that the documentation assumes."""
        with FaceClient(self.url, token=self.token) as faces:  # the tests listen, too
            for person in list(faces.persons()):
                faces.delete_person(person["person_id"])
            faces.insert("123.456.789-09", [self.root / "ana1.jpg"])
            faces.create_person("ana lima")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with a server started by script/server, and with the converted forms of its weights."""
    with override_settings(RECOGNITION=settings.RECOGNITION | {"WEIGHTS_DIR": ROOT / "weights"}):
        convert_once(*NETWORKS)
        unload_networks()
    project = Project(tmp_path_factory.mktemp("documented"))
    account = {"DJANGO_SUPERUSER_USERNAME": "me", "DJANGO_SUPERUSER_PASSWORD": "a long pass phrase"}
    with (project.root / "server.log").open("w") as log:
        process = subprocess.Popen(
            ["script/server"],
            cwd=project.root,
            env=project.environment | account,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    lines = iter(process.stdout.readline, "")
    address = next((line for line in lines if line.startswith("API:")), None)
    assert address, (project.root / "server.log").read_text()
    project.url = address.split()[-1].removesuffix("/api/docs")
    project.token = project.run("python", "manage.py", "drf_create_token", "me").split()[2]
    yield project
    process.kill()
    process.wait(TIMEOUT_SECONDS)
    process.stdout.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, _converted: None) -> Project:
    """A project with the user's own weights, one picture, and without a server."""
    project = Project(tmp_path_factory.mktemp("alone"))
    project.bring_weights()
    project.run("python", "manage.py", "migrate", "-v0")
    project.run("python", "manage.py", "enroll", str(project.home / "enrolled"))
    return project


def agrees(shown: Any, answer: Any) -> bool:
    """Return whether the answer has every documented key; null is a value like any other."""
    if isinstance(shown, dict) and isinstance(answer, dict):
        return all(key in answer and agrees(shown[key], answer[key]) for key in shown)
    if isinstance(shown, list) and isinstance(answer, list) and shown and answer:
        return agrees(shown[0], answer[0])
    return (
        None in (shown, answer)
        or type(shown) is type(answer)
        or {type(shown), type(answer)} <= {int, float}
    )


@pytest.mark.parametrize("snippet", BESIDE, ids=lambda snippet: snippet.place)
def test_runs_beside_the_server(served: Project, snippet: Snippet) -> None:
    served.enroll()
    if snippet.language == "python":
        served.run("python", "-c", served.addressed(snippet.lines[0]))
    elif snippet.language == "js":
        run_javascript(served, snippet.lines[0])
    else:
        answers = [served.shell(line) for line in snippet.lines]
        if snippet.shown:
            assert any(agrees(snippet.shown, json.loads(answer)) for answer in answers), answers


def run_javascript(project: Project, program: str) -> None:
    node = shutil.which("node")
    version = subprocess.run([node or "false", "-p", "process.versions.node"], capture_output=True)
    if not version.stdout or int(version.stdout.split(b".")[0]) < 20:
        pytest.skip("Node 20 or newer is not installed.")
    assert "123.456.789-09" in project.run(
        node, "--input-type=module", "-e", project.addressed(program)
    )


@pytest.mark.parametrize("page", dict.fromkeys(snippet.page for snippet in ALONE))
def test_run_without_the_server(project: Project, page: str) -> None:
    """A page's in order, because a backup must be made before it is restored."""
    for snippet in ALONE:
        for line in snippet.lines if snippet.page == page else ():
            project.shell(line)


def test_what_is_not_run_is_documented_and_has_a_reason() -> None:
    documented = {line for snippet in snippets() for line in snippet.lines}
    assert set(NOT_RUN) - documented == set()
    assert all(NOT_RUN.values())
