"""URLs of the endpoints that store nothing, and of the OpenAPI document."""

from collections.abc import Callable
from typing import Any

from django.urls import URLPattern, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from recognition.api import views


def call(route: str, view: Callable[..., Any], name: str) -> list[URLPattern]:
    """Return URLs with and without a trailing slash: a redirect would lose a POST's body."""
    return [path(route, view, name=name), path(f"{route}/", view)]


urlpatterns = [
    *call("health", views.HealthView.as_view(), "api-health"),
    *call("models", views.ModelsView.as_view(), "api-models"),
    *call("detect", views.DetectView.as_view(), "api-detect"),
    *call("embedding", views.EmbeddingView.as_view(), "api-embedding"),
    *call("embeddings/batch", views.EmbeddingsBatchView.as_view(), "api-embeddings-batch"),
    *call("schema", SpectacularAPIView.as_view(authentication_classes=()), "api-schema"),
    *call("docs", SpectacularSwaggerSplitView.as_view(url_name="api-schema"), "api-docs"),
]
