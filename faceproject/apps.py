from django.contrib.admin.apps import AdminConfig


class FaceAdminConfig(AdminConfig):
    default_site = "faceproject.admin_site.FaceAdminSite"
