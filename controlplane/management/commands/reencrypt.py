"""``manage.py reencrypt``: write stored secrets anew with the present SECRET_KEY."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError

from controlplane.models import Workspace


class Command(BaseCommand):
    """After it has run, SECRET_KEY_FALLBACKS is no longer needed."""

    help = "Encrypt stored VNC passwords anew with the present SECRET_KEY."

    def handle(self, *args: Any, **options: Any) -> None:
        """Rewrite what can be read; name what cannot."""
        secrets = list(Workspace.objects.exclude(vnc_password=""))
        unreadable = [each.slug for each in secrets if each.has_unreadable_password]
        for workspace in secrets:
            if not workspace.has_unreadable_password:
                # Only this column: nobody's concurrent change to the others is overwritten.
                workspace.save(update_fields=["vnc_password"])
        self.stdout.write(f"{len(secrets) - len(unreadable)} password(s) encrypted anew")
        if unreadable:
            raise CommandError(
                f"No key fits the passwords of: {', '.join(unreadable)}. "
                "Add the former SECRET_KEY to SECRET_KEY_FALLBACKS, or set them anew."
            )
