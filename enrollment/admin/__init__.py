"""The admin: where people are enrolled, and where it shows what could not be indexed."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from enrollment.admin.persons import PersonAdmin
from enrollment.admin.pictures import FaceImageAdmin

__all__ = ["FaceImageAdmin", "PersonAdmin"]

admin.site.site_header = admin.site.site_title = _("Face recognition")
admin.site.index_title = _("Administration")
admin.site.site_url = None  # templates/admin/base_site.html links to the pages by name
