"""The calls about the gallery."""

from enrollment.api import views
from recognition.api.urls import call

urlpatterns = [
    *call("milvus/insert", views.InsertView.as_view(), "api-milvus-insert"),
    *call("milvus/search", views.SearchView.as_view(), "api-milvus-search"),
    *call("milvus/stats", views.StatsView.as_view(), "api-milvus-stats"),
]
