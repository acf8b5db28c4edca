"""Persons in the admin: the list, and the page to edit a person and upload pictures."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.db.models import Exists, OuterRef, QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from import_export.admin import ImportExportMixin

from enrollment import corrections, enrolling, journal
from enrollment.admin.common import CsvAndJson, GalleryAdmin, RowTooLong, thumbnail
from enrollment.admin.forms import PersonForm
from enrollment.admin.merge_action import merge_selected
from enrollment.admin.pictures import FaceImageInline, PictureStateFilter
from enrollment.admin.resources import PersonExportResource, PersonResource
from enrollment.admin.states import person_badges, person_sync_state, with_pictures
from enrollment.corrections import CHANGEABLE
from enrollment.gallery import DUE_SOON, persons_due
from enrollment.models import Doubt, FaceImage, Person
from enrollment.web import (
    Place,
    audit_report,
    choose_faces,
    enroll_files,
    import_pictures,
    import_run,
    may_import,
    say_in_trash,
    say_mistakable,
    say_synced,
    undecided,
)

UPLOAD_FIELDS = ["pictures", "use_face_detection"]
HERE = Place(
    upload="admin:enrollment_import_pictures",
    run="admin:enrollment_import_run",
    audit="admin:enrollment_audit",
    persons="admin:enrollment_person_changelist",
    person="admin:enrollment_person_change",
    picture="admin:enrollment_faceimage_change",
    faces="admin:enrollment_person_faces",
    undo="admin:enrollment_trashitem_undo",
    source=FaceImage.Source.ADMIN,
    templates="admin/enrollment/work",
    context=admin.site.each_context,
)


class PersonStateFilter(PictureStateFilter):
    state = staticmethod(person_sync_state)


class ExistenceFilter(admin.SimpleListFilter):
    """People of whom something exists, or does not."""

    having: Exists

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("Yes")), ("no", _("No"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Person]) -> QuerySet[Person]:
        if self.value() == "yes":
            return queryset.filter(self.having)
        return queryset.filter(~self.having) if self.value() == "no" else queryset


class HasPicturesFilter(ExistenceFilter):
    title = _("pictures")
    parameter_name = "pictures"
    having = Exists(FaceImage.objects.filter(person=OuterRef("pk")))


class DoubtfulPicturesFilter(ExistenceFilter):
    title = _("doubtful pictures")
    parameter_name = "doubtful"
    having = Exists(Doubt.objects.filter(face_image__person=OuterRef("pk")))


class RetentionFilter(admin.SimpleListFilter):
    title = _("retention")
    parameter_name = "retention"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("soon", _("deleted within 30 days")),
            ("endless", _("no last day")),
            ("baseless", _("no legal basis")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Person]) -> QuerySet[Person]:
        match self.value():
            case "soon":
                return queryset.filter(pk__in=persons_due(DUE_SOON))
            case "endless":
                return queryset.filter(keep_until=None)
            case "baseless":
                return queryset.filter(legal_basis="")
        return queryset


@admin.register(Person)
class PersonAdmin(CsvAndJson, ImportExportMixin, GalleryAdmin):
    resource_classes = [PersonResource]
    import_template_name = "admin/enrollment/person/import.html"
    import_export_change_list_template = "admin/enrollment/person/change_list.html"
    actions = ["merge_selected", *GalleryAdmin.actions]
    form = PersonForm
    list_display = ["thumbnail", "person_id", "name", "picture_count", "states", "created_at"]
    list_display_links = ["person_id"]
    list_filter = [
        PersonStateFilter,
        DoubtfulPicturesFilter,
        HasPicturesFilter,
        RetentionFilter,
        "created_at",
    ]
    search_fields = ["search_text"]
    person_path = ""
    inlines = [FaceImageInline]
    readonly_fields = ["all_pictures", "found_by"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Person]:
        return with_pictures(super().get_queryset(request))

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        own = [
            path("audit/", view(audit_report), {"place": HERE}, "enrollment_audit"),
            path(
                "import-pictures/",
                view(import_pictures),
                {"place": HERE},
                "enrollment_import_pictures",
            ),
            path(
                "import-pictures/<slug:token>/",
                view(import_run),
                {"place": HERE},
                "enrollment_import_run",
            ),
            path("<int:pk>/faces/", view(choose_faces), {"place": HERE}, "enrollment_person_faces"),
        ]
        return [*own, *super().get_urls()]

    def add_data_read_fail_error_to_form(self, form: Form, error: Exception) -> None:
        form.add_error(
            "import_file",
            str(error)
            if isinstance(error, RowTooLong)
            else gettext(
                "The file cannot be read. Choose the format that it has; a CSV is expected in UTF-8 "
                "(in a spreadsheet: save as “CSV UTF-8”)."
            ),
        )

    def get_export_resource_classes(self, request: HttpRequest) -> list[type[PersonResource]]:
        return [PersonExportResource]

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        extra = kwargs.pop("extra_context", None) or {}
        extra["may_import_pictures"] = may_import(request)
        return super().changelist_view(request, *args, extra_context=extra, **kwargs)

    @admin.action(description=_("Merge selected people…"), permissions=["delete"])
    def merge_selected(self, request: HttpRequest, queryset: QuerySet[Person]) -> Any:
        return merge_selected(self, request, queryset)

    def get_fieldsets(self, request: HttpRequest, obj: Person | None = None) -> Any:
        described = [*CHANGEABLE]
        described += ["all_pictures"] if obj else []
        if obj and request.user.has_perm("enrollment.view_searchentry"):
            described.append("found_by")
        fieldsets = [(None, {"fields": described})]
        if self._may_upload(request, obj):
            fieldsets.append((_("Add pictures"), {"fields": UPLOAD_FIELDS}))
        return fieldsets

    def get_inlines(self, request: HttpRequest, obj: Person | None) -> list[Any]:
        return self.inlines if obj else []

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        with journal.changes() if request.method == "POST" else nullcontext():
            response = super().changeform_view(request, *args, **kwargs)
        # Enrol after the commit: only committed rows may be copied to Milvus.
        enroll = getattr(request, "enroll_pictures", None)
        return enroll(response) if enroll else response

    @staticmethod
    def _enroll(request: HttpRequest, form: Any, response: HttpResponse) -> HttpResponse:
        """Enrol the uploaded pictures; redirect to the choice of faces if any picture needs one."""
        waits = enroll_files(
            request,
            form.instance,
            form.cleaned_data["pictures"],
            use_face_detection=form.cleaned_data["use_face_detection"],
            source=HERE.source,
        )
        leads_on = isinstance(response, HttpResponseRedirect)  # unlike what closes a popup
        return redirect(HERE.faces, form.instance.pk) if waits and leads_on else response

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        if obj and request.method == "GET":
            journal.note_look(obj)
        if obj and request.method == "GET" and (text := undecided(request, obj)):
            address, link = reverse(HERE.faces, args=[obj.pk]), gettext("Choose the face…")
            messages.warning(request, format_html('{} <a href="{}">{}</a>', text, address, link))
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def save_model(self, request: HttpRequest, obj: Person, form: Any, change: bool) -> None:
        corrections.save_person(obj)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        formset.save(commit=False)  # its rows can only be deleted
        ids = [row.pk for row in formset.deleted_objects]
        say_in_trash(request, [corrections.delete_pictures(form.instance, ids)], undo=HERE.undo)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if not change:
            say_mistakable(request, form.instance)
        person, files = form.instance, form.cleaned_data.get("pictures")
        if files and self._may_upload(request, person if change else None):
            request.enroll_pictures = partial(self._enroll, request, form)

    def _may_upload(self, request: HttpRequest, person: Person | None) -> bool:
        writes = (
            self.has_change_permission(request, person)
            if person
            else self.has_add_permission(request)
        )
        return writes and request.user.has_perm("enrollment.add_faceimage")

    def delete_model(self, request: HttpRequest, obj: Person) -> None:
        say_in_trash(request, [corrections.delete_person(obj)], undo=HERE.undo)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Person]) -> None:
        with journal.changes():
            done = [corrections.delete_person(person) for person in queryset]
        say_in_trash(request, done, undo=HERE.undo)

    def sync_again(self, request: HttpRequest, queryset: QuerySet[Person]) -> None:
        pictures = FaceImage.objects.filter(person__in=queryset.values("pk"))
        say_synced(request, enrolling.sync_again(pictures))

    def describe_deletion(self, person: Person) -> str:
        text = ngettext(
            "%(person)s with %(count)d picture, its file and what was computed from it",
            "%(person)s with %(count)d pictures, their files and what was computed from them",
            person.picture_count,
        )
        return text % {"person": person, "count": person.picture_count}

    @admin.display(description="")
    def thumbnail(self, person: Person) -> SafeString | str:
        return thumbnail(person.shown_picture) if person.shown_picture else ""

    @admin.display(description=_("pictures"), ordering="picture_count")
    def picture_count(self, person: Person) -> int:
        return person.picture_count

    @admin.display(description=_("state"))
    def states(self, person: Person) -> SafeString:
        return person_badges(person)

    @admin.display(description=_("all pictures"))
    def all_pictures(self, person: Person) -> SafeString:
        text = ngettext("%(count)d picture", "%(count)d pictures", person.picture_count)
        return format_html(
            '<a href="{}?person__id__exact={}">{}</a> {}',
            reverse("admin:enrollment_faceimage_changelist"),
            person.pk,
            text % {"count": person.picture_count},
            person_badges(person),
        )

    @admin.display(description=_("searches"))
    def found_by(self, person: Person) -> SafeString:
        count = person.search_entries.count()
        text = ngettext(
            "%(count)d search found this person first",
            "%(count)d searches found this person first",
            count,
        )
        return format_html(
            '<a href="{}?person__id__exact={}">{}</a>',
            reverse("admin:enrollment_searchentry_changelist"),
            person.pk,
            text % {"count": count},
        )
