"""Every foreseeable misconfiguration has an id and a hint; a fresh clone has none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, run_checks
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError

from faceproject import configuration
from recognition import checks
from recognition.extras import EXTRAS
from recognition.networks import device as device_choice

ROOT = Path(__file__).resolve().parent.parent
TAGS = [
    "recognition",
    "models",
    "recognition_notes",
    "enrollment",
    "faceproject",
    "files",
    "security",
]


@pytest.fixture(autouse=True)
def _own_data_folder(settings, tmp_path: Path) -> None:
    """Use a data folder and a secret key as the settings create them."""
    settings.DATA_DIR = tmp_path / "data"
    settings.DATA_DIR.mkdir(mode=0o700)
    settings.SECRET_KEY = "k" * 50


@pytest.fixture
def recognition(settings):
    """Set keys of RECOGNITION."""

    def change(**values: object) -> None:
        settings.RECOGNITION = settings.RECOGNITION | values

    return change


def found(*, deploy: bool = False) -> dict[str, CheckMessage]:
    """Return the messages of our checks by id; each must have a hint."""
    messages = run_checks(tags=TAGS, include_deployment_checks=deploy)
    ours = [
        item
        for item in messages
        if item.id.startswith(("recognition.", "enrollment.", "faceproject."))
    ]
    assert all(item.hint for item in ours)
    return {item.id: item for item in ours}


def ids() -> set[str]:
    """Return the ids of the messages, without the note on the model that the tests leave out."""
    return set(found()) - {"recognition.I001"}


def test_sound_settings_are_silent():
    assert ids() == set()


def test_missing_weights_of_the_default_model(recognition, tmp_path):
    recognition(WEIGHTS_DIR=tmp_path)
    error = found()["recognition.E001"]
    assert str(tmp_path / "mobilenetv3_large.ckpt") in error.hint
    assert "mobilenetv3_large" in error.msg


def test_missing_weights_of_another_model_are_a_note(recognition, tmp_path):
    (tmp_path / "mobilenetv3_large.ckpt").write_bytes(b"x")
    recognition(WEIGHTS_DIR=tmp_path)
    assert set(found()) == {"recognition.I001"}
    assert "cosface_resnet50" in found()["recognition.I001"].msg


def test_missing_weights_of_a_preloaded_model_are_a_warning(recognition, tmp_path):
    (tmp_path / "mobilenetv3_large.ckpt").write_bytes(b"x")
    recognition(WEIGHTS_DIR=tmp_path, PRELOAD_MODELS=("cosface_resnet50",))
    assert set(found()) == {"recognition.W003"}


def test_checkpoint_that_takes_the_place_of_bundled_weights_is_a_note(recognition, tmp_path):
    for suffix in (".ckpt", ".safetensors"):
        (tmp_path / f"mobilenetv3_large{suffix}").write_bytes(b"x")
    recognition(WEIGHTS_DIR=tmp_path)
    assert ids() == {"recognition.I002"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "words",
    ["fetch_weights --list", "verify_weights yunet", "journal --verify", "backups", "trash list"],
)
def test_commands_that_embed_nothing_do_without_what_embedding_needs(
    recognition, tmp_path, capsys, words
):
    """The hint of two of these errors is to run `fetch_weights`, which was refused for them."""
    recognition(WEIGHTS_DIR=tmp_path / "none", DETECTOR="yunet")
    assert {"recognition.E001", "recognition.E012"} <= ids()
    try:
        call_command(*words.split(), skip_checks=False)
    except CommandError as error:
        assert not isinstance(error, SystemCheckError)


@pytest.mark.django_db
@pytest.mark.parametrize("words", ["enroll .", "reindex"])
def test_commands_that_embed_are_refused_before_they_begin(recognition, tmp_path, words):
    recognition(WEIGHTS_DIR=tmp_path)
    with pytest.raises(SystemCheckError, match="has no weights file"):
        call_command(*words.split(), skip_checks=False)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir], ids=["empty", "folder"])
def test_unreadable_weights(recognition, tmp_path, make):
    make(tmp_path / "mobilenetv3_large.ckpt")
    recognition(WEIGHTS_DIR=tmp_path)
    assert ids() == {"recognition.E009"}


@pytest.mark.parametrize(
    ("setting", "value"), [("DEFAULT_MODEL", "resnet"), ("PRELOAD_MODELS", ("resnet",))]
)
def test_unknown_model(recognition, setting, value):
    recognition(**{setting: value})
    error = found()["recognition.E002"]
    assert setting in error.msg
    assert "mobilenetv3_large, cosface_resnet50" in error.hint


def test_retinaface_without_its_package(recognition, monkeypatch):
    missing = {"uniface"}
    find = checks._find_module
    monkeypatch.setattr(
        checks, "_find_module", lambda parts: None if set(parts) & missing else find(parts)
    )
    recognition(DETECTOR="retinaface")
    assert ids() == {"recognition.E011"}


@pytest.mark.parametrize(
    "path",
    [
        "MtcnnDetector",
        "nowhere.Detector",
        "recognition.nowhere.Detector",
        "recognition.detection.mtcnn.Nothing",
        "",
    ],
)
def test_detector_that_is_not_there(recognition, path):
    recognition(DETECTOR=path)
    assert ids() == {"recognition.E003"}


@pytest.mark.parametrize(
    "path", ["recognition.detection.none.NoDetector", "recognition.detection.FaceDetector"]
)
def test_detector_that_is_there(recognition, path):
    recognition(DETECTOR=path)
    assert ids() == set()


@pytest.mark.parametrize("name", ["auto", "mtcnn", "none"])
def test_detectors_have_short_names(recognition, name):
    recognition(DETECTOR=name)
    assert ids() == set()


def test_yunet_without_its_file(recognition):
    recognition(DETECTOR="yunet")
    assert ids() == {"recognition.E012"}
    assert "fetch_weights yunet" in found()["recognition.E012"].hint


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_malformed_device(recognition, device):
    recognition(DEVICE=device)
    assert ids() == {"recognition.E004"}


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_a_driver(recognition, device, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(device_choice, "NVIDIA_TRACES", (tmp_path / "driver",))
    recognition(DEVICE=device)
    assert ids() == {"recognition.W001"}
    (tmp_path / "driver").touch()
    assert ids() == set()


@pytest.mark.parametrize(
    ("name", "value", "known"),
    [
        ("NO_FACE_POLICY", "ignore", "embed, error"),
        ("MILVUS_INDEX", "IVF", "AUTO, FLAT, SCANN, HNSW"),
    ],
)
def test_unknown_choice(recognition, name, value, known):
    recognition(**{name: value})
    assert ids() == {"recognition.E006"}
    assert found()["recognition.E006"].msg == f"{name} is {value}, but one of {known} is expected."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMBED_BATCH_SIZE", 0),
        ("EMBED_BATCH_SIZE", 10**6),
        ("TORCH_THREADS", -1),
        ("MAX_IMAGE_PIXELS", 0),
        ("MAX_BATCH_SIZE", -5),
        ("MAX_REQUEST_BYTES", 0),
        ("DETECTION_MAX_SIDE", 10),
        ("DETECTION_MIN_SCORE", 90.0),
        ("DETECTION_MIN_SIZE", -1),
        ("DETECTION_MIN_SCORE", float("nan")),
        ("MILVUS_TIMEOUT", 0.0),
        ("MILVUS_HNSW_EF", 0),
    ],
)
def test_number_that_cannot_work(recognition, name, value):
    recognition(**{name: value})
    assert set(found()) - {"recognition.I001"} == {"recognition.E006"}


def test_every_number_has_limits():
    numbers = [item for item in configuration.SETTINGS if item.kind in (int, float)]
    assert [item.name for item in numbers if item.least is None or item.most is None] == []
    assert len(numbers) > 10


@pytest.mark.parametrize(
    "uri",
    ["ftp://host", "http://", "http://host:port", "https://host:99999", "data/localhost:19530"],
)
def test_malformed_milvus_address(recognition, uri):
    recognition(MILVUS_URI=uri)
    assert ids() == {"recognition.E007"}


@pytest.mark.parametrize(
    "uri", ["http://localhost:19530", "https://milvus", "tcp://10.0.0.1:19530", "unix:/run/milvus"]
)
def test_sound_milvus_address(recognition, uri):
    recognition(MILVUS_URI=uri, MILVUS_TOKEN="root:Milvus")
    assert ids() == set()


def test_malformed_milvus_address_is_not_repeated(recognition):
    recognition(MILVUS_URI="ftp://user:secret@host")
    assert "secret" not in str(found()["recognition.E007"])


def test_milvus_file_of_an_older_version(recognition, tmp_path):
    (tmp_path / "old.db").write_bytes(b"SQLite")
    recognition(MILVUS_URI=str(tmp_path / "old.db"))
    assert "Move the file away" in found()["recognition.E007"].hint


def test_milvus_folder_that_cannot_be_made(recognition, tmp_path):
    (tmp_path / "file").touch()
    recognition(MILVUS_URI=str(tmp_path / "file" / "milvus.db"))
    assert ids() == {"recognition.E007"}


def test_milvus_token_without_a_server(recognition):
    recognition(MILVUS_TOKEN="root:Milvus")
    assert ids() == {"recognition.W002"}


def test_several_processes_on_the_embedded_database(recognition, monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert ids() == {"recognition.W004"}
    recognition(MILVUS_URI="http://localhost:19530")
    assert ids() == set()


def test_liveness_check_needs_both_files(recognition, tmp_path):
    (tmp_path / "mobilenetv3_large.ckpt").write_bytes(b"x")
    recognition(WEIGHTS_DIR=tmp_path)
    first, second = (tmp_path / name for name in EXTRAS["liveness"].published)
    first.write_bytes(b"x")
    assert ids() == {"recognition.W005"} and str(second) in found()["recognition.W005"].msg
    second.touch()
    assert ids() == {"recognition.W005"}
    second.write_bytes(b"x")
    assert ids() == set()


def test_unknown_key(recognition):
    recognition(MODEL="x")
    assert set(found()) == {"recognition.E008"}


# Where the gallery is kept


def test_data_folder_that_cannot_be_made(settings, tmp_path):
    (tmp_path / "file").touch()
    settings.DATA_DIR = tmp_path / "file" / "data"
    assert ids() == {"enrollment.E001"}


def test_data_folder_open_to_other_users(settings):
    settings.DATA_DIR.chmod(0o755)
    assert ids() == {"enrollment.W001"}


def test_picture_storage_that_cannot_be_written_to(settings, tmp_path):
    (tmp_path / "file").touch()
    default = settings.STORAGES["default"] | {"OPTIONS": {"location": tmp_path / "file"}}
    settings.STORAGES = settings.STORAGES | {"default": default}
    assert ids() == {"enrollment.E002"}


@pytest.fixture
def s3(settings):
    """Store pictures in S3 with these options."""

    def change(**options: object) -> None:
        storage = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
        settings.STORAGES = settings.STORAGES | {"default": storage}

    return change


@pytest.mark.parametrize("half", ["access_key", "secret_key"])
def test_half_of_the_s3_credentials(s3, half):
    s3(bucket_name="faces", **{half: "x"})
    assert ids() == {"enrollment.E003"}


def test_malformed_s3_endpoint(s3):
    s3(bucket_name="faces", endpoint_url="minio:9000")
    assert ids() == {"enrollment.E004"}


def test_s3_without_its_packages(s3, monkeypatch):
    monkeypatch.setattr("enrollment.upkeep.checks.find_spec", lambda name: None)
    s3(bucket_name="faces")
    assert ids() == {"enrollment.E005"}


def test_sound_s3_settings(s3):
    s3(bucket_name="faces", access_key="a", secret_key="b", endpoint_url="http://minio:9000")
    assert ids() == set()


def test_s3_settings_without_a_bucket(settings):
    settings.S3 = settings.S3 | {"endpoint_url": "http://minio:9000"}
    assert ids() == {"enrollment.W002"}


# Who may reach it


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", 70000), ("PORT", -1), ("THREADS", 0), ("THREADS", 10000)]
)
def test_server_number_that_cannot_work(settings, name, value):
    setattr(settings, name, value)
    assert ids() == {"faceproject.E001"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("ENROLL_QUALITY", "drop"), ("PERSON_KEEP_DAYS", -1), ("SEARCH_LOG_DAYS", -1)],
)
def test_setting_of_the_gallery_that_cannot_work(settings, name, value):
    setattr(settings, name, value)
    assert ids() == {"enrollment.E006"}


def test_short_secret_key(settings):
    settings.SECRET_KEY = "short"
    assert ids() == {"enrollment.W007"}


def test_hsts_without_https(settings):
    settings.SECURE_HSTS_SECONDS = 60
    assert ids() == {"enrollment.W006"}


@pytest.fixture
def open_host(settings) -> None:
    """Serve other machines with a sound configuration."""
    settings.HOST = "0.0.0.0"
    settings.ALLOWED_HOSTS = ["localhost", "faces.example.org"]


@pytest.mark.usefixtures("open_host")
class TestServedToOthers:
    def test_sound_settings_are_silent(self):
        assert ids() == set()

    def test_debug_is_an_error(self, settings):
        settings.DEBUG = True
        assert ids() == {"enrollment.E007"}

    def test_open_api_is_a_warning(self, settings):
        settings.API_AUTH_REQUIRED = False
        assert ids() == {"enrollment.W003"}

    def test_no_allowed_hosts_is_a_warning(self, settings):
        settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
        assert ids() == {"enrollment.W004"}

    def test_plain_http_is_a_warning_on_deployment(self, settings):
        assert "enrollment.W005" in found(deploy=True)
        settings.HTTPS = True
        assert "enrollment.W005" not in found(deploy=True)

    def test_import_over_plain_http_is_a_warning_on_deployment(self, settings):
        settings.IMPORT_HOSTS = ("a.example", "http://localhost:8080")
        assert "enrollment.W009" not in found(deploy=True)
        settings.IMPORT_HOSTS = ("http://10.0.0.5:8080",)
        assert "enrollment.W009" in found(deploy=True)


def test_loopback_may_debug_and_be_open(settings):
    settings.DEBUG, settings.API_AUTH_REQUIRED = True, False
    assert ids() == set()


def manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `manage.py` in its own process, with only the given environment."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=kept | {"ENV_FILE": os.devnull} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_fresh_installation_passes_at_warning_level(tmp_path):
    if not (django_settings.RECOGNITION["WEIGHTS_DIR"] / "mobilenetv3_large.safetensors").exists():
        pytest.skip("The bundled weights are not in WEIGHTS_DIR.")
    result = manage("check", "--fail-level", "WARNING", DATA_DIR=str(tmp_path / "fresh"))
    assert result.returncode == 0, result.stderr
    assert "WARNINGS" not in result.stderr


@pytest.mark.parametrize(("name", "value"), [("PORT", "abc"), ("DEBUG", "maybe")])
def test_value_of_the_wrong_kind_is_a_sentence(tmp_path, name, value):
    result = manage("check", DATA_DIR=str(tmp_path), **{name: value})
    assert result.returncode != 0
    assert f"{name}={value}" in result.stderr
    assert "Traceback" not in result.stderr


def test_no_key_is_published_where_there_is_no_database(tmp_path):
    result = manage("receipt", "--public-key", DATA_DIR=str(tmp_path))
    assert result.returncode == 1 and "script/manage migrate" in result.stderr
    assert not (tmp_path / "installation_key").exists()


def test_worker_beside_embedded_milvus(settings):
    settings.TASKS_BACKEND = "database"
    assert "enrollment.W008" in ids()
    settings.RECOGNITION = settings.RECOGNITION | {"MILVUS_URI": "http://127.0.0.1:19530"}
    assert "enrollment.W008" not in ids()


@pytest.mark.parametrize(
    ("line", "mode", "expected"),
    [
        ("S3_SECRET_KEY=abc", 0o644, {"faceproject.W001"}),
        ("export DATABASE_URL='postgres://a:b@c/d'", 0o644, {"faceproject.W001"}),
        ("S3_SECRET_KEY=abc", 0o640, set()),
        ("# SECRET_KEY=\nTHREADS=3", 0o644, set()),
    ],
)
def test_passwords_that_everybody_can_read_are_told(tmp_path, monkeypatch, line, mode, expected):
    file = tmp_path / ".env"
    file.write_text(f"{line}\n")
    file.chmod(mode)
    monkeypatch.setenv("ENV_FILE", str(file))
    assert ids() == expected


def test_a_file_of_settings_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("ENV_FILE", str(tmp_path / "faces.evn"))
    assert ids() == {"faceproject.E003"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [("ALOWED_HOSTS", "ALLOWED_HOSTS"), ("SEARCH_LOG_DAY", "SEARCH_LOG_DAYS"), ("HTTP", "HTTPS")],
)
def test_name_that_is_nearly_a_settings_is_told(monkeypatch, name, meant):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:4318")
    monkeypatch.setenv("LANGUAGE", "pt")
    monkeypatch.setenv(name, "1")
    warning = found()["faceproject.W002"]
    assert warning.msg.startswith(f"{name} is set") and f"Call it {meant}" in warning.hint


@pytest.mark.parametrize(
    "name", ["https://faces.example.org", "faces.example.org:8000", "[::1]:80"]
)
def test_allowed_host_with_more_than_a_name(settings, name):
    settings.ALLOWED_HOSTS = ["localhost", "[::1]", "192.168.0.7", "*", ".example.org", name]
    assert name in found()["faceproject.W003"].msg
    settings.ALLOWED_HOSTS.remove(name)
    assert ids() == set()
