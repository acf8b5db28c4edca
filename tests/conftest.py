"""What every test starts from: an empty gallery of its own, and pictures to put into it."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.core.cache import cache
from django.db import connection
from django.utils import translation

from tests import pictures
from tests.postgresql_server import NoPostgresql, postgresql_server
from tests.recognition.milvus_server import lite_server, milvus_program, milvus_server

if TYPE_CHECKING:
    from django.test import Client
    from rest_framework.test import APIClient

ROOT = Path(__file__).resolve().parent.parent
FACES_DIR = Path(os.environ.get("FACES_DIR", ROOT.parent / "shared" / "faces"))
MODELS_DIR = Path(os.environ.get("MODELS_DIR", ROOT.parent / "shared" / "models"))
# One process starts the real Milvus, for all tests that share it.
REAL_MILVUS = pytest.mark.xdist_group("milvus")
# Files that take a quarter of a minute or more, the longest first: begun last, one process would be left
# alone with them.
LONGEST = (
    "documented_commands",
    "browser",
    "scale",
    "crash",
    "benchmark",
    "contract",
    "faults",
    "inbox_browser",
    "server",
    "fuzz",
    "postgresql",
    "backup",
    "upgrade",
    "train",
    "liveness",
    "setup",
    "gpu_kernels",
    "evaluate",
    "runtime",
    "scripts",
    "load",
    "last_layer",
)


def pytest_configure(config: pytest.Config) -> None:
    """Name the files of a folder in a row: pytest 9.1 loses a folder's fixtures when it comes back."""
    config.args.sort()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Group the tests by file, longest files first, so that each process starts a file's services
    once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(ROOT))))
    yield  # pytest-xdist reads the groups, pytest-randomly and pytest-django sort
    place = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Stop a run of several processes if pytest-xdist does not keep the groups together."""
    gc.freeze()  # all that was imported stays: no collection needs to look through it
    is_worker = hasattr(session.config, "workerinput")
    if is_worker and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError(
            "pytest-xdist ignores the groups of these tests, so two processes may start a Milvus:"
            " run with --dist loadgroup and the pytest of requirements-test.txt."
        )


@pytest.fixture(autouse=True)
def _own_vector_store(settings, tmp_path: Path) -> Iterator[None]:
    """Give each test its own embedded Milvus, created at first use."""
    from recognition.vector_store import reset_vector_store

    reset_vector_store()
    settings.RECOGNITION = settings.RECOGNITION | {"MILVUS_URI": str(tmp_path / "milvus_face.db")}
    yield
    reset_vector_store()


@pytest.fixture(autouse=True)
def _own_networks(settings) -> Iterator[None]:
    """Leave no network in memory that only this test had weights of: health and models would name it."""
    folder = settings.RECOGNITION["WEIGHTS_DIR"]
    yield
    if settings.RECOGNITION["WEIGHTS_DIR"] != folder:
        from recognition.networks.loader import unload_networks

        unload_networks()


@pytest.fixture(autouse=True)
def _own_language() -> Iterator[None]:
    """Reset the language: a request leaves its language set for the thread."""
    translation.deactivate()
    yield
    translation.deactivate()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker) -> None:
    """Let ids begin at another number in each table, as after any test that commits: no test may
    expect the first to be 1."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")
        for place, (name,) in enumerate(sorted(cursor.fetchall()), 1):
            cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [name])
            cursor.execute("INSERT INTO sqlite_sequence VALUES (%s, %s)", [name, 1000 + 10 * place])


@pytest.fixture(autouse=True)
def _own_cache() -> None:
    """Forget what another test left in the cache, such as how many cards its inbox had."""
    cache.clear()


@pytest.fixture(autouse=True)
def _own_pictures(settings, tmp_path: Path) -> None:
    """Store pictures in a folder of the test's own."""
    settings.MEDIA_ROOT = tmp_path / "media"
    default = settings.STORAGES["default"]
    options = default["OPTIONS"] | {"location": settings.MEDIA_ROOT}
    settings.STORAGES = settings.STORAGES | {"default": default | {"OPTIONS": options}}


@pytest.fixture
def data_folder(settings, tmp_path: Path) -> Path:
    """A `DATA_DIR` of the test's own."""
    settings.DATA_DIR = tmp_path / "data"
    settings.DATA_DIR.mkdir()
    return settings.DATA_DIR


@pytest.fixture(autouse=True)
def _own_imports(settings) -> Iterator[None]:
    """Stage imports in a folder of the test's own, where no server of another one runs."""
    yield
    shutil.rmtree(settings.DATA_DIR / "imports", ignore_errors=True)
    with suppress(OSError):  # locked for as long as something refers to a test's server
        (settings.DATA_DIR / "serving").unlink()


@pytest.fixture
def draw_picture() -> Callable[..., bytes]:
    """`tests.pictures.draw_picture(size, colour, format, *, mode, seed)`, which draws an encoded
    picture."""
    return pictures.draw_picture


@pytest.fixture
def picture(draw_picture: Callable[..., bytes]) -> bytes:
    """One valid JPEG without a face."""
    return draw_picture()


@pytest.fixture(scope="session")
def faces() -> Path:
    """The folder of real photos, one folder a person. They may not be committed."""
    photos = FACES_DIR / "photos"
    if not photos.is_dir():
        pytest.skip(f"Real photos are not at {photos}: set FACES_DIR to the folder above photos/.")
    return photos


def convert_once(*names: str) -> None:
    """Load these bundled models. A form that is missing is made by one process, for all: in a new
    clone each would take seconds to make its own."""
    from recognition.networks import load_network

    folder = ROOT / "weights" / "converted"
    folder.mkdir(exist_ok=True)
    for name in names:
        with (folder / f"{name}.lock").open("w") as lock:  # who needs one model waits for that only
            fcntl.flock(lock, fcntl.LOCK_EX)
            load_network(name)


@pytest.fixture(scope="session")
def _converted() -> None:
    convert_once("mobilenetv3_large")


@pytest.fixture
def weights(_converted) -> str:
    """The name of the bundled model, which is loaded, also where a test before unloaded it."""
    from recognition.networks import load_network

    return load_network("mobilenetv3_large").network.name


@pytest.fixture
def api() -> APIClient:
    """An API client for a program on this machine, which needs no account."""
    from rest_framework.test import APIClient

    return APIClient(headers={"host": "localhost"})


@pytest.fixture
def local() -> Client:
    """A browser of the server's own user on this machine, which needs no account."""
    from django.test import Client

    return Client(headers={"host": "localhost"})


@pytest.fixture
def boss(admin_user) -> Client:
    """A browser logged in with all permissions."""
    from django.test import Client

    browser = Client(headers={"host": "localhost"})
    browser.force_login(admin_user)
    return browser


@pytest.fixture
def commits(django_capture_on_commit_callbacks):
    """A context manager that runs `on_commit` hooks at its end."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


@pytest.fixture
def both_models(settings) -> None:
    """A server with the bundled weights of both models, none of them loaded yet."""
    from recognition.networks.loader import unload_networks

    unload_networks()
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": ROOT / "weights"}


@pytest.fixture
def no_weights(settings, tmp_path: Path) -> None:
    """A server whose weights folder is empty."""
    folder = tmp_path / "no-weights"
    folder.mkdir()
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": folder}


@pytest.fixture
def no_store(settings, tmp_path: Path) -> None:
    """A server whose vector store cannot be opened."""
    blocked = tmp_path / "a-file"
    blocked.write_bytes(b"not a folder")
    settings.RECOGNITION = settings.RECOGNITION | {"MILVUS_URI": str(blocked)}


@pytest.fixture(scope="session")
def _servers() -> Iterator[ExitStack]:
    with ExitStack() as servers:
        yield servers


@pytest.fixture(scope="session")
def lite_address(_servers: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _servers.enter_context(lite_server(tmp_path_factory.mktemp("lite")))


@pytest.fixture(scope="session")
def milvus_address(_servers: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> str:
    program = milvus_program()
    if program is None:
        pytest.skip("No Milvus server is installed: set TEST_MILVUS_SERVER=1 to have one made.")
    try:
        return _servers.enter_context(milvus_server(program, tmp_path_factory.mktemp("milvus")))
    except RuntimeError as error:
        if os.environ.get("TEST_MILVUS_SERVER") == "1":  # asked for by name: no excuse
            raise
        pytest.skip(f"The Milvus server did not start: {error}")


@pytest.fixture(scope="session")
def database_url(_servers: ExitStack) -> str:
    """The URL of a PostgreSQL of the tests' own."""
    try:
        return _servers.enter_context(postgresql_server())
    except NoPostgresql as error:
        pytest.skip(str(error))
