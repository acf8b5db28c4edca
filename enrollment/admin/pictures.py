"""Pictures in the admin: the list, the page of a picture, and the rows on a person's page."""

from __future__ import annotations

from typing import Any

import numpy as np
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Exists, OuterRef, QuerySet
from django.forms import BaseInlineFormSet
from django.forms.formsets import DELETION_FIELD_NAME
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from enrollment import corrections, enrolling, journal
from enrollment.admin.common import GalleryAdmin, thumbnail
from enrollment.admin.dates import DatedAdmin
from enrollment.admin.states import SyncState, badge, is_doubtful, picture_badges, sync_state
from enrollment.gallery import data_uri, read_picture, with_states
from enrollment.judging import dismiss_doubts
from enrollment.models import Doubt, FaceEmbedding, FaceImage, Person
from enrollment.web import say_dismissed, say_in_trash, say_synced
from recognition.alignment import align_face, whole_picture
from recognition.exceptions import RecognitionError
from recognition.imaging import read_image
from recognition.networks import NETWORKS

SHOWN_WITH_PERSON = 100
UNDO = "admin:enrollment_trashitem_undo"
QUALITY_LABELS = {
    "no_face": _("No face found"),
    "low_score": _("Hardly a face"),
    "small_face": _("Small face"),
    "blurred": _("Blurred"),
    "too_dark": _("Too dark"),
    "too_bright": _("Too bright"),
    "low_contrast": _("Little contrast"),
    "turned_away": _("Turned away"),
    "tilted": _("Tilted"),
    "not_live": _("Picture of a picture"),
    "several_faces": _("Several faces"),
}


class NewestPicturesFormSet(BaseInlineFormSet):
    """A formset of the newest pictures only: forms are limited to 1,000 fields."""

    def __init__(self, data: Any = None, *args: Any, **kwargs: Any) -> None:
        if data is None:
            pictures = FaceImage.objects.filter(person=kwargs["instance"].pk).order_by("-pk")
            newest = list(pictures.values_list("pk", flat=True)[:SHOWN_WITH_PERSON])
            kwargs["queryset"] = kwargs["queryset"].filter(pk__in=newest)
        super().__init__(data, *args, **kwargs)

    def add_fields(self, form: Any, index: int | None) -> None:
        super().add_fields(form, index)
        if delete := form.fields.get(DELETION_FIELD_NAME):  # only its column has a label
            delete.widget.attrs["aria-label"] = gettext("Delete %(picture)s") % {
                "picture": form.instance
            }


class FaceImageInline(admin.TabularInline):
    model = FaceImage
    formset = NewestPicturesFormSet
    verbose_name_plural = _("newest pictures")
    fields = readonly_fields = ["thumbnail", "states", "source", "created_at"]
    ordering = ["-pk"]
    extra = 0
    show_change_link = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[FaceImage]:
        return with_states(super().get_queryset(request))

    def has_add_permission(self, request: HttpRequest, obj: Person | None = None) -> bool:
        return False

    @admin.display(description=_("picture"))
    def thumbnail(self, picture: FaceImage) -> SafeString:
        return thumbnail(picture.pk)

    @admin.display(description=_("state"))
    def states(self, picture: FaceImage) -> SafeString:
        return picture_badges(picture)


class FaceEmbeddingInline(admin.TabularInline):
    """The embeddings of the picture, folded: what operators need stands above, in their words. The
    vectors are never shown."""

    model = FaceEmbedding
    verbose_name_plural = _("embeddings, one for each model")
    classes = ("collapse",)
    fields = readonly_fields = [
        "model",
        "fingerprint",
        "state",
        "face_detected",
        "reason",
        "indexed_at",
    ]
    can_delete = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[FaceEmbedding]:
        return super().get_queryset(request).defer("vector")

    def has_add_permission(self, request: HttpRequest, obj: FaceImage | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: FaceImage | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: FaceImage | None = None) -> bool:
        return True  # the picture's page checks its own permission

    @admin.display(description=_("state"))
    def state(self, row: FaceEmbedding) -> SafeString:
        return badge(row.status, row.get_status_display())

    @admin.display(description=_("error"))
    def reason(self, row: FaceEmbedding) -> str:
        return row.error_message


class PictureStateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"
    state = staticmethod(sync_state)  # what returns it as an annotation

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return SyncState.choices

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() in SyncState:
            return queryset.alias(sync_state=self.state()).filter(sync_state=self.value())
        return queryset


class ModelFilter(admin.SimpleListFilter):
    title = _("model that finds it")
    parameter_name = "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in NETWORKS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[FaceImage]) -> QuerySet[FaceImage]:
        return _having(queryset, model=self.value(), status="indexed") if self.value() else queryset


class FaceFoundFilter(admin.SimpleListFilter):
    title = _("face found")
    parameter_name = "face"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("Yes")), ("no", _("No, the whole picture was taken"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[FaceImage]) -> QuerySet[FaceImage]:
        found = {"yes": True, "no": False}.get(self.value())
        return queryset if found is None else _having(queryset, face_detected=found)


class DoubtFilter(admin.SimpleListFilter):
    title = _("doubts")
    parameter_name = "doubt"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        general = [("any", _("Any")), ("none", _("None")), ("unjudged", _("Not judged yet"))]
        return [*general, *Doubt.Resemblance.choices, *QUALITY_LABELS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[FaceImage]) -> QuerySet[FaceImage]:
        match self.value():
            case None:
                return queryset
            case "any":
                return queryset.filter(is_doubtful())
            case "none":
                return queryset.filter(~is_doubtful(), judged_at__isnull=False)
            case "unjudged":
                return queryset.filter(judged_at=None)
            case code:
                doubts = Doubt.objects.filter(face_image=OuterRef("pk"), code=code)
                return queryset.filter(Exists(doubts))


def _having(pictures: QuerySet[FaceImage], **embedding: Any) -> QuerySet[FaceImage]:
    rows = FaceEmbedding.objects.filter(face_image=OuterRef("pk"), **embedding)
    return pictures.filter(Exists(rows))


@admin.register(FaceImage)
class FaceImageAdmin(GalleryAdmin, DatedAdmin):
    list_display = ["thumbnail", "__str__", "person_link", "states", "source", "created_at"]
    list_display_links = ["__str__"]
    list_filter = [
        PictureStateFilter,
        DoubtFilter,
        FaceFoundFilter,
        ModelFilter,
        "source",
        "created_at",
    ]
    list_select_related = ["person"]
    search_fields = ["original_path", "content_hash"]
    date_hierarchy = "created_at"
    actions = [*GalleryAdmin.actions, "dismiss_doubts"]
    autocomplete_fields = ["person"]
    inlines = [FaceEmbeddingInline]
    shown_fields = ["shown", "crop", "state", "doubts", "source", "original_path", "size"]
    shown_fields += ["created_at"]
    technical_fields = ["faces", "use_face_detection", "content_hash"]
    fieldsets = [
        (None, {"fields": ["person", *shown_fields]}),
        (
            _("Details for the administrator"),
            {"fields": [*technical_fields], "classes": ["collapse"]},
        ),
    ]
    readonly_fields = [*shown_fields, *technical_fields]

    def get_queryset(self, request: HttpRequest) -> QuerySet[FaceImage]:
        return with_states(super().get_queryset(request))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # pictures are added on their person's page

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, obj: Any = None, **kwargs: Any
    ) -> Any:
        if obj and request.method == "GET":
            journal.note_look(obj.person, picture=obj.pk)
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def save_model(self, request: HttpRequest, obj: FaceImage, form: Any, change: bool) -> None:
        say_in_trash(request, [corrections.move_pictures([obj.pk], obj.person)], undo=UNDO)

    def delete_model(self, request: HttpRequest, obj: FaceImage) -> None:
        say_in_trash(request, [corrections.delete_pictures(obj.person, [obj.pk])], undo=UNDO)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[FaceImage]) -> None:
        by_person: dict[Person, list[int]] = {}
        for picture in queryset.select_related("person").order_by("person"):
            by_person.setdefault(picture.person, []).append(picture.pk)
        with journal.changes():
            done = [corrections.delete_pictures(person, ids) for person, ids in by_person.items()]
        say_in_trash(request, done, undo=UNDO)

    def sync_again(self, request: HttpRequest, queryset: QuerySet[FaceImage]) -> None:
        say_synced(request, enrolling.sync_again(queryset))

    def describe_deletion(self, picture: FaceImage) -> str:
        return gettext("%(picture)s of %(person)s, its file and what was computed from it") % {
            "picture": picture,
            "person": picture.person,
        }

    @admin.display(description="")
    def thumbnail(self, picture: FaceImage) -> SafeString:
        return thumbnail(picture.pk)

    @admin.display(description=_("person"), ordering="person__person_id")
    def person_link(self, picture: FaceImage) -> SafeString:
        url = reverse("admin:enrollment_person_change", args=[picture.person_id])
        return format_html('<a href="{}">{}</a>', url, picture.person)

    @admin.display(description=_("state"))
    def states(self, picture: FaceImage) -> SafeString:
        return picture_badges(picture)

    @admin.display(description=_("state"))
    def state(self, picture: FaceImage) -> SafeString:
        reasons = {row.error_message for row in picture.embeddings.all()} - {""}
        lines = format_html_join("", "<p>{}</p>", ((reason,) for reason in sorted(reasons)))
        return picture_badges(picture) + lines

    @admin.display(description=_("picture"))
    def shown(self, picture: FaceImage) -> str:
        context = {"picture": picture, "faces": _faces(picture)}
        return render_to_string("admin/enrollment/faceimage/picture.html", context)

    @admin.display(description=_("aligned face"))
    def crop(self, picture: FaceImage) -> str:
        context = {"uri": _crop_uri(picture)}
        return render_to_string("admin/enrollment/faceimage/crop.html", context)

    @admin.display(description=_("doubts"))
    def doubts(self, picture: FaceImage) -> str:
        doubts = Doubt.with_dismissed.filter(face_image=picture).select_related("other__person")
        context = {"picture": picture, "doubts": doubts}
        return render_to_string("admin/enrollment/faceimage/doubts.html", context)

    @admin.action(description=_("Dismiss the doubts: I looked"), permissions=["change"])
    def dismiss_doubts(self, request: HttpRequest, queryset: QuerySet[FaceImage]) -> Any:
        doubts = Doubt.objects.filter(face_image__in=queryset.values("pk"))
        if "confirmed" not in request.POST:
            return self._ask_to_dismiss(request, doubts)
        count = dismiss_doubts(queryset, request.user.get_username())
        say_dismissed(request, count)

    def _ask_to_dismiss(self, request: HttpRequest, doubts: QuerySet[Doubt]) -> TemplateResponse:
        pictures = FaceImage.objects.filter(pk__in=doubts.values("face_image"))
        context = self.admin_site.each_context(request) | {
            "title": gettext("Dismiss the doubts: I looked"),
            "opts": self.opts,
            "media": self.media,
            "doubts": doubts.count(),
            "count": pictures.count(),
            "pictures": pictures[:SHOWN_WITH_PERSON],
            "checkbox": ACTION_CHECKBOX_NAME,
            "chosen": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
        }
        return TemplateResponse(request, "admin/enrollment/faceimage/dismiss.html", context)

    @admin.display(description=_("face"))
    def faces(self, picture: FaceImage) -> str:
        rows = picture.embeddings.all()
        context = {"picture": picture, "faces": _faces(picture), "embeddings": rows}
        return render_to_string("admin/enrollment/faceimage/faces.html", context)

    @admin.display(description=_("size"))
    def size(self, picture: FaceImage) -> str:
        return gettext("%(width)d×%(height)d pixels") % {
            "width": picture.width,
            "height": picture.height,
        }


def _crop_uri(picture: FaceImage) -> str:
    """Return the network's input for the picture as a `data:` URI; empty if the file is unreadable."""
    faces = _faces(picture)
    try:
        pixels = read_image(read_picture(picture)).pixels
        landmarks = faces and np.array(faces[0]["landmarks"], np.float32)
        return data_uri(align_face(pixels, landmarks) if faces else whole_picture(pixels))
    except (RecognitionError, ValueError):
        return ""


def _faces(picture: FaceImage) -> list[dict[str, Any]]:
    """Return each face once, although the embedding of every model stores it."""
    found: list[dict[str, Any]] = []
    for row in picture.embeddings.all():
        if row.face and row.face not in found:
            found.append(row.face)
    return found
