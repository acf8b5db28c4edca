"""The health of the service, for monitoring, orchestration and administrators."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from django.conf import settings as project
from django.db import DatabaseError, connection
from django.utils.translation import gettext

from recognition.conf import MIB, get_settings
from recognition.detection import Choice, chosen_detector
from recognition.exceptions import RecognitionError
from recognition.inference import get_queue, waiting_faces
from recognition.liveness import has_liveness, liveness_problem
from recognition.networks import WeightsFile, find_weights, loaded_names, usable_names
from recognition.networks.device import choose_device
from recognition.networks.loader import LoadedNetwork, load_failure, loaded_networks
from recognition.networks.runtime import trial_crops
from recognition.vector_store import get_vector_store

logger = logging.getLogger(__name__)

TRIAL_SECONDS: Final = 0.5
Answer = TypeVar("Answer")

# Further checks, added by other applications. Each returns a sentence about a problem, or None.
further_questions: list[Callable[[], str | None]] = []


@dataclass(slots=True)
class Health:
    """The result of a health check. `errors` stop the service from working; `warnings` do not."""

    milvus_connected: bool = False
    version: str = field(default_factory=lambda: project.VERSION)
    device: str = "unavailable"
    detector: Choice = field(default_factory=chosen_detector)
    liveness_available: bool = False  # its files are there, and none failed to load
    searched_in: str = ""  # see `VectorStore.searched_in`
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    loading: list[str] = field(default_factory=list)  # models of PRELOAD_MODELS not loaded yet
    runtimes: list[LoadedNetwork] = field(default_factory=list)  # the loaded networks

    @property
    def problems(self) -> list[str]:
        return self.errors + self.warnings

    @property
    def status(self) -> str:
        return "degraded" if self.problems else "healthy"


def examine() -> Health:
    """Check SQL, Milvus, the device, the weights, and the default model where it is loaded."""
    settings = get_settings()
    health = Health()
    _note(health.errors, _ask_sql)
    health.milvus_connected = bool(_note(health.errors, lambda: get_vector_store().ping()))
    device = _note(health.errors, lambda: choose_device(settings.device))
    health.searched_in = get_vector_store().searched_in
    health.device = device or health.device
    weights = _note(health.errors, lambda: find_weights(settings.default_model))
    if weights and device:
        _note(health.errors, lambda: _try_model(settings.default_model, weights))
    for name in set(settings.int8_models) - {settings.default_model}:
        _note(health.warnings, partial(find_weights, name))
    for name in usable_names():
        if failure := load_failure(name):
            default = name == settings.default_model
            (health.errors if default else health.warnings).append(failure)
        elif name in settings.preload_models and name not in loaded_names():
            health.loading.append(name)
    health.runtimes = loaded_networks()
    unusable = liveness_problem()
    health.liveness_available = has_liveness() and not unusable
    others = (question() for question in (_lack_of_space, *further_questions))
    health.warnings += [problem for problem in (unusable, *others) if problem]
    return health


class ModelFails(RecognitionError):
    """A loaded model computes no embedding."""

    code = "model_fails"
    status = 503


def _try_model(name: str, weights: WeightsFile) -> None:
    """Embed a crop, as the device may fail after a model was loaded; load no model for it.

    Where faces wait the device is at work, and is not asked for one more.
    """
    is_loaded = any(
        each.network.name == name and each.weights == weights for each in loaded_networks()
    )
    if not is_loaded or waiting_faces():
        return
    try:
        get_queue().submit(trial_crops()[:1], name).result(TRIAL_SECONDS)
    except TimeoutError:
        return  # others came first
    except RecognitionError:
        raise
    except Exception as error:
        logger.exception("The model %s computes no embedding", name)
        raise ModelFails(
            gettext(
                "The model '%(name)s' computes no embedding any more; the log says why. Restart the server; "
                "where that does not mend it, set DEVICE=cpu."
            )
            % {"name": name}
        ) from error


def _lack_of_space() -> str | None:
    """Return a warning if the disk is nearly full, else None.

    Searches still work on a full disk, but nothing can be enrolled or deleted.
    """
    try:
        free = shutil.disk_usage(project.DATA_DIR).free
    except OSError:
        free = 0
    if free >= get_settings().max_request_bytes:
        return None
    return gettext(
        "The disk of DATA_DIR has %(free)d MB left, less than one request may bring. Make space there: "
        "when it is full, nothing can be enrolled, changed or deleted."
    ) % {"free": free // MIB}


def _note(problems: list[str], question: Callable[[], Answer]) -> Answer | None:
    try:
        return question()
    except RecognitionError as error:
        problems.append(error.message)
        return None


class DatabaseUnavailable(RecognitionError):
    """The SQL database does not answer."""

    code = "database_unavailable"
    status = 503


def _ask_sql() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        logger.exception("The SQL database does not answer")
        raise DatabaseUnavailable(
            gettext(
                "The SQL database does not answer. Check that it runs and that DATABASE_URL is right."
            )
        ) from error
