"""Every entrance to the system."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("enrollment.urls")),
    path("admin/", admin.site.urls),
    path("i18n/", include("django.conf.urls.i18n")),
    path("api/", include("recognition.api.urls")),
    path("api/", include("enrollment.api.urls")),
]
