"""The alert rules and the dashboard of `deploy/` use existing metrics, and each alert fires.

A test causes the condition of an alert, scrapes the service twice, and lets promtool compute which
alerts fire if it persists: that alert, and no other except those that it implies.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone
from django_tasks_db.models import DBTaskResult
from prometheus_client import REGISTRY

from enrollment.models import FaceEmbedding, FaceImage, Person, Removal
from enrollment.upkeep import BacklogThread, backlog
from enrollment.upkeep.figures import LAST_PASS
from faceproject import instrumentation, metrics
from faceproject.front import Workers
from recognition import inference
from tests.pictures import draw_picture
from tests.test_metrics import asked_at_each_scrape, samples

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
MINUTES = 60  # for which things stay as they are
GROWS = ("_total", "_count", "_sum", "_bucket")  # the names of counters
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    not PROMTOOL, reason="promtool is not installed: script/test installs it where it may."
)
pytestmark = pytest.mark.django_db

Scrape = dict[str, float]


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch) -> None:
    asked_at_each_scrape(monkeypatch)


def scrape() -> Scrape:
    text = Client(headers={"host": "localhost"}).get("/metrics").content.decode()
    now = time.time()
    # promtool's clock begins at 0.
    return {
        name: value - now if name.endswith("_timestamp_seconds") else value
        for name, value in samples(text)
    }


def firing(tmp_path: Path, before: Scrape, after: Scrape, *, up: bool = True) -> set[str]:
    """Return the alerts that fire after an hour in which every minute is like the one between the
    scrapes."""
    series = [series_of("up", float(up), 0)]
    asked = set(re.findall(r"\w+", RULES.read_text()))
    for name, value in after.items():
        bare, step = name.partition("{")[0], value - before.get(name, 0)
        # Other tests have counted by thousands what stands still now: its rate is 0.
        if bare in asked and (step or not bare.endswith(GROWS)):
            series.append(series_of(name, value, step))
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": f"{MINUTES}m",
                        "exp_samples": [{"labels": '{alertname="none"}', "value": -1}],
                    }
                ],
            }
        ],
    }
    file = tmp_path / "alerts_test.yml"
    file.write_text(json.dumps(test))  # which is YAML, too
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, timeout=60
    )
    told = done.stdout + done.stderr
    assert "got:" in told, told
    return set(re.findall(r'alertname=\\?"(\w+)\\?"', told.partition("got:")[2]))


def series_of(name: str, value: float, step: float) -> dict[str, str]:
    """Return a series: a gauge stays constant; a counter keeps growing as between the scrapes."""
    bare, _brace, labels = name.partition("{")
    place = 'instance="faces:8000",job="faces"'
    inner = f"{labels.rstrip('}')},{place}" if labels else place
    grows = bare.endswith(GROWS)
    return {
        "series": f"{bare}{{{inner}}}",
        "values": f"{value:.6f}{max(step, 0) if grows else 0:+.6f}x{MINUTES}",
    }


def upload() -> dict[str, object]:
    return {"image": SimpleUploadedFile("a.png", draw_picture(format="PNG"), "image/png")}


@pytest.fixture
def client() -> Client:
    return Client(headers={"host": "localhost"}, raise_request_exception=False)


# Each breaks one thing when it is called, and says what fires then.


def milvus_away(request, client: Client) -> set[str]:
    request.getfixturevalue("no_store")
    return {"FacesMilvusAway"}


def sql_away(request, client: Client) -> set[str]:
    def fail() -> None:
        raise DatabaseError("away")

    request.getfixturevalue("monkeypatch").setattr(metrics.sql, "_ask", fail)
    return {"FacesSqlAway"}


def weights_away(request, client: Client) -> set[str]:
    request.getfixturevalue("no_weights")
    return {"FacesModelUnusable"}


def calls_fail(request, client: Client) -> set[str]:
    request.getfixturevalue("no_store")
    for _call in range(5):
        assert client.post("/api/milvus/search", upload()).status_code == 503
    return {"FacesServerErrors", "FacesMilvusAway"}


def threads_are_busy(request, client: Client) -> set[str]:
    release = threading.Event()
    request.addfinalizer(release.set)
    workers = Workers(1)
    for _request in range(30):
        workers.submit(release.wait)
    return {"FacesQueueLong"}


def faces_wait(request, client: Client) -> set[str]:
    settings = request.getfixturevalue("settings")
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_WAITING_FACES": 10}
    request.getfixturevalue("monkeypatch").setattr(inference.get_queue(), "_waiting", 9)
    return {"FacesQueueFull"}


def calls_are_slow(request, client: Client) -> set[str]:
    clock = iter(range(0, 10**6, 8))  # eight seconds from each look to the next
    slow = SimpleNamespace(perf_counter=lambda: float(next(clock)))
    request.getfixturevalue("monkeypatch").setattr(instrumentation, "time", slow)
    for _call in range(5):
        client.get("/api/models")
    return {"FacesSlow"}


def passes_fail(request, client: Client) -> set[str]:
    """Make Milvus unavailable while a vector waits, so that no pass succeeds."""
    request.getfixturevalue("no_store")
    Removal.objects.create(partition="p", embedding_id=1)
    thread = BacklogThread()
    # The test's own connection, and its rows, are to outlive the pass.
    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setattr(backlog.connections, "close_all", lambda: None)
    before = REGISTRY.get_sample_value("faces_backlog_last_pass_timestamp_seconds")
    assert thread._pass(timezone.now()) < 60
    assert REGISTRY.get_sample_value("faces_backlog_last_pass_timestamp_seconds") == before
    return {"FacesBacklogStuck", "FacesMilvusAway"}


def copies_wait(request, client: Client) -> set[str]:
    embedding("pending", timedelta(hours=2))
    return {"FacesBacklogOld"}


def removals_wait(request, client: Client) -> set[str]:
    removal = Removal.objects.create(file="a.png")
    Removal.objects.filter(pk=removal.pk).update(created_at=timezone.now() - timedelta(hours=2))
    return {"FacesOutboxOld"}


def no_worker_runs(request, client: Client) -> set[str]:
    task = DBTaskResult.objects.create(args_kwargs={}, task_path="a.b", backend_name="default")
    then = timezone.now() - timedelta(hours=2)
    DBTaskResult.objects.filter(pk=task.pk).update(enqueued_at=then)
    return {"FacesTasksWait"}


def copies_fail(request, client: Client) -> set[str]:
    embedding("failed", timedelta(0))
    return {"FacesVectorsFailed"}


def disk_is_full(request, client: Client) -> set[str]:
    room = SimpleNamespace(free=10_000)
    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setattr(metrics.shutil, "disk_usage", lambda _path: room)
    return {"FacesDiskAlmostFull"}


CAUSES = [
    milvus_away,
    sql_away,
    weights_away,
    calls_fail,
    threads_are_busy,
    faces_wait,
    calls_are_slow,
    passes_fail,
    copies_wait,
    removals_wait,
    no_worker_runs,
    copies_fail,
    disk_is_full,
]


def embedding(status: str, age: timedelta) -> None:
    person = Person.objects.create(person_id="a")
    (picture,) = FaceImage.objects.bulk_create([FaceImage(person=person, image="a.png")])
    row = FaceEmbedding.objects.create(
        face_image=picture, model="m", fingerprint="f", status=status
    )
    FaceEmbedding.objects.filter(pk=row.pk).update(created_at=timezone.now() - age)


@pytest.fixture
def passed(monkeypatch) -> Iterator[None]:
    """Record a successful pass of the background work."""
    LAST_PASS.set_to_current_time()
    yield
    LAST_PASS.set(0)


@needs_promtool
@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
def test_alert_fires_when_its_cause_is_there(
    request, tmp_path, client, weights, passed, cause: Callable[..., set[str]]
):
    client.get("/api/models")
    before = scrape()
    expected = cause(request, client)
    client.get("/api/models") if cause is not calls_are_slow else None
    after = scrape()
    if "FacesBacklogStuck" not in expected:  # passes go on
        after["faces_backlog_last_pass_timestamp_seconds"] = 60.0 * MINUTES
    assert firing(tmp_path, before, after) == expected


@needs_promtool
def test_a_server_that_answers_no_scrape_is_told(tmp_path):
    assert firing(tmp_path, {}, {}, up=False) == {"FacesDown"}


@needs_promtool
def test_nothing_fires_while_all_is_well(tmp_path, client, weights, passed):
    client.get("/api/models")
    before = scrape()
    client.get("/api/models")
    after = scrape() | {"faces_backlog_last_pass_timestamp_seconds": 60.0 * MINUTES}
    assert firing(tmp_path, before, after) == set()


def test_every_alert_has_a_test(request):
    rules = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    source = Path(__file__).read_text()
    assert len(rules) > 10
    assert {rule for rule in rules if f'"{rule}"' not in source} == set()


def expressions() -> list[str]:
    rules = re.findall(r"expr: (?:\|\n)?(.+?)\n {8}for:", RULES.read_text(), re.DOTALL)
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return rules + [target["expr"] for panel in panels for target in panel["targets"]]


def test_rules_and_dashboard_name_metrics_that_exist(client, weights):
    client.get("/api/models")
    known = {name.partition("{")[0] for name in scrape()} | {"up"}
    # Those with labels have samples from their first event on.
    known |= {
        f"{family.name}{end}"
        for family in REGISTRY.collect()
        for end in ("_total", "_bucket", "_sum", "_count")
    }
    written = expressions()
    assert len(written) > 25
    named = {name for each in written for name in re.findall(r"\b(?:faces|process)_\w+", each)}
    assert len(named) > 15 and named - known == set()


@needs_promtool
def test_promtool_reads_rules_dashboard_and_configuration(tmp_path):
    panels = [each.replace("$__rate_interval", "5m") for each in expressions()]
    rules = [{"record": f"r{number}", "expr": expr} for number, expr in enumerate(panels)]
    (tmp_path / "all.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))
    shutil.copy(RULES, tmp_path)
    token = tmp_path / "token"
    token.write_text("secret")
    text = (RULES.parent / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(
        text.replace("/etc/prometheus/faces-token", str(token))
    )
    for words in (["rules", "all.yml"], ["rules", "alerts.yml"], ["config", "prometheus.yml"]):
        done = subprocess.run(
            [str(PROMTOOL), "check", *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
