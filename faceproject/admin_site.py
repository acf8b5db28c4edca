"""The admin site: its name, and the order of its applications and models."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

FIRST: Final = ("enrollment", "auth", "authtoken")  # listed first; the others follow by name
FIRST_MODELS: Final = ("Person", "FaceImage")
QUEUE: Final = "django_tasks_database"  # hidden unless tasks are queued in SQL

# Django's Portuguese calls people and pictures "o" and "removido", to change "modificar"; our catalogue has our
# words for these.
gettext_noop("Delete selected %(verbose_name_plural)s")
gettext_noop("Delete multiple objects")
gettext_noop("Delete?")
gettext_noop("Change %s")
gettext_noop("Select %s to change")
gettext_noop("Successfully deleted %(count)d %(items)s.")
gettext_noop("The %(name)s “%(obj)s” was deleted successfully.")
gettext_noop("The {name} “{obj}” was added successfully.")
gettext_noop("The {name} “{obj}” was added successfully. You may add another {name} below.")
gettext_noop("The {name} “{obj}” was changed successfully.")
gettext_noop("The {name} “{obj}” was changed successfully. You may edit it again below.")
gettext_noop("The {name} “{obj}” was changed successfully. You may add another {name} below.")
gettext_noop("%(name)s with ID “%(key)s” doesn’t exist. Perhaps it was deleted?")
gettext_noop(
    'Are you sure you want to delete the %(object_name)s "%(escaped_object)s"? '
    "All of the following related items will be deleted:"
)
gettext_noop(
    "Are you sure you want to delete the selected %(objects_name)s? "
    "All of the following objects and their related items will be deleted:"
)
gettext_noop(
    "Items must be selected in order to perform actions on them. No items have been changed."
)
gettext_noop("Select all %(total_count)s %(module_name)s")


class FaceAdminSite(admin.AdminSite):
    site_header = site_title = _("Face recognition")
    index_title = _("Administration")
    site_url = None  # templates/admin/base_site.html links to the pages by name

    def get_app_list(
        self, request: HttpRequest, app_label: str | None = None
    ) -> list[dict[str, Any]]:
        apps = super().get_app_list(request, app_label)
        if settings.TASKS_BACKEND != "database":
            apps = [app for app in apps if app["app_label"] != QUEUE]
        for app in apps:
            if app["app_label"] == "authtoken":  # beside our own tokens
                app["name"] = app["models"][0]["name"] = _("Tokens of version 1.0")
            app["models"].sort(key=lambda model: _place(model["object_name"], FIRST_MODELS))
        return sorted(apps, key=lambda app: _place(app["app_label"], FIRST))


def _place(name: str, first: tuple[str, ...]) -> int:
    return first.index(name) if name in first else len(first)
