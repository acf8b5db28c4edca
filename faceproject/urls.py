"""The URLs of the whole project."""

from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

from faceproject.metrics import metrics
from recognition.api.urls import call
from recognition.api.views import RootView

handler400 = "faceproject.middleware.bad_request"

urlpatterns = [
    path("api/", include("recognition.api.urls")),
    path("api/", include("enrollment.api.urls")),
    *call("api", RootView.as_view(), "api-root"),
    path("", include("enrollment.pages.urls")),
    path("favicon.ico", RedirectView.as_view(url=static("faceproject/logo.svg"))),
    path("admin/", admin.site.urls),
    path("metrics", metrics),
    path("i18n/", include("django.conf.urls.i18n")),
]
