"""URLs of the endpoints that use the gallery."""

from django.urls import register_converter

from enrollment.api import desk, inbox, jobs, journal, persons, probes, trash, views
from enrollment.api.paths import PersonIdConverter
from recognition.api.urls import call

register_converter(PersonIdConverter, "person_id")

urlpatterns = [
    *call("milvus/insert", views.InsertView.as_view(), "api-milvus-insert"),
    *call("milvus/search", probes.SearchView.as_view(), "api-milvus-search"),
    *call("verify", probes.VerifyView.as_view(), "api-verify"),
    *call("journal", journal.JournalView.as_view(), "api-journal"),
    *call("inbox", inbox.InboxView.as_view(), "api-inbox"),
    *call("inbox/<slug:key>/face", inbox.InboxFaceView.as_view(), "api-inbox-face"),
    *call("inbox/<slug:key>", inbox.InboxCardView.as_view(), "api-inbox-card"),
    *call("feedback", inbox.FeedbackView.as_view(), "api-feedback"),
    *call("jobs", jobs.JobsView.as_view(), "api-jobs"),
    *call("jobs/<int:number>", jobs.JobView.as_view(), "api-job"),
    *call("jobs/<int:number>/files", jobs.JobFilesView.as_view(), "api-job-files"),
    *call("jobs/<int:number>/<slug:act>", jobs.JobActView.as_view(), "api-job-act"),
    *call("milvus/stats", views.StatsView.as_view(), "api-milvus-stats"),
    *call("persons", persons.PersonsView.as_view(), "api-persons"),
    # Longer paths first, because a person id may contain slashes.
    *call(
        "persons/<person_id:person_id>/images/<int:image_id>",
        persons.PersonImageView.as_view(),
        "api-person-image",
    ),
    *call(
        "persons/<person_id:person_id>/images",
        persons.PersonImagesView.as_view(),
        "api-person-images",
    ),
    *call(
        "persons/<person_id:person_id>/export", desk.PersonExportView.as_view(), "api-person-export"
    ),
    *call(
        "persons/<person_id:person_id>/consents/<int:number>",
        desk.ConsentView.as_view(),
        "api-person-consent",
    ),
    *call(
        "persons/<person_id:person_id>/consents",
        desk.ConsentsView.as_view(),
        "api-person-consents",
    ),
    *call(
        "persons/<person_id:person_id>/merge", persons.PersonMergeView.as_view(), "api-person-merge"
    ),
    *call(
        "persons/<person_id:person_id>/restore",
        trash.PersonRestoreView.as_view(),
        "api-person-restore",
    ),
    *call("persons/<person_id:person_id>", persons.PersonView.as_view(), "api-person"),
    *call("trash", trash.TrashView.as_view(), "api-trash"),
    *call("trash/<int:item_id>/undo", trash.TrashUndoView.as_view(), "api-trash-undo"),
    *call("trash/<int:item_id>", trash.TrashItemView.as_view(), "api-trash-item"),
]
