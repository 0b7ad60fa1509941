"""``manage.py reencrypt``: write stored secrets anew with the present SECRET_KEY."""

from __future__ import annotations

from typing import Any

from allauth.mfa.models import Authenticator
from django.core.management import BaseCommand, CommandError

from controlplane import secondfactor
from controlplane.models import SECRET_FIELDS, Webhook, Workspace


class Command(BaseCommand):
    """After it has run, SECRET_KEY_FALLBACKS is no longer needed."""

    help = "Encrypt stored secrets (of desktops, webhooks and second factors) anew."

    def handle(self, *args: Any, **options: Any) -> None:
        """Rewrite what can be read; name what cannot."""
        workspaces = list(Workspace.objects.all())
        webhooks = list(Webhook.objects.all())
        factors = list(Authenticator.objects.values_list("pk", flat=True))
        written = sum(map(_reencrypt, workspaces)) + sum(map(_reencrypt_webhook, webhooks))
        written += sum(map(secondfactor.reencrypt, factors))
        self.stdout.write(f"{written} secret(s) encrypted anew")
        unreadable = [each.slug for each in workspaces if each.unreadable_secrets]
        unreadable += [f"webhook {each.name}" for each in webhooks if not each.is_secret_readable]
        unreadable += secondfactor.unreadable(Authenticator.objects.select_related("user"))
        if unreadable:
            raise CommandError(
                f"No key fits the secrets of: {', '.join(unreadable)}. "
                "Add the former SECRET_KEY to SECRET_KEY_FALLBACKS, or set them anew."
            )


def _reencrypt(workspace: Workspace) -> int:
    """Write the readable secrets again, and nothing else: nobody's change is overwritten."""
    lost = workspace.unreadable_secrets
    readable = [each for each in SECRET_FIELDS if getattr(workspace, each) and each not in lost]
    if readable:
        workspace.save(update_fields=readable)
    return len(readable)


def _reencrypt_webhook(webhook: Webhook) -> int:
    if not webhook.is_secret_readable:
        return 0
    webhook.save(update_fields=["secret"])
    return 1
