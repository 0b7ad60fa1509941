"""The routes of the pages and of the API."""

from django.urls import path

from controlplane import views
from controlplane.api import api

urlpatterns = [
    path("", views.workspaces, name="workspaces"),
    path("workspaces/<slug:slug>/", views.display, name="display"),
    path("workspaces/<slug:slug>/embed", views.embed, name="embed"),
    path("api/", api.urls),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("metrics", views.metrics, name="metrics"),
]
