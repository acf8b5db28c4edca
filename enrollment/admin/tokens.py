"""Access tokens in the admin: create, show once, revoke; and delete tokens of version 1.0."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, ClassVar, Final

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from rest_framework.authtoken.admin import TokenAdmin
from rest_framework.authtoken.models import TokenProxy

from enrollment.admin.accounts import may_manage
from enrollment.admin.common import TICKED
from enrollment.models import AccessToken
from enrollment.web import accounts_with_old_tokens

USUAL_DAYS: Final = 365


@admin.register(AccessToken)
class AccessTokenAdmin(admin.ModelAdmin):
    list_display = [
        "name",
        "user",
        "scope",
        "beginning",
        "created_at",
        "expires_at",
        "last_used_at",
    ]
    list_filter = ["scope", "expires_at", "last_used_at"]
    list_select_related = ["user"]
    search_fields = ["name", "user__username", "beginning"]
    fields = ["user", "name", "scope", "purposes", "expires_at"]
    formfield_overrides: ClassVar = TICKED

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: AccessToken | None = None) -> bool:
        allowed = super().has_delete_permission(request, obj)
        return allowed and (obj is None or may_manage(request.user, obj.user))

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        end = timezone.now() + timedelta(days=USUAL_DAYS)
        return {"expires_at": end} | super().get_changeform_initial_data(request)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "user":
            weaker = [each.pk for each in User.objects.all() if may_manage(request.user, each)]
            kwargs["queryset"] = User.objects.filter(pk__in=weaker).order_by("username")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: AccessToken, form: Any, change: bool) -> None:
        secret = obj.draw()
        super().save_model(request, obj, form, change)
        text = gettext("Give the program its token now; it is shown this once: %(token)s")
        messages.warning(request, text % {"token": secret})

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method == "GET" and (names := accounts_with_old_tokens()):
            text = gettext(
                "These accounts have tokens of version 1.0, which are kept readable and never end; make "
                "them new ones, then delete the old: %(names)s."
            )
            messages.warning(request, text % {"names": ", ".join(names)})
        return super().changelist_view(request, *args, **kwargs)


admin.site.unregister(TokenProxy)


@admin.register(TokenProxy)
class OldTokenAdmin(TokenAdmin):
    """The tokens of version 1.0, without showing their secrets."""

    list_display = ["user", "created", "revoke"]
    list_display_links = None
    actions = None  # the checkboxes of actions would contain the secrets
    list_select_related = ["user"]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return super().has_module_permission(request) and TokenProxy.objects.exists()

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        title = {"title": gettext("Tokens of version 1.0")}
        return super().changelist_view(request, extra_context=title)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None and super().has_view_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed = super().has_delete_permission(request, obj)
        return allowed and (obj is None or may_manage(request.user, obj.user))

    @admin.display(description="")
    def revoke(self, token: TokenProxy) -> SafeString:
        url = reverse("admin:authtoken_tokenproxy_delete", args=[token.user_id])
        return format_html('<a href="{}">{}</a>', url, _("delete"))

    def render_delete_form(self, request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
        context["object"] = context["object"].user
        return super().render_delete_form(request, context)

    def get_deleted_objects(self, objs: Iterable[Any], request: HttpRequest) -> tuple[Any, ...]:
        _listing, counts, lacking, protected = super().get_deleted_objects(objs, request)
        return [str(token.user) for token in objs], counts, lacking, protected
