"""The project's settings over a throw-away data folder; each test gets its own Milvus (conftest)."""

import atexit
import os
import shutil
import tempfile

_data = tempfile.mkdtemp(prefix="faceproject-tests-")
atexit.register(shutil.rmtree, _data, ignore_errors=True)
for _name in ("DATABASE_URL", "MILVUS_URI", "MILVUS_TOKEN", "WEIGHTS_DIR", "S3_BUCKET", "HOST"):
    os.environ.pop(_name, None)
os.environ.update(DATA_DIR=_data, DEBUG="0", SECRET_KEY="tests-only", LOG_LEVEL="WARNING")

from faceproject.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
