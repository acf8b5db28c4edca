"""The pages: search, pictures, and the login for those who need one."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from enrollment import views

urlpatterns = [
    path("", views.search, name="search"),
    path("pictures/<int:pk>", views.picture, name="picture"),
    path(
        "login", views.own_page(LoginView.as_view(redirect_authenticated_user=True)), name="login"
    ),
    path("logout", LogoutView.as_view(next_page="search"), name="logout"),
]
