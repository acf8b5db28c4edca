"""Accounts and groups in the admin. No manager can grant permissions that they do not have."""

from __future__ import annotations

from typing import Any

from axes.utils import reset
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from enrollment.admin.tick_boxes import PermissionsField, TickBoxes


def permissions_of(user: Any) -> QuerySet[Permission]:
    """Return the permissions of the user and of their groups, even if the account is inactive."""
    if user.is_superuser:
        return Permission.objects.all()
    return Permission.objects.filter(Q(user=user) | Q(group__user=user)).distinct()


def may_manage(manager: Any, user: Any) -> bool:
    """Return whether the manager has every permission that the user has."""
    if manager.is_superuser:
        return True
    more = permissions_of(user).exclude(pk__in=permissions_of(manager).values("pk"))
    return not user.is_superuser and not more.exists()


def manageable_groups(manager: Any) -> QuerySet[Group]:
    """Return the groups whose permissions the manager has."""
    more = Permission.objects.exclude(pk__in=permissions_of(manager).values("pk"))
    return Group.objects.exclude(permissions__in=more)


class WithinOwnRights(admin.ModelAdmin):
    """Offer only permissions of the manager, and groups without any other permission."""

    filter_horizontal = ()

    def manages(self, manager: Any, obj: Any) -> bool:
        raise NotImplementedError

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed = super().has_change_permission(request, obj)
        return allowed and (obj is None or self.manages(request.user, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed = super().has_delete_permission(request, obj)
        return allowed and (obj is None or self.manages(request.user, obj))

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field and db_field.name == "groups":
            field.widget.can_add_related = False  # what a popup made would have no box
        return field

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["widget"] = TickBoxes(db_field.verbose_name)
        if db_field.remote_field.model is Permission:
            kwargs["form_class"] = PermissionsField
        field = super().formfield_for_manytomany(db_field, request, **kwargs)
        if field is None or field.queryset is None:
            return field
        if db_field.remote_field.model is Permission:
            allowed = permissions_of(request.user).values("pk")
            field.queryset = field.queryset.filter(pk__in=allowed)
        elif db_field.remote_field.model is Group:
            field.queryset = field.queryset.filter(pk__in=manageable_groups(request.user))
        return field


admin.site.unregister([User, Group])


@admin.register(User)
class AccountAdmin(WithinOwnRights, UserAdmin):
    actions = ["unlock"]

    def manages(self, manager: Any, obj: User) -> bool:
        return may_manage(manager, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return fields if request.user.is_superuser else [*fields, "is_superuser"]

    @admin.action(description=_("Forget their wrong passwords"), permissions=["change"])
    def unlock(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        names = [user.get_username() for user in queryset]
        for name in names:
            reset(username=name)
        text = ngettext(
            "%(count)d account may log in at once.",
            "%(count)d accounts may log in at once.",
            len(names),
        )
        messages.success(request, text % {"count": len(names)})


@admin.register(Group)
class RoleAdmin(WithinOwnRights, GroupAdmin):
    def manages(self, manager: Any, obj: Group) -> bool:
        return manageable_groups(manager).filter(pk=obj.pk).exists()
