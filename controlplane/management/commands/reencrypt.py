"""``manage.py reencrypt``: write stored secrets anew with the present SECRET_KEY."""

from __future__ import annotations

from typing import Any

from allauth.mfa.models import Authenticator
from django.core.management import BaseCommand, CommandError
from django.db import transaction
from django.db.models import Model

from controlplane.models import SECRET_FIELDS, Webhook, Workspace
from controlplane.signin import secondfactor
from controlplane.workspaces import configuring


class Command(BaseCommand):
    """After it has run, SECRET_KEY_FALLBACKS is no longer needed."""

    help = "Encrypt stored secrets (of desktops, webhooks and second factors) anew."

    def handle(self, *args: Any, **options: Any) -> None:
        """Rewrite what can be read; name what cannot."""
        written = sum(map(_reencrypt, Workspace.objects.values_list("slug", flat=True)))
        written += sum(map(_reencrypt_webhook, _keys(Webhook)))
        written += sum(map(secondfactor.reencrypt, _keys(Authenticator)))
        self.stdout.write(f"{written} secret(s) encrypted anew")
        webhooks = Webhook.objects.all()
        unreadable = [each.slug for each in Workspace.objects.all() if each.unreadable_secrets]
        unreadable += [f"webhook {each.name}" for each in webhooks if not each.is_secret_readable]
        unreadable += secondfactor.unreadable(Authenticator.objects.select_related("user"))
        if unreadable:
            raise CommandError(
                f"No key fits the secrets of: {', '.join(unreadable)}. "
                "Add the former SECRET_KEY to SECRET_KEY_FALLBACKS, or set them anew."
            )


def _keys(model: type[Model]) -> list[int]:
    return list(model._default_manager.values_list("pk", flat=True))


@transaction.atomic
def _reencrypt(slug: str) -> int:
    """Write the readable secrets again, and nothing else: nobody's change is overwritten."""
    workspace = configuring.lock(slug)
    if workspace is None:
        return 0
    lost = workspace.unreadable_secrets
    readable = [each for each in SECRET_FIELDS if getattr(workspace, each) and each not in lost]
    if readable:
        workspace.save(update_fields=readable)
    return len(readable)


@transaction.atomic
def _reencrypt_webhook(pk: int) -> int:
    webhook = Webhook.objects.select_for_update().filter(pk=pk).first()
    if webhook is None or not webhook.is_secret_readable:
        return 0
    webhook.save(update_fields=["secret"])
    return 1
