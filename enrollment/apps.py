from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class EnrollmentConfig(AppConfig):
    name = "enrollment"
    verbose_name = _("Enrolment")

    def ready(self) -> None:
        from enrollment import checks  # noqa: F401 (registers the system checks)
        from enrollment.index import register_signal_handlers

        register_signal_handlers()
