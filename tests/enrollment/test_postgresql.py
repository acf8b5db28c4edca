"""Race conditions on PostgreSQL, where transactions really overlap."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.core.management import call_command

from enrollment.models import FaceEmbedding, Person
from tests.enrollment.gallery import enroll, found

ROOT = Path(__file__).resolve().parent.parent.parent
USER = "postgres"  # the server refuses to run as root

RACE = """
import io, threading
from concurrent.futures import ThreadPoolExecutor
import django
django.setup()
from django.core.management import call_command
from django.db import connections
from enrollment import enrolling
from enrollment.models import FaceEmbedding, FaceImage, Person
from recognition.vector_store import get_vector_store, reset_vector_store
from tests.pictures import draw_picture

call_command("migrate", verbosity=0)
Person.objects.all().delete()
start = threading.Barrier(4)

def enrol(seed):
    try:
        start.wait()
        upload = enrolling.Upload("o'hara", "x.jpg", draw_picture(seed=seed))
        done = enrolling.enroll_pictures([upload], source="api", use_face_detection=False)
        return sum(outcome.face_image is not None for outcome in done)
    finally:
        connections.close_all()

with ThreadPoolExecutor(4) as pool:
    accepted = sum(pool.map(enrol, range(4)))
states = FaceEmbedding.objects.values_list("status", flat=True)
vectors = get_vector_store().row_count()
print(Person.objects.count(), accepted, FaceImage.objects.count(), sorted(set(states)), vectors)
person = Person.objects.get()
person.person_id = "bia"
person.save()
store = get_vector_store()
print({row.person_id for row in store.iterate(store.partitions()[0])})
person.delete()
print(FaceImage.objects.count(), get_vector_store().row_count())
reset_vector_store()
"""


def server_programs() -> Path | None:
    if found := shutil.which("initdb"):
        return Path(found).parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@pytest.fixture(scope="module")
def database_url(tmp_path_factory) -> Iterator[str]:
    """The URL of an empty PostgreSQL of the test's own."""
    programs = server_programs()
    if not programs or not (programs / "initdb").exists():
        pytest.skip("No PostgreSQL server on this machine: install postgresql to run this.")
    owner = {}
    folder = Path(f"/tmp/postgresql-tests-{os.getpid()}")
    folder.mkdir(mode=0o700)
    if os.getuid() == 0:
        try:
            account = pwd.getpwnam(USER)
        except KeyError:
            pytest.skip(f"PostgreSQL does not run as root, and there is no account {USER!r}.")
        owner = {"user": account.pw_uid, "group": account.pw_gid, "cwd": "/tmp"}
        os.chown(folder, account.pw_uid, account.pw_gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def control(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, "-D", folder, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=120,
            **owner,
        )

    control("initdb", "-U", "faces", "--auth=trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    control("pg_ctl", "-w", "-l", f"{folder}/log", "-o", options, "start")
    yield f"postgres://faces@127.0.0.1:{port}/postgres"
    control("pg_ctl", "-m", "immediate", "stop")
    shutil.rmtree(folder)


def run(script: str, address: str, folder: Path, *words: object) -> str:
    """Return what a script prints that uses the database at `address`."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "faceproject.settings",
        "DATABASE_URL": address,
        "DATA_DIR": str(folder),
        "WEIGHTS_DIR": os.environ["WEIGHTS_DIR"],
        "ENV_FILE": os.devnull,
        "PYTHONPATH": str(ROOT),
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_people_are_enrolled_renamed_and_deleted(database_url, tmp_path):
    output = run(RACE, database_url, tmp_path)
    assert output.splitlines() == ["1 4 4 ['indexed'] 4", "{'bia'}", "0 0"]


CORRECTIONS = """
import io, random, threading
from concurrent.futures import ThreadPoolExecutor
import django
django.setup()
from django.core.management import call_command
from django.db import connections
from enrollment import enrolling
from enrollment.exceptions import PersonNotFound, PictureNotFound
from enrollment.models import FaceEmbedding, FaceImage, Person
from recognition.vector_store import get_vector_store, reset_vector_store
from tests.pictures import draw_picture

call_command("migrate", verbosity=0)
Person.objects.all().delete()

def add(person_id, *seeds):
    uploads = [enrolling.Upload(person_id, f"{n}.jpg", draw_picture(seed=n)) for n in seeds]
    enrolling.enroll_pictures(uploads, source="api", use_face_detection=False)

def enrol(person_id, *seeds):
    add(person_id, *seeds)
    return Person.objects.get(person_id=person_id)

for start_seed in range(0, 30, 10):
    people = [enrol(name, start_seed + n, start_seed + 3 + n) for n, name in enumerate("abc")]
    a, b, c = people
    moved = [picture.pk for person in people for picture in person.face_images.all()]
    random.shuffle(moved)
    start = threading.Barrier(5)

    def alone(work):
        try:
            start.wait()
            work()
        except (PersonNotFound, PictureNotFound):
            pass  # another was faster
        finally:
            connections.close_all()

    tasks = [
        lambda: enrolling.merge_persons(a, b),
        lambda: enrolling.merge_persons(b, a),
        lambda: enrolling.move_pictures(moved[:3], c),
        lambda: enrolling.set_cover(a, moved[0]),
        lambda: add("b", start_seed + 8),  # who may be merged right after
    ]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(alone, tasks))
covers = [(each, each.cover.person) for each in Person.objects.exclude(cover=None)]
print(FaceImage.objects.count(), all(one == other for one, other in covers))
rows = FaceEmbedding.objects.values_list("pk", "face_image__person__person_id", "status")
store = get_vector_store()
held = {(row.id, row.person_id, "indexed") for row in store.iterate(store.partitions()[0])}
print(held == set(rows))
reset_vector_store()
"""


def test_corrections_at_once_neither_block_each_other_nor_lose_a_picture(database_url, tmp_path):
    assert run(CORRECTIONS, database_url, tmp_path).splitlines() == ["21 True", "True"]


RESTORE = """
import sys
import django
django.setup()
from django.core.management import call_command
from enrollment.models import Person
call_command("restore", sys.argv[1])
Person.objects.create(person_id="made after", name="x")
call_command("backup", sys.argv[2])
"""


@pytest.mark.django_db(transaction=True)
def test_backup_goes_from_sqlite_to_postgresql_and_back(
    database_url, tmp_path, settings, weights, draw_picture
):
    enroll("o'hara", draw_picture(seed=1), draw_picture(seed=2), use_face_detection=False)
    before = list(FaceEmbedding.objects.values_list("pk", "vector", "created_at"))
    call_command("backup", tmp_path / "sqlite.tar")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE restored")
    address = database_url.replace("/postgres", "/restored")
    there = tmp_path / "there"
    there.mkdir()
    run(RESTORE, address, there, tmp_path / "sqlite.tar", tmp_path / "postgresql.tar")
    call_command("restore", "--overwrite", tmp_path / "postgresql.tar")
    assert [person.person_id for person in Person.objects.all()] == ["made after", "o'hara"]
    assert list(FaceEmbedding.objects.values_list("pk", "vector", "created_at")) == before
    assert found(draw_picture(seed=2), 1) == ["o'hara"]


FIND = """
import django
django.setup()
from django.core.management import call_command
from django.db import connection
from enrollment.gallery import find_persons
from enrollment.models import Person

call_command("migrate", "enrollment", "0010_picture_chosen_face", verbosity=0)
with connection.cursor() as cursor:
    for person_id, name in [("123.456.789-09", "Conceição"), ("Joa\\u0303o", "ÁCIDO"), ("3", "Bia")]:
        cursor.execute(
            "INSERT INTO enrollment_person (person_id, name, notes, legal_basis, created_at, updated_at)"
            " VALUES (%s, %s, '', '', now(), now())", [person_id, name]
        )
call_command("migrate", verbosity=0)
for text in ("conceicao", "12345678909", "JOÃO", "acido", "BIA"):
    print(*(person.person_id for person in find_persons(text)))
"""


def test_people_are_found_whatever_accents_case_and_punctuation(database_url, tmp_path):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE finding")
    output = run(FIND, database_url.replace("/postgres", "/finding"), tmp_path)
    known = ["123.456.789-09", "123.456.789-09", "João", "João", "3"]
    assert output.splitlines() == known
