"""The VNC password: encrypted at rest, readable through former keys, never lost."""

from __future__ import annotations

import asyncio
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from controlplane import desktops
from controlplane.checks import secrets_are_readable
from controlplane.dbthreads import DatabaseThreads
from controlplane.exceptions import CredentialsRefused
from controlplane.fields import UnreadableSecret
from controlplane.models import Workspace
from tests.integration.locks import in_thread, is_still_waiting, row_locked_by_another
from tests.support.timing import limit

PASSWORD = "geheim12"
NEW_KEY = "a-new-secret-key-" * 4


def stored(slug: str = "desk") -> str:
    """Return the column as the database holds it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT vnc_password FROM controlplane_workspace WHERE slug = %s", [slug])
        return str(cursor.fetchone()[0])


def read() -> Workspace:
    return Workspace.objects.get(slug="desk")


@pytest.fixture
def secret(desk: Workspace) -> Workspace:
    """The desk, with a password."""
    desk.vnc_password = PASSWORD
    desk.save()
    return desk


@pytest.fixture
def lost_key(secret: Workspace, settings: Any) -> str:
    """The key with which the password was stored, and which is known no more."""
    old = str(settings.SECRET_KEY)
    settings.SECRET_KEY = NEW_KEY
    return old


def test_a_password_is_encrypted_at_rest(secret: Workspace) -> None:
    assert PASSWORD not in stored()
    assert len(stored()) > 80
    assert read().vnc_password == PASSWORD


def test_the_same_password_never_looks_the_same(secret: Workspace) -> None:
    first = stored()
    secret.save()
    assert stored() != first


@pytest.mark.parametrize("password", ["", "pässwörd", "x" * 500, " blank ", "😀"])
def test_any_text_comes_back_as_it_was(password: str, desk: Workspace) -> None:
    desk.vnc_password = password
    desk.save()
    assert read().vnc_password == password


def test_no_password_is_stored_as_nothing(desk: Workspace) -> None:
    assert (stored(), read().vnc_password) == ("", "")
    assert read().unreadable_secrets == []


def test_a_former_key_still_reads_and_the_newest_writes(lost_key: str, settings: Any) -> None:
    settings.SECRET_KEY_FALLBACKS = [lost_key]
    assert read().vnc_password == PASSWORD
    read().save()
    settings.SECRET_KEY_FALLBACKS = []
    assert read().vnc_password == PASSWORD


def test_without_its_key_a_password_reads_as_unreadable(lost_key: str) -> None:
    workspace = read()
    assert workspace.unreadable_secrets == ["vnc_password"]
    assert isinstance(workspace.vnc_password, UnreadableSecret)
    assert workspace.vnc_password == ""


def test_saving_a_row_with_an_unreadable_password_loses_nothing(
    lost_key: str, settings: Any
) -> None:
    before = stored()
    workspace = read()
    workspace.name = "Renamed"
    workspace.full_clean()
    workspace.save()
    assert stored() == before
    settings.SECRET_KEY_FALLBACKS = [lost_key]
    assert (read().name, read().vnc_password) == ("Renamed", PASSWORD)


def test_changing_a_workspace_by_command_keeps_an_unreadable_password(lost_key: str) -> None:
    before = stored()
    call_command("add_workspace", "desk", upstream="tcp://127.0.0.1:1", stdout=StringIO())
    assert stored() == before


def test_an_unreadable_password_can_be_set_anew(lost_key: str) -> None:
    workspace = read()
    workspace.vnc_password = "new"
    workspace.save()
    assert read().vnc_password == "new"


def test_an_unreadable_password_is_never_sent_to_a_desktop(lost_key: str) -> None:
    with pytest.raises(CredentialsRefused, match="cannot be read"):
        desktops.check_credentials(read())


def test_a_ciphertext_that_was_changed_is_unreadable(secret: Workspace) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE controlplane_workspace SET vnc_password = %s", [stored()[:-6] + "AAAAAA"]
        )
    assert read().unreadable_secrets == ["vnc_password"]


def test_the_check_counts_and_names_what_cannot_be_read(lost_key: str) -> None:
    Workspace.objects.create(slug="fine", name="Fine", vnc_password="readable")
    (warning,) = secrets_are_readable(None, databases=["default"])
    assert warning.id == "controlplane.W001"
    assert warning.msg.startswith("The stored secrets of 1 workspace(s)")
    assert "desk" in warning.msg
    assert "fine" not in warning.msg
    assert "reencrypt" in str(warning.hint)


def test_the_check_is_silent_when_all_is_well(secret: Workspace) -> None:
    assert secrets_are_readable(None, databases=["default"]) == []


def test_the_check_leaves_the_database_alone_unless_asked(lost_key: str) -> None:
    assert secrets_are_readable(None) == []


def test_reencrypt_makes_the_former_key_unnecessary(lost_key: str, settings: Any) -> None:
    settings.SECRET_KEY_FALLBACKS = [lost_key]
    output = StringIO()
    call_command("reencrypt", stdout=output)
    assert output.getvalue() == "1 secret(s) encrypted anew\n"
    settings.SECRET_KEY_FALLBACKS = []
    assert read().vnc_password == PASSWORD


def test_reencrypt_covers_every_secret(lost_key: str, settings: Any) -> None:
    settings.SECRET_KEY_FALLBACKS = [lost_key]
    workspace = read()
    workspace.upstream_query, workspace.upstream_headers = "token=geheim", "X-Key: geheim"
    workspace.save()
    output = StringIO()
    call_command("reencrypt", stdout=output)
    assert output.getvalue() == "3 secret(s) encrypted anew\n"
    settings.SECRET_KEY_FALLBACKS = []
    assert (read().unreadable_secrets, read().upstream_query) == ([], "token=geheim")


def test_reencrypt_names_what_no_key_fits_and_leaves_it(lost_key: str) -> None:
    Workspace.objects.create(slug="fine", name="Fine", vnc_password="readable")
    before, output = stored(), StringIO()
    with pytest.raises(CommandError, match="No key fits the secrets of: desk"):
        call_command("reencrypt", stdout=output)
    assert output.getvalue() == "1 secret(s) encrypted anew\n"
    assert stored() == before


@pytest.mark.django_db(transaction=True)
def test_reencrypt_waits_for_a_decision_about_control_without_holding_it_up(
    secret: Workspace,
) -> None:
    with row_locked_by_another(secret):
        late = in_thread(lambda: call_command("reencrypt", stdout=StringIO()))
        assert is_still_waiting(late)
        rows = Workspace.objects.select_for_update(nowait=connection.vendor == "postgresql")
        assert rows.get(pk=secret.pk) == secret, "what the decision records refers to this row"
    late.result(limit(1))


def test_reencrypt_overwrites_nothing_else(secret: Workspace, monkeypatch: Any) -> None:
    real = Workspace.save

    def save_after_another(self: Workspace, **options: Any) -> None:
        Workspace.objects.filter(pk=self.pk).update(name="Changed meanwhile")
        real(self, **options)

    monkeypatch.setattr(Workspace, "save", save_after_another)
    call_command("reencrypt", stdout=StringIO())
    assert read().name == "Changed meanwhile"


def test_reencrypt_leaves_a_secret_that_is_set_meanwhile(
    secret: Workspace, monkeypatch: Any
) -> None:
    later = Workspace.objects.create(slug="zulu", name="Zulu", vnc_password="former")
    real = Workspace.save

    def save_after_another(self: Workspace, **options: Any) -> None:
        if self.pk == secret.pk:
            changed = Workspace.objects.get(pk=later.pk)
            changed.vnc_password = "new"
            real(changed)
        real(self, **options)

    monkeypatch.setattr(Workspace, "save", save_after_another)
    call_command("reencrypt", stdout=StringIO())
    later.refresh_from_db()
    assert later.vnc_password == "new"


@pytest.mark.django_db(transaction=True)
def test_dialling_with_an_unreadable_password_reaches_no_desktop(
    lost_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dial(*_: object, **__: object) -> None:
        raise AssertionError("dialled")

    monkeypatch.setattr(desktops.upstream, "dial", dial)
    workspace = read()
    with pytest.raises(CredentialsRefused):
        asyncio.run(desktops.dial(workspace, DatabaseThreads("test", 1)))
