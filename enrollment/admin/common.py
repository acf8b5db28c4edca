"""What the lists of persons and of pictures have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from enrollment.models import VectorDeletion


def thumbnail(picture_id: int) -> SafeString:
    """The small picture, linked to its page in the admin."""
    return format_html(
        '<a href="{}"><img class="thumbnail" loading="lazy" alt="{}" src="{}?size=icon"></a>',
        reverse("admin:enrollment_faceimage_change", args=[picture_id]),
        _("picture"),
        reverse("picture", args=[picture_id]),
    )


class GalleryAdmin(admin.ModelAdmin):
    actions = ["sync_selected"]
    list_per_page = 50

    class Media:
        css = {"all": ["enrollment/admin.css"]}

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method == "GET" and (count := VectorDeletion.objects.count()):
            text = ngettext(
                "%(count)d deleted vector is still in Milvus (searches pass over it). Choose “Sync "
                "again” for any row or run 'manage.py reindex' once Milvus answers.",
                "%(count)d deleted vectors are still in Milvus (searches pass over them). Choose “Sync "
                "again” for any row or run 'manage.py reindex' once Milvus answers.",
                count,
            )
            messages.warning(request, text % {"count": count})
        return super().changelist_view(request, *args, **kwargs)

    @admin.action(description=_("Sync again with Milvus"), permissions=["change"])
    def sync_selected(self, request: HttpRequest, queryset: Any) -> None:
        self.sync_again(request, queryset)

    def get_deleted_objects(self, objs: Iterable[Any], request: HttpRequest) -> tuple[Any, ...]:
        """One line for each object: what goes with it is counted, not listed."""
        _listing, counts, lacking, protected = super().get_deleted_objects(objs, request)
        return [self.describe_deletion(item) for item in objs], counts, lacking, protected
