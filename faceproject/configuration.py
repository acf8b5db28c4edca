"""What each setting means; writes docs/configuration.md's tables and `.env.example` from it.

    python -m faceproject.configuration

What a setting takes and its default are not repeated here: they come from the settings themselves.
"""

from __future__ import annotations

import re
from typing import Any

from faceproject.environment import Knob
from faceproject.settings import BASE_DIR, DATA_DIR, env
from recognition.checks import LIMITS
from recognition.conf import RecognitionSettings

PAGE = BASE_DIR / "docs" / "configuration.md"
EXAMPLE = BASE_DIR / ".env.example"
TABLE = re.compile(r"(<!-- settings: (.+?) -->\n).*?(<!-- end of settings -->)", re.DOTALL)

# Read by Django, by `manage.py serve`, or before the settings.
READ_ELSEWHERE = {
    "DJANGO_SUPERUSER_USERNAME": Knob("text", None),
    "DJANGO_SUPERUSER_PASSWORD": Knob("text", None),
    "DJANGO_SUPERUSER_EMAIL": Knob("text", None),
    "ENV_FILE": Knob("a file", ".env"),
}

# Section of docs/configuration.md: setting: meaning. The first sentence goes to `.env.example`.
MEANINGS: dict[str, dict[str, str]] = {
    "Where things are kept": {
        "DATA_DIR": "Holds everything that must outlive an update: `db.sqlite3`, `milvus_face.db/`, `media/` (pictures), `secret_key`. Made at the first start, readable by its owner only. [What to back up, and how](operations.md#backup-and-restore).",
        "WEIGHTS_DIR": "Where the networks' weights are looked for; see [`weights/README.md`](../weights/README.md).",
        "DATABASE_URL": "Another SQL database than SQLite, as `postgres://user:password@host:5432/name`. Percent-encode special characters of the password.",
        "MILVUS_URI": "Where the vectors are: a folder (embedded Milvus Lite, which belongs to one process) or the address of a Milvus server such as `http://host:19530`. A server is for several processes or very large galleries ([which, when](operations.md#the-vector-database)). After a change run `script/manage reindex`.",
        "MILVUS_TOKEN": "`user:password` or token of a Milvus server.",
        "MILVUS_TIMEOUT": "Seconds that a call to a Milvus server may take before it counts as down.",
        "MILVUS_INDEX": "How the nearest are found: `FLAT` compares with every vector and misses none; `HNSW` walks a graph, which is quicker on a Milvus server with hundreds of thousands of vectors and misses some ([figures](operations.md#flat-or-hnsw)). Of a new collection: after a change run `script/manage reindex --rebuild`.",
        "MILVUS_HNSW_M": "HNSW: neighbours of a vector in the graph. More finds more and takes more memory. Of a new collection.",
        "MILVUS_HNSW_EF_CONSTRUCTION": "HNSW: candidates looked at to place a vector.",
        "MILVUS_HNSW_EF": "HNSW: candidates looked at by a search; at once, no rebuild. More finds more and takes longer.",
        "S3_BUCKET": "Pictures are kept in this bucket instead of `DATA_DIR/media`. Keep the bucket private: the service hands pictures out itself, to those who may see them.",
        "S3_ENDPOINT_URL": "Address of an S3 service other than Amazon's.",
        "S3_REGION": "Region of the bucket.",
        "S3_ACCESS_KEY": "Access key of the bucket. When unset, the AWS environment variables, profile or instance role are used.",
        "S3_SECRET_KEY": "The secret key that belongs to it.",
    },
    "Who may reach it": {
        "HOST": "Address to listen at. `0.0.0.0` listens to every network that the machine is in.",
        "PORT": "Port to listen at; `0` takes a free one and prints it.",
        "THREADS": "Requests that are worked on at the same time. More wait their turn.",
        "ALLOWED_HOSTS": "Names and addresses, with commas, by which other machines call this one. The names of the machine itself (`localhost`, `127.0.0.1`, `[::1]`) are always answered; any other gets 400.",
        "API_AUTH_REQUIRED": "`1`: everybody needs an account, also on this machine; `0`: nobody does, from anywhere; unset: all but the server's own user on the machine itself, straight to it ([exactly](#who-needs-no-account)). Say `0` only where the network itself is closed.",
        "CSRF_TRUSTED_ORIGINS": "`https://faces.example.org`, with commas: the addresses from which browsers may send forms, needed behind a proxy that ends TLS.",
        "HTTPS": "`1`: cookies for HTTPS only, plain HTTP is redirected, and the header `X-Forwarded-Proto` of the proxy is believed. Set it only behind a proxy that sets that header itself.",
        "SECURE_HSTS_SECONDS": "Seconds for which browsers must insist on HTTPS for this name.",
        "SECRET_KEY": "Signs sessions. When unset, one is made at the first start and kept in `DATA_DIR/secret_key`.",
        "DJANGO_SUPERUSER_USERNAME": "Together with the password: this admin account is made at the start when it is not there.",
        "DJANGO_SUPERUSER_PASSWORD": "Its password; changing it here later does not change the account's.",
        "DJANGO_SUPERUSER_EMAIL": "Its e-mail address.",
        "DEBUG": "`1`: Django's own error pages, which show settings and code. For development only.",
    },
    "Limits": {
        "RATE_EMBED": "Limits calls that compute from pictures and store nothing: `embedding`, `embeddings/batch`, `detect`.",
        "RATE_SEARCH": "Limits `milvus/search`, `verify`.",
        "RATE_ENROLL": "Limits `milvus/insert`, and pictures sent to a person.",
        "RATE_PERSONS": "Limits the other calls about persons.",
    },
    "Networks": {
        "DEFAULT_MODEL": "The model of requests that name none; `cosface_resnet50` is the other.",
        "EXTRA_NETWORKS": "Networks that do not come along: `edgeface_xs`. Fetch its weights first ([which](../weights/README.md)), measure them (`evaluate --save`), and run `script/manage reindex`.",
        "DEVICE": "`auto` takes a CUDA GPU when there is one; `cpu`, `cuda`, `cuda:1` insist.",
        "PRELOAD_MODELS": "Models, with commas, that the server loads at its start; the others load at their first use, which then takes some seconds more.",
        "EMBED_BATCH_SIZE": "Faces that go through a network at once; lower it when a GPU runs out of memory.",
        "TORCH_THREADS": "Processor threads of one forward pass; `0` leaves it to torch (one for each core).",
        "FLIP_TTA": "`1`: an embedding is the mean of those of the face and of its mirror image, at twice the network's time. After a change run `script/manage reindex`, since the two kinds of vectors are never compared, and measure the thresholds anew (`evaluate --save`). With the bundled `mobilenetv3_large`, on 2,000 pairs of aligned crops, it finds 86.4 % instead of 86.1 % of the pairs of one person at a false-match rate of 1 %, and its accuracy is 95.2 % instead of 95.3 %; with `cosface_resnet50` 84.1 % instead of 79.5 %, and 93.1 % instead of 93.5 %.",
    },
    "Pictures and faces": {
        "MAX_REQUEST_MB": "Largest request; a larger one gets 413.",
        "MAX_BATCH_SIZE": "Most pictures in one request.",
        "MAX_IMAGE_PIXELS": "Width × height of the largest picture, known from its header before it is decoded.",
        "MAX_DECODED_PIXELS": "Width × height of all pictures that are decoded at the same time; further requests wait until there is room. A pixel takes about 10 bytes of memory while it is decoded.",
        "MIN_IMAGE_SIDE": "Smallest width and height in pixels.",
        "DETECTOR": "Dotted path of the class that finds faces; another one implements [`recognition/detection/base.py`](../recognition/detection/base.py). `recognition.detection.retinaface.RetinaFaceDetector` needs `pip install -r requirements-retinaface.txt` and fetches its weights at the first use, into `~/.uniface/models` or `UNIFACE_CACHE_DIR`; its scores run lower, so set `DETECTION_MIN_SCORE=0.5` with it. `recognition.detection.none.NoDetector` finds none: every picture is taken for a crop.",
        "DETECTION_MAX_SIDE": "Larger pictures are scaled down to this to find faces (the crop is still cut from the original): larger finds smaller faces, slower. At 1600, faces from 40 pixels on are found in a photo of 12 megapixels; at 1024 from 60 on, in 0.4 of the time.",
        "DETECTION_MIN_SCORE": "Faces that the detector is less sure of are ignored (0 to 1). The default detector gives no face less than 0.7.",
        "DETECTION_MIN_SIZE": "Faces whose box has a shorter side, in pixels of the picture, are ignored.",
        "NO_FACE_POLICY": 'A picture without a face: `embed` takes the whole picture for an aligned crop and answers `"face_detected": false`; `error` refuses it with 422.',
        "ENROLL_QUALITY": "A face that is blurred, dark, turned away and so on (the [reasons](api.md#quality)): `warn` enrols it and says so, `refuse` stores nothing and answers 422 `low_quality` with the reasons.",
        "ENROLL_IDENTITY": "A picture that matches somebody else who is enrolled, or is enrolled already: `warn` enrols it and says so, `refuse` stores nothing and answers 422 `doubtful_identity`. Refusing embeds each picture once more, and needs Milvus before anything is stored.",
    },
    "Retention": {
        "PERSON_KEEP_DAYS": "For how many days from their enrolment people are kept who are given no other day; then they [are deleted](privacy.md#retention). `0` sets no end. It changes nothing for those who are enrolled already.",
        "SEARCH_LOG_DAYS": "How long the [search log](privacy.md#the-search-log) keeps who searched when and with what result. `0` records nothing, and what was recorded is deleted.",
    },
    "Background work": {
        "TASKS_BACKEND": "`immediate`: the server does everything itself, what `async=true` asks for in a thread of its own; `database`: what follows a change in the admin (renames, deletions, new weights), and inserts with `async=true`, is left in SQL for `script/worker`, of which any number may run. A worker needs a Milvus server: embedded Milvus belongs to the server's process.",
    },
    "Language, time, log": {
        "LANGUAGE_CODE": "`en` or `pt-br`: the language where the client's `Accept-Language` asks for neither.",
        "TIME_ZONE": "Time zone of the pages and of the log, such as `America/Sao_Paulo`; none: the machine's own. By it a person's [last day](privacy.md#retention) ends.",
        "LOG_LEVEL": "How much is logged, to standard error.",
        "ENV_FILE": "Another file to read the settings from (from the environment only).",
    },
}


def knobs() -> dict[str, Knob]:
    """Every setting with what it takes and its default."""
    defaults = RecognitionSettings()
    found = env.knobs | READ_ELSEWHERE
    for name, knob in found.items():
        if knob.default is None:
            found[name] = knob._replace(default=getattr(defaults, name.lower(), None))
        if limits := LIMITS.get(name.lower()):
            expected = f"{knob.expected} from {limits[0]:.10g} to {limits[1]:.10g}"
            found[name] = found[name]._replace(expected=expected)
    described = [name for meanings in MEANINGS.values() for name in meanings]
    if differing := set(found) ^ set(described):
        raise LookupError(
            f"faceproject/configuration.py must describe what is read and nothing else: {differing}."
        )
    return found


def page() -> str:
    """docs/configuration.md with its tables as the settings are."""
    return TABLE.sub(lambda match: match[1] + _table(match[2]) + match[3], PAGE.read_text())


def _table(section: str) -> str:
    known = knobs()
    rows = ["| Variable | Takes | Default | Effect |", "| --- | --- | --- | --- |"]
    for name, meaning in MEANINGS[section].items():
        default = _shown(known[name].default)
        shown = f"`{default}`" if default else "none"
        rows.append(f"| `{name}` | {known[name].expected} | {shown} | {meaning} |")
    return "\n".join(rows) + "\n"


def example() -> str:
    """`.env.example`: every setting as a comment with its default."""
    lines = [
        "# Every setting, with its default. Copy this file to .env and uncomment what you change; a variable",
        "# of the environment wins over this file. docs/configuration.md says more about each.",
    ]
    known = knobs()
    for section, meanings in MEANINGS.items():
        lines += ["", f"# {section}"]
        for name, meaning in meanings.items():
            default = _shown(known[name].default)
            # A place that follows DATA_DIR is no value that one could uncomment.
            given = f"{name}={'' if default.startswith('DATA_DIR/') else default}"
            lines.append(f"# {given:<36} {_brief(meaning)}")
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    """A default as one would write it; empty when there is none."""
    if isinstance(default, dict):  # of a database
        default = default["NAME"]
    if isinstance(default, bool | int | float):
        return f"{default:.10g}"
    if isinstance(default, tuple):
        return ",".join(default)
    return str(default or "").replace(str(DATA_DIR), "DATA_DIR")


def _brief(meaning: str) -> str:
    """The first sentence, without Markdown."""
    text = re.sub(r"\[(.+?)\]\(\S+?\)", r"\1", meaning).replace("`", "")
    return text.split(". ")[0].rstrip(".")


def write() -> None:
    """Writes both files anew."""
    PAGE.write_text(page())
    EXAMPLE.write_text(example())


if __name__ == "__main__":
    write()
