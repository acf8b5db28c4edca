import gc

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class FaceAdminConfig(AdminConfig):
    default_site = "faceproject.admin_site.FaceAdminSite"


class FaceProjectConfig(AppConfig):
    """The project as an application, which provides `manage.py serve`."""

    name = "faceproject"

    def ready(self) -> None:
        from prometheus_client import REGISTRY

        from faceproject import checks  # noqa: F401 (registers them)
        from faceproject.metrics import ServiceCollector

        REGISTRY.register(ServiceCollector())
        gc.freeze()  # see manage.py
        gc.enable()
