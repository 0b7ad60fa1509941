"""The routes of the project: the control plane's, accounts and the admin."""

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import include, path

from controlplane import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path(
        "accounts/login/",
        auth_views.LoginView.as_view(redirect_authenticated_user=True),
        name="login",
    ),
    path("accounts/logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("words.js", views.Words.as_view(), name="words"),
    path("accounts/signed-in/", views.signed_in, name="signed_in"),
    path("", include("controlplane.urls")),
]

handler500 = "controlplane.views.server_error"
