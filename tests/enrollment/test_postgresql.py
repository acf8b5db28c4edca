"""Race conditions on PostgreSQL, where transactions really overlap."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from django.core.management import call_command

from enrollment.models import FaceEmbedding, Person
from tests.enrollment.gallery import enroll, found

ROOT = Path(__file__).resolve().parent.parent.parent

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
start = threading.Barrier(4, timeout=60)

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


def run(script: str, address: str, folder: Path, *words: object, **knobs: str) -> str:
    """Return what a script prints that uses the database at `address`."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "faceproject.settings",
        "DATABASE_URL": address,
        "DATA_DIR": str(folder),
        "WEIGHTS_DIR": os.environ["WEIGHTS_DIR"],
        "ENV_FILE": os.devnull,
        "PYTHONPATH": str(ROOT),
        "PATH": os.environ["PATH"],
        **knobs,
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


LIMITS = """
import django
django.setup()
from django.db import connection
connection.ensure_connection()
with connection.cursor() as cursor:
    cursor.execute("SELECT name, setting::int FROM pg_settings WHERE name LIKE 'tcp_%'")
    print(dict(cursor.fetchall()))
print({name: int(value) for name, value in connection.connection.info.get_parameters().items() if value.isdigit()})
"""


def test_nobody_waits_for_hours_for_a_machine_that_vanished(database_url, tmp_path):
    """Neither we for PostgreSQL's, nor PostgreSQL for one that had locked what all wait for."""
    output = run(LIMITS, f"{database_url}?connect_timeout=3", tmp_path)
    theirs, ours = map(ast.literal_eval, output.splitlines())
    for limits, prefix in ((theirs, "tcp_"), (ours, "")):
        idle, interval, count = (
            limits[f"{prefix}keepalives_{name}"] for name in ("idle", "interval", "count")
        )
        assert idle + interval * count <= 60 and limits["tcp_user_timeout"] <= 60_000
    assert ours["connect_timeout"] == 3  # as the address says


CORRECTIONS = """
import io, random, threading
from concurrent.futures import ThreadPoolExecutor
import django
django.setup()
from django.core.management import call_command
from django.db import connections
from enrollment import corrections, enrolling, journal
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
    people = [enrol(f"{name}{start_seed}", start_seed + n, start_seed + 3 + n) for n, name in enumerate("abc")]
    a, b, c = people
    moved = [picture.pk for person in people for picture in person.face_images.all()]
    random.shuffle(moved)
    start = threading.Barrier(5, timeout=60)

    def alone(work):
        try:
            start.wait()
            work()
        except (PersonNotFound, PictureNotFound):
            pass  # another was faster
        finally:
            connections.close_all()

    tasks = [
        lambda: corrections.merge_persons(a, b),
        lambda: corrections.merge_persons(b, a),
        lambda: corrections.move_pictures(moved[:3], c),
        lambda: corrections.set_cover(a, moved[0]),
        lambda: add(b.person_id, start_seed + 8),  # who may be merged right after
    ]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(alone, tasks))
covers = [(each, each.cover.person) for each in Person.objects.exclude(cover=None)]
print(FaceImage.objects.count(), all(one == other for one, other in covers))
rows = FaceEmbedding.objects.values_list("pk", "face_image__person__person_id", "status")
store = get_vector_store()
def copied():
    return {(row.id, row.person_id, "indexed") for row in store.iterate(store.partitions()[0])}

held = copied()
print(held == set(rows))
for person in Person.objects.all():
    corrections.undo(corrections.delete_person(person).undo)
print(copied() == held == set(rows.all()))
journalled = journal.verify()
print(journalled.problems, journalled.lines > 20)
reset_vector_store()
"""


# Acts in threads of their own that wait for each other; what went wrong is in `told`.
THREADS = """
import threading, time
import django
django.setup()
from django.core.management import call_command
from django.db import connection, connections, transaction

told = []

def alone(do):
    try:
        do()
    except Exception as error:
        told.append(f"{do.__name__}: {error}")
    finally:
        connections.close_all()

def await_waiting(count):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0] >= count:
                return
        time.sleep(0.05)

call_command("migrate", verbosity=0)
"""


ORDER = (
    THREADS
    + """
from enrollment import corrections, enrolling
from enrollment.models import FaceImage, Person
from tests.pictures import draw_picture

Person.objects.all().delete()
first, second = (Person.objects.create(person_id=name) for name in ("zoe", "ana"))

def enrol():
    uploads = [enrolling.Upload(name, "a.jpg", draw_picture(seed=n)) for n, name in enumerate(["ana", "zoe"])]
    enrolling.enroll_pictures(uploads, source="import", use_face_detection=False)
    connections.close_all()

batch = threading.Thread(target=enrol)
with transaction.atomic():
    Person.objects.select_for_update().get(pk=first.pk)
    batch.start()
    await_waiting(1)
    Person.objects.select_for_update(nowait=True).get(pk=second.pk)
batch.join()
print(FaceImage.objects.count())
"""
)


MOVED_AND_JUDGED = (
    THREADS
    + """
from enrollment import corrections
from enrollment.judging import doubts
from enrollment.models import Doubt, FaceImage, Person, TrashItem

Person.objects.all().delete()
ana, bia, cal = (Person.objects.create(person_id=name) for name in ("ana", "bia", "cal"))
of_ana = dict(person=ana, width=9, height=9)
first, second = (FaceImage.objects.create(image=f"{n}.jpg", content_hash=str(n), **of_ana) for n in (1, 2))
FaceImage.objects.filter(pk=first.pk).update(person=cal)  # an index finds it after the other from now on
FaceImage.objects.filter(pk=first.pk).update(person=ana)

def judge():
    doubts._replace({first.pk: [], second.pk: []}, Doubt.with_dismissed.all())

def move():
    corrections.move_pictures([first.pk, second.pk], bia)

def at_once(held, *acts):
    threads = [threading.Thread(target=alone, args=[do]) for do in acts]
    with transaction.atomic():
        FaceImage.objects.select_for_update().get(pk=held.pk)
        for count, thread in enumerate(threads, 1):
            thread.start()
            await_waiting(count)
    for thread in threads:
        thread.join()

at_once(first, judge, move)
FaceImage.objects.filter(pk=first.pk).update(person=cal)  # after bia, whose picture is the second
dee = Person.objects.create(person_id="dee")

def gather():
    corrections.move_pictures([first.pk, second.pk], dee)

def merge():
    corrections.merge_persons(dee, bia, cal)

def undo():
    corrections.undo(TrashItem.objects.latest("pk"))

for act in (gather, undo, merge, undo):
    at_once(second, act, judge)
print(told, bia.face_images.count(), cal.face_images.count())
"""
)


def test_pictures_that_are_moved_while_they_are_judged_are_locked_in_one_order(
    database_url, tmp_path
):
    """One of the two ended with a deadlock where a picture had been moved before, or where they were of
    several people: each one's were locked apart."""
    assert run(MOVED_AND_JUDGED, database_url, tmp_path).strip() == "[] 1 1"


AT_ONCE = (
    THREADS
    + """
from enrollment import corrections, journal
from enrollment.exceptions import NotInTrash
from enrollment.judging import doubts
from enrollment.models import Action, Doubt, FaceImage, Person, TrashItem, lock_rows

Person.objects.all().delete()
TrashItem.objects.all().delete()
ana, bia = (Person.objects.create(person_id=name) for name in ("ana", "bia"))
first, second = (FaceImage.objects.create(image=f"{n}.jpg", content_hash=str(n), person=ana) for n in (1, 2))

def refer():
    Doubt.objects.create(face_image=second, other=first, code="same_picture")

def refer_and_tell():
    with journal.changes():
        refer()
        journal.record(Action.CHANGED, person=ana)

def judge():
    doubts._replace({first.pk: [], second.pk: []}, Doubt.with_dismissed.all())

def undo():
    try:
        corrections.undo(TrashItem.objects.get())
    except NotInTrash:
        told.append("not in trash")

def beside(do):
    thread = threading.Thread(target=alone, args=[do])
    thread.start()
    await_waiting(1)
    return thread

with journal.changes():
    lock_rows(FaceImage.objects.filter(pk=first.pk))
    thread = beside(refer_and_tell)
    journal.record(Action.CHANGED, person=bia)
thread.join()
with transaction.atomic():
    lock_rows(FaceImage.objects.filter(pk=second.pk))
    refer()
    thread = beside(judge)
thread.join()
corrections.move_pictures([first.pk], bia)
with journal.changes():
    lock_rows(Person.objects.all())
    thread = beside(undo)
    corrections.erase_person(bia)
thread.join()
print(told, Person.objects.get().person_id, TrashItem.objects.count())
"""
)


def test_acts_at_once_never_wait_for_each_other(database_url, tmp_path):
    """Each pair ended with a deadlock, and so with a 503 or a picture that was not judged: whoever refers
    to a picture of another's and journals it; and judges it; whoever undoes and whoever erases."""
    assert run(AT_ONCE, database_url, tmp_path).strip() == "['not in trash'] ana 0"


def test_batch_of_an_import_locks_people_in_the_order_in_which_corrections_do(
    database_url, tmp_path
):
    """It locked them by their ids: a merge of two of them ended with a deadlock for one of the two."""
    assert run(ORDER, database_url, tmp_path).split() == ["2"]


def test_corrections_at_once_neither_block_each_other_nor_lose_a_picture(database_url, tmp_path):
    assert run(CORRECTIONS, database_url, tmp_path).splitlines() == [
        "21 True",
        "True",
        "True",
        "[] True",
    ]


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


SERVERS = """
import functools, os, signal, time
import django
django.setup()
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.management import call_command
from django.db import connection, connections
from enrollment.upkeep.leader import Leadership, ServerRuns, at_work, refuse_beside_server
from faceproject.first_account import make_named_account

print = functools.partial(print, flush=True)  # a child would print again what waits

def child(work):
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(repr(error))
        os._exit(1)

def start():
    call_command("migrate", verbosity=0)
    make_named_account()

print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in [child(start), child(start)]])
print(User.objects.count())

caches["shared"].set("calls", [1, 2])
connections.close_all()
other = child(lambda: print(caches["shared"].get("calls")))
os.waitpid(other, 0)

leads, told = os.pipe()

def lead():
    held = Leadership()
    os.write(told, b"1" if held.held() else b"0")
    time.sleep(60)

def soon(leadership):
    deadline = time.monotonic() + 60
    while not leadership.held() and time.monotonic() < deadline:
        time.sleep(0.05)
    return leadership.held()

first = child(lead)
print(os.read(leads, 1))
second = Leadership()
print(second.held())
os.kill(first, signal.SIGKILL)
os.waitpid(first, 0)
print(soon(second), second.held())
with connection.cursor() as cursor:
    cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
third = Leadership()
print(soon(third), second.held())
third.give_up()
print(second.held())

def is_refused():
    try:
        refuse_beside_server()
    except ServerRuns:
        return True
    return False

print(is_refused())
second.give_up()
with at_work(), at_work():
    print(is_refused())
print(is_refused())
"""


def test_servers_start_together_count_together_and_one_of_them_leads(database_url, tmp_path):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE servers")
    account = {
        "DJANGO_SUPERUSER_USERNAME": "boss",
        "DJANGO_SUPERUSER_PASSWORD": "a long pass phrase",
    }
    address = database_url.replace("/postgres", "/servers")
    output = run(SERVERS, address, tmp_path, **account)
    assert output.splitlines() == [
        "[0, 0]",  # both brought the empty database up to date,
        "1",  # and made the account
        "[1, 2]",
        "b'1'",
        "False",
        "True True",  # the first was killed
        "True False",  # the second lost its connection
        "True",
        "True",  # beside a server
        "True",  # beside workers
        "False",
    ]


BESIDE = """
from datetime import timedelta
import django
django.setup()
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone
from enrollment.models import Doubt, Person, Removal, compute_again
from enrollment.gallery import find_persons

call_command("migrate", verbosity=0)
old = MigrationLoader(connection).project_state(("enrollment", "0009_retention")).apps
model = lambda name: old.get_model("enrollment", name)

person = model("Person").objects.create(person_id="joão", name="João")
pictures = [
    model("FaceImage").objects.create(person=person, image=f"pictures/{n}.jpg") for n in range(2)
]
row = model("FaceEmbedding").objects.create(
    face_image=pictures[0], model="m", fingerprint="f", vector=bytes(2048)
)
model("Doubt").objects.create(face_image=pictures[0], code="same_picture", other=pictures[1])
model("IdempotentRequest").objects.create(key="k", digest="d", status=200, answer={})
model("SearchEntry").objects.create(model="m", answers=1, person=person)
model("VectorDeletion").objects.create(embedding_id=7, partition="m_f")
for each in old.get_models():
    list(each.objects.all())
person.cover = pictures[1]
person.save()
model("FaceEmbedding").objects.filter(pk=row.pk).update(status="indexed")

# What the old version wrote, to the new one:
print([str(each) for each in Removal.objects.all()])
print(Doubt.objects.get().dismissed_by == "", compute_again(timezone.now() - timedelta(1)))
print([each.name for each in find_persons("joao")])
# And what the new version wrote, to the old one:
Removal.objects.create(file="pictures/gone.jpg")
Person.objects.create(person_id="new", name="New")
print(model("VectorDeletion").objects.count(), model("Person").objects.count())
model("VectorDeletion").objects.all().delete()
model("Doubt").objects.all().delete()
model("Person").objects.all().delete()
print(Removal.objects.count(), Person.objects.count())
Removal.objects.all().delete()  # files are nothing that it could remove
call_command("migrate", "enrollment", "0009", verbosity=0)
print(model("VectorDeletion").objects.count())
"""


def test_version_1_0_reads_and_writes_beside_this_one(database_url, tmp_path):
    """Its servers go on while those of this version start: with its models, on this schema."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE beside")
    output = run(BESIDE, database_url.replace("/postgres", "/beside"), tmp_path)
    assert output.splitlines() == ["['m_f 7']", "True 1", "['João']", "1 2", "1 0", "0"]


JUDGED = """
import threading
import django
django.setup()
from django.core.management import call_command
from django.db import IntegrityError, connections
from django.db.models.signals import pre_delete
from enrollment.models import Doubt, FaceImage, Person

call_command("migrate", verbosity=0)
ana = Person.objects.create(person_id="ana")
picture = FaceImage.objects.create(person=ana, image="pictures/a.jpg")

def judge():
    try:
        Doubt.objects.create(face_image_id=picture.pk, code="same_picture")
    except IntegrityError:
        print("its picture is gone", flush=True)
    finally:
        connections.close_all()

judging = threading.Thread(target=judge)

def deleting(**kwargs):  # after Django has looked for what hangs on the picture
    judging.start()
    judging.join(1)

pre_delete.connect(deleting, FaceImage)
Person.objects.filter(pk=ana.pk).delete()
judging.join()
print(Person.objects.count(), Doubt.objects.count())
"""


def test_doubt_that_arrives_while_its_picture_is_deleted_hinders_nothing(database_url, tmp_path):
    """The deletion used to fail at its commit: the doubt named the picture."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE judged")
    output = run(JUDGED, database_url.replace("/postgres", "/judged"), tmp_path)
    assert output.splitlines() == ["its picture is gone", "0 0"]


UPGRADE = """
import django
django.setup()
from django.core.management import CommandError, call_command
from django.db import connection

call_command("migrate", "enrollment", "0009_retention", verbosity=0)

def ask(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None

TABLES = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
ask("INSERT INTO enrollment_person (person_id, name, notes, legal_basis, created_at, updated_at)"
    " VALUES ('Joa\\u0303o', '', '', '', now(), now())")
ask("CREATE TABLE enrollment_accesstoken (id integer)")
DONE = "SELECT app, name FROM django_migrations ORDER BY id"
QUESTIONS = (DONE, f"{TABLES} ORDER BY 1, 2", "SELECT * FROM enrollment_person")
before = [ask(question) for question in QUESTIONS]
try:
    call_command("upgrade")
except CommandError as error:
    print("as it was before" in str(error), "already exists" in str(error))
print([ask(question) for question in QUESTIONS] == before)
ask("DROP TABLE enrollment_accesstoken")
call_command("upgrade")
from enrollment.models import Person
print(ascii(Person.objects.get().person_id))
"""


def test_failed_upgrade_leaves_the_schema_and_the_rows_as_they_were(database_url, tmp_path):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE upgraded")
    output = run(UPGRADE, database_url.replace("/postgres", "/upgraded"), tmp_path)
    kept, unchanged, migrated, _embedded, _version, person = output.splitlines()
    assert (kept, unchanged) == ("True True", "True")
    assert migrated.startswith("Migrated and checked: ")
    assert person == r"'Jo\xe3o'"
