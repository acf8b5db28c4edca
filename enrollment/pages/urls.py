"""URLs of the HTML pages."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path
from django.views.generic import RedirectView

from enrollment.pages import answers, desk, gallery, help, inbox, many, people, views, work

urlpatterns = [
    path("", views.search, name="search"),
    path("answers/<str:numbers>", answers.answers, name="answers"),
    path("answers/<slug:number>/<int:place>", answers.act, name="answer-face"),
    path("compare", views.compare, name="compare"),
    path("pictures/<int:pk>", views.picture, name="picture"),
    path("help/", RedirectView.as_view(pattern_name="help"), {"name": help.CHAPTERS[0]}),
    path("help/<slug:name>", help.chapter, name="help"),
    path("people/", gallery.gallery, name="people"),
    path("people/suggest", gallery.suggest, name="people-suggest"),
    path("people/many", many.many, name="people-many"),
    path("people/new", gallery.new_person, name="person-new"),
    path("inbox/", inbox.page, name="inbox"),
    path("inbox/undo", inbox.undo, name="inbox-undo"),
    path("people/doubts", work.doubts, name="doubts"),
    path("people/audit", work.audit, name="audit"),
    path("people/import", work.upload, name="import-upload"),
    path("people/import/<slug:token>", work.run, name="import-run-before"),
    path("imports/", work.imports, name="imports"),
    path("imports/<int:token>", work.run, name="import-run"),
    path("imports/<int:token>/files/<int:pk>", work.imported_file, name="import-file"),
    path("people/trash", work.trash, name="trash"),
    path("people/trash/<int:pk>/undo", work.undo, name="trash-undo"),
    path("people/trash/<int:pk>/erase", work.erase, name="trash-erase"),
    path("people/<int:pk>/", people.person, name="person"),
    path("people/<int:pk>/details", people.details, name="person-details"),
    path("people/<int:pk>/add", people.add_pictures, name="person-add-pictures"),
    path("people/<int:pk>/cover", people.choose_cover, name="person-cover"),
    path("people/<int:pk>/move", people.move_pictures, name="person-move-pictures"),
    path("people/<int:pk>/face", people.choose_face, name="person-face"),
    path("people/<int:pk>/faces", work.faces, name="person-faces"),
    path("people/<int:pk>/remove", people.delete_pictures, name="person-delete-pictures"),
    path("people/<int:pk>/merge", people.merge, name="person-merge"),
    path("people/<int:pk>/delete", people.delete_person, name="person-delete"),
    path("people/<int:pk>/access", desk.access, name="person-access"),
    path("people/<int:pk>/export", desk.export, name="person-export"),
    path("people/<int:pk>/correction", desk.correction, name="person-correction"),
    path("people/<int:pk>/erasure", desk.erasure, name="person-erasure"),
    path("people/<int:pk>/consents", desk.consents, name="person-consents"),
    path("people/<int:pk>/consents/<int:number>", desk.document, name="person-document"),
    path("login", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("password", views.ChangePasswordView.as_view(), name="password"),
    path("logout", LogoutView.as_view(next_page="search"), name="logout"),
]
