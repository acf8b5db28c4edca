"""The project's settings with a temporary data folder; conftest gives each test its own Milvus.

Only the default model has weights, so that enrolling a face computes one embedding. The fixture
`both_models` provides all bundled weights.
"""

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

_data = tempfile.mkdtemp(prefix="faceproject-tests-")
atexit.register(shutil.rmtree, _data, ignore_errors=True)
_root = Path(__file__).resolve().parent.parent
_weights = Path(_data, "weights")
_weights.mkdir()
for _file in _root.joinpath("weights").glob("mobilenetv3_large.safetensors*"):
    _weights.joinpath(_file.name).symlink_to(_file)
# What is converted for OpenVINO is kept for the next run.
_root.joinpath("weights", "converted").mkdir(exist_ok=True)
_weights.joinpath("converted").symlink_to(_root / "weights" / "converted")
_knobs = (_root / ".env.example").read_text()
for _name in re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", _knobs, re.MULTILINE):
    os.environ.pop(_name, None)
os.environ.update(
    DATA_DIR=_data,
    WEIGHTS_DIR=str(_weights),
    SECRET_KEY="tests-only",
    LOG_LEVEL="WARNING",
    TIME_ZONE="UTC",
    TORCH_THREADS="1",  # pictures this small gain nothing from more, and the tests run side by side
    ENV_FILE=os.devnull,
)

from faceproject.settings import *  # noqa: E402, F403

# A static file is looked for when it is asked for: each client would look for all of them.
WHITENOISE_AUTOREFRESH = True
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# No test cuts the power, so nothing need be on the disk: to wait for it takes a third of the time.
os.fsync = lambda fd: None
_options: Any = DATABASES["default"]["OPTIONS"]  # noqa: F405
_options["init_command"] = _options["init_command"].replace("=FULL", "=OFF")
# A file: threads that share an in-memory database do not wait for each other's locks.
DATABASES["default"]["TEST"] = {"NAME": f"{_data}/test.sqlite3"}  # noqa: F405
MIDDLEWARE = ["tests.peers.PeerMiddleware", *MIDDLEWARE]  # noqa: F405
