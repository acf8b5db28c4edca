import sys

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class EnrollmentConfig(AppConfig):
    name = "enrollment"
    verbose_name = _("Enrolment")

    def ready(self) -> None:
        from enrollment.gallery import pictures_out_of_search, removals_that_wait
        from enrollment.index import register_signal_handlers
        from enrollment.journal import name_command, register_account_handlers, take_turns
        from enrollment.upkeep import free_locks_of_vanished, register_checks
        from recognition.health import further_questions

        register_checks()
        register_signal_handlers()
        name_command(sys.argv)
        register_account_handlers()
        take_turns()
        free_locks_of_vanished()
        for question in (removals_that_wait, pictures_out_of_search):
            if question not in further_questions:
                further_questions.append(question)
