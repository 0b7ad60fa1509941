"""The application's start: its signal receivers and its checks."""

from importlib import import_module

from django.apps import AppConfig


class ControlPlaneConfig(AppConfig):
    """The one app of desktopctl."""

    name = "controlplane"
    verbose_name = "Control plane"

    def ready(self) -> None:
        """Register what must be there before the first request."""
        import_module("controlplane.checks")  # registered by being imported
        import_module("controlplane.signals")
