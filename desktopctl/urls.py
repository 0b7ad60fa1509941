"""The routes of the project: the control plane's, accounts and the admin."""

from django.conf import settings
from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import include, path

from controlplane import conf, views
from controlplane.signin import pages as signinpages
from controlplane.signin import secondfactorpages

urlpatterns = [
    path("admin/login/", signinpages.admin_sign_in),  # before the admin's own
    path("admin/", admin.site.urls),
    path("accounts/login/", signinpages.SignIn.as_view(), name="login"),
    path("accounts/logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("words.js", views.Words.as_view(), name="words"),
    path("accounts/signed-in/", views.signed_in, name="signed_in"),
    path("", include("controlplane.urls")),
]
# Of django-allauth's pages, only what is in use here. They have the names that it looks for.
if settings.OIDC_ISSUER:
    _there = {"provider_id": settings.OIDC_ISSUER}
    urlpatterns += [
        path("accounts/oidc/", signinpages.provider_begin, name="provider_begin"),
        path(
            "accounts/oidc/callback/",
            signinpages.provider_callback,
            _there,
            name="openid_connect_callback",
        ),
    ]

if settings.SIGNIN_TOTP != conf.TOTP_OFF:
    urlpatterns += [
        path("accounts/code/", secondfactorpages.code, name="code"),
        path("accounts/second-factor/", secondfactorpages.second_factor, name="second_factor"),
    ]

handler500 = "controlplane.views.server_error"
