"""Settings of the project, from the environment variables that each app's `conf.py` declares."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.utils.translation import gettext_lazy as _
from tzlocal import get_localzone_name

from enrollment.conf import EnrollmentSettings
from faceproject import __version__
from faceproject.conf import ProjectSettings
from faceproject.environment import Environment
from faceproject.openapi import SPECTACULAR_SETTINGS  # noqa: F401 (a setting)
from faceproject.secret import private_folder, stored_secret_key
from recognition.conf import RecognitionSettings

VERSION = __version__
BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment(BASE_DIR)
project = env.read(ProjectSettings)
LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]"]


# Where things are kept

DATA_DIR = private_folder(project.data_dir)

# Who may reach it

DEBUG = project.debug
SECRET_KEY = project.secret_key or stored_secret_key(DATA_DIR / "secret_key")
HOST = project.host
PORT = project.port
THREADS = project.threads
# The names of this machine always answer: its own clients and health checks use them.
ALLOWED_HOSTS = [*LOOPBACK_NAMES, *project.allowed_hosts]
CSRF_TRUSTED_ORIGINS = list(project.csrf_trusted_origins)
# None: open to the programs and browsers of the server's own user, closed to everybody else.
API_AUTH_REQUIRED = project.api_auth_required
HTTPS = project.https
PROXIES = project.proxies
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = project.secure_hsts_seconds
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
# A Prometheus on the same machine calls the server directly, not through the proxy.
SECURE_REDIRECT_EXEMPT = [r"^metrics$"]
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# Browsers load scripts and styles from this server only, and none inside a page.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:", "blob:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    },
}
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "search"
# A session ends after this long without a request; faceproject/logins.py renews it.
SESSION_COOKIE_AGE = 12 * 60 * 60
# Wrong passwords: django-axes counts them, faceproject/logins.py decides how long to wait.
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AXES_HANDLER = "faceproject.logins.LoginHandler"
AXES_CLIENT_IP_CALLABLE = "faceproject.logins.client_address"
AXES_LOCKOUT_PARAMETERS = "faceproject.logins.counted_by"
AXES_COOLOFF_TIME = timedelta(hours=1)  # after the last wrong password; then all are forgotten
AXES_LOCKOUT_CALLABLE = "faceproject.logins.told_to_wait"
AXES_LOCK_OUT_AT_FAILURE = False  # the handler has rules of its own
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

# Django

INSTALLED_APPS = [
    "faceproject.apps.FaceAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.forms",
    "rest_framework",
    "rest_framework.authtoken",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "axes",
    "recognition",
    "enrollment",
    "faceproject.apps.FaceProjectConfig",
    "django_tasks_db",  # after enrollment, and import_export after faceproject: our commands take the place of theirs
    "import_export",
]
MIDDLEWARE = [
    "recognition.api.request_id.RequestIdMiddleware",
    "faceproject.instrumentation.ObservingMiddleware",
    "faceproject.probes.ProbeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "faceproject.middleware.ContentSecurityPolicyMiddleware",
    "faceproject.middleware.EncodedSlashMiddleware",
    "faceproject.middleware.JsonApiErrorMiddleware",
    "faceproject.middleware.RefusedBodyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "faceproject.middleware.Utf8Middleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "faceproject.middleware.FormAddressMiddleware",
    "faceproject.middleware.JournalMiddleware",
    "faceproject.logins.SessionRenewalMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "faceproject.urls"
WSGI_APPLICATION = "faceproject.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.i18n",
                "faceproject.context_processors.door",
                "faceproject.context_processors.inbox_count",
            ],
            "libraries": {"gallery": "enrollment.admin.tags"},
        },
    },
]
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}", "OPTIONS": options}
    for name, options in {
        "UserAttributeSimilarityValidator": {},
        "MinimumLengthValidator": {"min_length": 12},
        "CommonPasswordValidator": {},
        "NumericPasswordValidator": {},
    }.items()
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# SQL, the source of truth

SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA_DIR / "db.sqlite3"}
DATABASES = {"default": project.database_url or SQLITE}
# Seconds that a thread keeps its connection; opening one of SQLite takes a quarter of a search's time.
DATABASES["default"].setdefault("CONN_MAX_AGE", 60)
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # WAL lets readers continue while one writer writes. IMMEDIATE transactions take the write lock at
    # the start, so they wait (20 s) instead of failing half way.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        # secure_delete overwrites deleted rows, which would otherwise stay in the file for some time.
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON;",
    }
else:
    DATABASES["default"].setdefault("CONN_HEALTH_CHECKS", True)
if DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    # Else a thread waits for two hours for a machine that vanishes, and opens no connection to the one that
    # takes its place. What the address says goes before.
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 10,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,  # milliseconds
    } | (project.database_url or {}).get("OPTIONS", {})

# Pictures and static files

MEDIA_ROOT = DATA_DIR / "media"
MEDIA_URL = "media/"
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True

S3 = {
    "bucket_name": project.s3_bucket,
    "endpoint_url": project.s3_endpoint_url,
    "region_name": project.s3_region,
    "access_key": project.s3_access_key,
    "secret_key": project.s3_secret_key,
}
if S3["bucket_name"]:
    from botocore.config import Config

    PICTURE_STORAGE = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            **S3,
            # By itself it would wait five minutes for a bucket that hangs, and so would our threads.
            "client_config": Config(
                connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 3}
            ),
            "default_acl": None,
            "file_overwrite": False,
            "querystring_auth": True,
        },
    }
else:
    PICTURE_STORAGE = {
        "BACKEND": "enrollment.gallery.storage.DurableStorage",
        "OPTIONS": {
            "location": MEDIA_ROOT,
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    }
STORAGES: dict[str, dict[str, Any]] = {
    "default": PICTURE_STORAGE,
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# Caches in this process's memory: about 15 kB a thumbnail, the rest is small. What several servers have to count
# together (the calls of a limit) is in PostgreSQL where they share one.
LOCAL_MEMORY = "django.core.cache.backends.locmem.LocMemCache"
CACHES = {
    "default": {"BACKEND": LOCAL_MEMORY, "OPTIONS": {"MAX_ENTRIES": 10_000}},
    "thumbnails": {
        "BACKEND": LOCAL_MEMORY,
        "LOCATION": "thumbnails",
        "TIMEOUT": None,
        "OPTIONS": {"MAX_ENTRIES": 2000},
    },
    "shared": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache"
        if project.database_url
        else LOCAL_MEMORY,
        "LOCATION": "shared_cache",  # the table, which `migrate` makes
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    },
}

# Language and time

LANGUAGE_CODE = project.language_code
LANGUAGES = [("en", _("English")), ("pt-br", _("Brazilian Portuguese"))]
LOCALE_PATHS = [BASE_DIR / "locale"]
# Named here to be translated with our texts, which come before Django's: those write Portuguese months large.
months = (
    *(_("January"), _("February"), _("March"), _("April"), _("May"), _("June")),
    *(_("July"), _("August"), _("September"), _("October"), _("November"), _("December")),
)
TIME_ZONE = project.time_zone or get_localzone_name() or "UTC"
USE_I18N = True
USE_TZ = True

# Recognition

recognition = env.read(RecognitionSettings, milvus_uri=str(DATA_DIR / "milvus_face.db"))
RECOGNITION = {name.upper(): value for name, value in asdict(recognition).items()}
if ":/" not in recognition.milvus_uri:
    RECOGNITION["MILVUS_URI"] = str(BASE_DIR / recognition.milvus_uri)
MAX_REQUEST_BYTES = recognition.max_request_bytes

# The gallery

gallery = env.read(EnrollmentSettings)
ENROLL_QUALITY = gallery.enroll_quality
ENROLL_IDENTITY = gallery.enroll_identity
IMPORT_HOSTS = gallery.import_hosts
PERSON_KEEP_DAYS = gallery.person_keep_days
TRASH_DAYS = gallery.trash_days
KEEP_REFUSED_DAYS = gallery.keep_refused_days
SEARCH_LOG_DAYS = gallery.search_log_days
KEEP_PROBES_DAYS = gallery.keep_probes_days
KEEP_ANSWERS_MINUTES = gallery.keep_answers_minutes
BACKUP_KEEP_DAYS = gallery.backup_keep_days
JOURNAL_DAYS = gallery.journal_days

# Uploads: the API checks the number of files first, with a clear message; this is the backstop.
DATA_UPLOAD_MAX_NUMBER_FILES = 1000
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_REQUEST_BYTES
FILE_UPLOAD_PERMISSIONS = 0o600
FILE_UPLOAD_HANDLERS = [
    "recognition.api.text.Utf8UploadHandler",
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "recognition.api.large_files.NamelessFileUploadHandler",
]

# Background work

TASKS_BACKEND = gallery.tasks_backend
TASKS = {
    "default": {
        "BACKEND": "django_tasks_db.DatabaseBackend"
        if TASKS_BACKEND == "database"
        else "django_tasks.backends.immediate.ImmediateBackend"
    }
}

# API

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "enrollment.web.tokens.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["recognition.api.access.OpenOnLoopback"],
    "DEFAULT_RENDERER_CLASSES": [
        "recognition.api.renderers.JSONRenderer",
        "recognition.api.renderers.ApiPageRenderer",
    ],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "recognition.api.renderers.Negotiation",
    "DEFAULT_PARSER_CLASSES": [
        "recognition.api.parsers.MultiPartParser",
        "rest_framework.parsers.FormParser",
        "recognition.api.parsers.JSONParser",
    ],
    "DEFAULT_THROTTLE_CLASSES": ["faceproject.throttling.ScopeThrottle"],
    "DEFAULT_THROTTLE_RATES": {
        "embed": project.rate_embed,
        "search": project.rate_search,
        "enroll": project.rate_enroll,
        "persons": project.rate_persons,
    },
    "NUM_PROXIES": PROXIES,  # of X-Forwarded-For only what they wrote is believed
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "recognition.api.exceptions.exception_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "multipart",
}

# Persons as CSV and JSON, in the admin

IMPORT_EXPORT_USE_TRANSACTIONS = True
IMPORT_EXPORT_IMPORT_PERMISSION_CODE = "add"
IMPORT_EXPORT_EXPORT_PERMISSION_CODE = "view"
IMPORT_EXPORT_SKIP_ADMIN_ACTION_EXPORT_UI = True

# Logs and traces

OTEL_EXPORTER_OTLP_ENDPOINT = project.otel_exporter_otlp_endpoint
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "recognition.api.request_id.LineFormatter",
            "format": "%(asctime)s %(levelname)s [%(request_id)s] %(name)s: %(message)s",
        },
        "json": {"()": "faceproject.logs.JsonFormatter"},
    },
    "filters": {
        "request_id": {"()": "recognition.api.request_id.RequestIdFilter"},
        "route": {"()": "faceproject.logs.RouteFilter"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": project.log_format,
            "filters": ["request_id", "route"],
        }
    },
    "root": {"handlers": ["console"], "level": project.log_level},
    "loggers": {
        "django": {"level": "INFO", "handlers": ["console"], "propagate": False},
        "faceproject.access": {"level": "NOTSET" if project.access_log else "CRITICAL"},
        # These log harmless events: the choice of a FAISS build, a call of pymilvus that Milvus Lite does
        # not support, its housekeeping.
        "faiss.loader": {"level": "WARNING"},
        "uvicorn": {"level": "WARNING"},
        "grpc._server": {"level": "CRITICAL"},
        "milvus_lite": {"level": "WARNING"},
        "django_tasks": {"level": "WARNING"},
        "PIL": {"level": "CRITICAL"},  # what is wrong with a picture stands in the answer
        "urllib3.connection": {"level": "ERROR"},  # warns with whole addresses
        "axes": {"level": "ERROR"},  # faceproject.logins logs the same events
    },
}
