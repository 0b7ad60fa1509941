"""Second factors: enrolling, codes that count and codes that do not, and no way around them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module, reload
from threading import Barrier
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.urls import clear_url_caches

from controlplane import crypto, ratelimits
from controlplane.signin import secondfactor
from tests.integration.people import person
from tests.support.authenticator import code_of, recovery_codes_in, secret_in, wrong_code
from tests.support.timing import Clock, limit

LOGIN, CODE, FACTOR = "/accounts/login/", "/accounts/code/", "/accounts/second-factor/"
PASSWORD = "olives-password"
CONTROL = "/api/workspaces/desk/display/control"


@pytest.fixture(autouse=True)
def _quick_hashes(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


Mode = Callable[[str], None]


@pytest.fixture
def mode(settings: Any) -> Iterator[Mode]:
    """Return a function that starts the server, so to say, with another SIGNIN_TOTP."""

    def start(name: str) -> None:
        settings.SIGNIN_TOTP = name
        reload(import_module("desktopctl.urls"))
        clear_url_caches()

    yield start
    start("off")


@pytest.fixture
def optional(mode: Mode) -> None:
    mode("optional")


@pytest.fixture
def olive(_quick_hashes: None, operator: User) -> User:
    """Somebody with a password."""
    operator.set_password(PASSWORD)
    operator.save()
    return operator


class AuthenticatorClock(Clock):
    """The time that codes are judged by, and the authenticator's; it goes on by whole steps."""

    def next_step(self) -> None:
        self.now += 30


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> AuthenticatorClock:
    clock = AuthenticatorClock(time.time())
    monkeypatch.setattr("allauth.mfa.totp.internal.auth.time.time", clock)
    return clock


def give_password(
    client: Client | None = None, after: str = "/workspaces/desk/", **fields: str
) -> tuple[Client, HttpResponse]:
    client = client or Client()
    form = {"username": "operator", "password": PASSWORD, "next": after} | fields
    return client, client.post(LOGIN, form)  # type: ignore[return-value]  # a test's response


def is_signed_in(client: Client) -> bool:
    return client.get("/accounts/signed-in/").status_code == 200


class Device:
    """Somebody's authenticator, and the recovery codes that they keep."""

    def __init__(self, clock: AuthenticatorClock, client: Client) -> None:
        self._clock = clock
        self.secret = secret_in(client.get(FACTOR).content.decode())
        answer = client.post(FACTOR, {"code": self.code})
        self.recovery_codes = recovery_codes_in(answer.content.decode())
        assert len(self.recovery_codes) == 10, answer.content
        clock.next_step()

    @property
    def code(self) -> str:
        return code_of(self.secret, self._clock())

    @property
    def wrong(self) -> str:
        return wrong_code(self.secret)


@pytest.fixture
def device(mode: Mode, olive: User, clock: AuthenticatorClock) -> Device:
    """The authenticator that Olive has enrolled."""
    mode("optional")
    client = Client()
    client.force_login(olive)
    return Device(clock, client)


# --- Off, and without one -------------------------------------------------------------------------
def test_by_default_none_of_it_is_there(olive: User) -> None:
    client, answer = give_password()
    assert answer.headers["Location"] == "/workspaces/desk/"
    assert "Second factor" not in client.get("/").content.decode()
    for path in (CODE, FACTOR):
        assert client.get(path).status_code == 404


def test_who_has_enrolled_is_not_asked_where_it_is_switched_off(device: Device, mode: Mode) -> None:
    mode("off")
    client, _ = give_password()
    assert is_signed_in(client)


@pytest.mark.usefixtures("optional")
def test_who_has_not_enrolled_signs_in_by_password_where_it_is_optional(olive: User) -> None:
    client, answer = give_password()
    assert answer.headers["Location"] == "/workspaces/desk/"
    assert is_signed_in(client)
    assert FACTOR in client.get("/").content.decode()


# --- Enrolling ------------------------------------------------------------------------------------
@pytest.mark.usefixtures("optional")
def test_a_wrong_code_enrols_nobody_and_the_secret_stays(
    olive: User, clock: AuthenticatorClock
) -> None:
    client = Client()
    client.force_login(olive)
    secret = secret_in(client.get(FACTOR).content.decode())
    again = client.post(FACTOR, {"code": wrong_code(secret)}).content.decode()
    assert "This code is wrong" in again
    assert secret_in(again) == secret
    assert not secondfactor.is_enrolled(olive)
    assert recovery_codes_in(
        client.post(FACTOR, {"code": code_of(secret, clock())}).content.decode()
    )
    assert secondfactor.is_enrolled(olive)


@pytest.mark.usefixtures("optional")
def test_the_page_shows_the_secret_as_a_picture_within_the_policy(olive: User) -> None:
    client = Client()
    client.force_login(olive)
    answer = client.get(FACTOR)
    assert 'src="data:image/svg+xml;base64,' in answer.content.decode()
    assert "no-store" in answer.headers["Cache-Control"]
    assert "<script" not in answer.content.decode()


def test_neither_the_secret_nor_recovery_codes_are_kept_in_the_clear(
    device: Device, olive: User
) -> None:
    kept = str(list(Authenticator.objects.values_list("data", flat=True)))
    assert device.secret not in kept
    assert not [code for code in device.recovery_codes if code in kept]


def test_secrets_follow_a_new_secret_key(
    device: Device, settings: Any, clock: AuthenticatorClock
) -> None:
    former = settings.SECRET_KEY
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another-key-" * 5, [former]
    call_command("reencrypt")
    settings.SECRET_KEY_FALLBACKS = []
    client, _ = give_password()
    client.post(CODE, {"code": device.code})
    assert is_signed_in(client)


def test_a_code_that_counts_while_secrets_are_encrypted_anew_stays_used_up(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, reencrypt = device.code, secondfactor.reencrypt
    somebody, _ = give_password()

    def use_it_first(row: Any) -> bool:
        somebody.post(CODE, {"code": code})
        return reencrypt(row)

    monkeypatch.setattr(secondfactor, "reencrypt", use_it_first)
    call_command("reencrypt")
    assert is_signed_in(somebody)
    client, _ = give_password()
    assert "was used before" in client.post(CODE, {"code": code}).content.decode()
    assert not is_signed_in(client)


def test_without_their_key_nobody_is_let_in_and_the_log_says_why(
    device: Device, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SECRET_KEY = "another-key-" * 5
    client, _ = give_password()
    answer = client.post(CODE, {"code": device.code})
    assert "This code is wrong" in answer.content.decode()
    assert "No key fits the second factor of operator" in caplog.text
    with pytest.raises(CommandError, match="second factor of operator"):
        call_command("reencrypt")


# --- The code -------------------------------------------------------------------------------------
def test_after_the_password_there_is_no_session_before_the_code(device: Device) -> None:
    client, answer = give_password()
    assert answer.headers["Location"] == CODE
    assert not is_signed_in(client)
    assert client.get(CONTROL).status_code == 401
    assert client.get("/admin/").status_code == 302
    assert client.get(FACTOR).headers["Location"] == CODE
    answer = client.post(CODE, {"code": device.code})
    assert answer.headers["Location"] == "/workspaces/desk/"
    assert client.get(CONTROL).status_code == 200


def test_a_wrong_code_lets_nobody_in(device: Device) -> None:
    client, _ = give_password()
    for code in (device.wrong, "", "x" * 32, "١٢٣٤٥٦"):
        assert "This code is wrong" in client.post(CODE, {"code": code}).content.decode()
    assert not is_signed_in(client)


def test_a_code_counts_once(device: Device, clock: AuthenticatorClock) -> None:
    code = device.code
    first, second = give_password()[0], give_password()[0]
    first.post(CODE, {"code": code})
    assert is_signed_in(first)
    assert "was used before" in second.post(CODE, {"code": code}).content.decode()
    clock.next_step()
    assert "was used before" in second.post(CODE, {"code": code}).content.decode()
    second.post(CODE, {"code": device.code})
    assert is_signed_in(second)


def test_a_code_from_before_one_that_has_counted_is_used_up_as_well(
    device: Device, clock: AuthenticatorClock
) -> None:
    older = device.code
    clock.next_step()
    client, _ = give_password()
    client.post(CODE, {"code": device.code})
    assert is_signed_in(client)
    other, _ = give_password()
    other.post(CODE, {"code": older})
    assert not is_signed_in(other)


@pytest.mark.usefixtures("optional")
def test_the_code_that_enrolled_lets_nobody_in(olive: User, clock: AuthenticatorClock) -> None:
    client = Client()
    client.force_login(olive)
    secret = secret_in(client.get(FACTOR).content.decode())
    code = code_of(secret, clock())
    client.post(FACTOR, {"code": code})
    other, _ = give_password()
    other.post(CODE, {"code": code})
    assert not is_signed_in(other)


@pytest.mark.parametrize(("steps", "counts"), [(-2, False), (-1, True), (1, True), (2, False)])
def test_a_phones_clock_may_be_half_a_minute_off(
    device: Device, clock: AuthenticatorClock, steps: int, counts: bool
) -> None:
    clock.now += 300
    client, _ = give_password()
    client.post(CODE, {"code": code_of(device.secret, clock() + 30 * steps)})
    assert is_signed_in(client) is counts


def test_another_persons_code_is_wrong(
    device: Device, clock: AuthenticatorClock, colleague: User
) -> None:
    colleague.set_password(PASSWORD)
    colleague.save()
    client = Client()
    client.force_login(colleague)
    Device(clock, client)
    thief, _ = give_password(username="colleague")
    thief.post(CODE, {"code": device.code})
    assert not is_signed_in(thief)


def test_the_page_of_the_code_is_for_who_has_given_a_password(device: Device) -> None:
    stranger = Client()
    for path in (CODE, FACTOR):
        assert stranger.get(path).headers["Location"] == LOGIN
        assert stranger.post(path, {"code": device.code}).headers["Location"] == LOGIN


def test_a_sign_in_that_waits_too_long_begins_anew(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = give_password()
    later = time.time() + 16 * 60
    monkeypatch.setattr("allauth.account.internal.stagekit.time.time", lambda: later)
    assert client.post(CODE, {"code": code_of(device.secret, later)}).headers["Location"] == LOGIN
    assert not is_signed_in(client)


def test_who_has_been_disabled_meanwhile_is_not_let_in(device: Device, olive: User) -> None:
    client, _ = give_password()
    User.objects.filter(pk=olive.pk).update(is_active=False)
    assert client.get(CODE).headers["Location"] == LOGIN
    assert client.post(CODE, {"code": device.code}).headers["Location"] == LOGIN
    assert not is_signed_in(client)


def test_a_new_password_ends_the_sign_ins_that_wait_for_their_code(
    device: Device, olive: User
) -> None:
    thief, _ = give_password()
    olive.set_password("a-new-password")
    olive.save()
    assert thief.post(CODE, {"code": device.code}).headers["Location"] == LOGIN
    assert not is_signed_in(thief)
    client, _ = give_password(password="a-new-password")
    client.post(CODE, {"code": device.code})
    assert is_signed_in(client)


def test_the_admin_cannot_be_come_to_without_the_code(device: Device, olive: User) -> None:
    User.objects.filter(pk=olive.pk).update(is_staff=True, is_superuser=True)
    client = Client()
    form = {"username": "operator", "password": PASSWORD, "next": "/admin/"}
    client.post("/admin/login/", form)
    assert client.get("/admin/").status_code == 302
    _, answer = give_password(client, "/admin/")
    assert answer.headers["Location"] == CODE
    assert client.get("/admin/").status_code == 302
    assert client.post(CODE, {"code": device.code}).headers["Location"] == "/admin/"
    assert client.get("/admin/").status_code == 200


# --- Recovery codes -------------------------------------------------------------------------------
def test_a_recovery_code_lets_in_once(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    code = device.recovery_codes[3]
    client, _ = give_password()
    with caplog.at_level(logging.WARNING):
        client.post(CODE, {"code": f" {code[:4]} {code[4:]} "})
    assert is_signed_in(client)
    assert "operator has used a recovery code" in caplog.text
    assert code not in caplog.text
    assert "9 recovery codes are left" in client.get(FACTOR).content.decode()
    other, _ = give_password()
    other.post(CODE, {"code": code})
    assert not is_signed_in(other)


def test_new_recovery_codes_need_a_code_and_replace_the_old_ones(
    device: Device, clock: AuthenticatorClock
) -> None:
    client, _ = give_password()
    client.post(CODE, {"code": device.code})
    clock.next_step()
    refused = client.post(FACTOR, {"code": device.wrong, "do": "renew"}).content.decode()
    assert recovery_codes_in(refused) == []
    made = client.post(FACTOR, {"code": device.code, "do": "renew"}).content.decode()
    new = recovery_codes_in(made)
    assert len(new) == 10
    assert not {*new} & {*device.recovery_codes}
    for code, counts in ((device.recovery_codes[0], False), (new[0], True)):
        other, _ = give_password()
        other.post(CODE, {"code": code})
        assert is_signed_in(other) is counts


# --- Removing -------------------------------------------------------------------------------------
def test_one_removes_ones_own_with_a_code(
    device: Device, olive: User, clock: AuthenticatorClock
) -> None:
    client, _ = give_password()
    client.post(CODE, {"code": device.code})
    clock.next_step()
    client.post(FACTOR, {"code": device.wrong, "do": "remove"})
    assert secondfactor.is_enrolled(olive)
    assert client.post(FACTOR, {"code": device.code, "do": "remove"}).status_code == 302
    assert not Authenticator.objects.exists()
    other, _ = give_password()
    assert is_signed_in(other)


def test_a_required_one_is_not_removed_by_its_person(
    device: Device, olive: User, clock: AuthenticatorClock, mode: Mode
) -> None:
    mode("required")
    client, _ = give_password()
    client.post(CODE, {"code": device.code})
    clock.next_step()
    assert "Remove the second factor" not in client.get(FACTOR).content.decode()
    client.post(FACTOR, {"code": device.code, "do": "remove"})
    assert secondfactor.is_enrolled(olive)


def test_an_administrator_removes_a_lost_one(
    device: Device, olive: User, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("remove_second_factor", "operator")
    assert capsys.readouterr().out == "operator: second factor removed\n"
    assert not Authenticator.objects.exists()
    client, _ = give_password()
    assert is_signed_in(client)
    for name, words in (("operator", "has no second factor"), ("nobody", "No such user")):
        with pytest.raises(CommandError, match=words):
            call_command("remove_second_factor", name)


def test_the_admin_shows_who_has_one_and_no_secret(device: Device, admin: User) -> None:
    office = Client()
    office.force_login(admin)
    pages = ["/admin/mfa/authenticator/"]
    pages += [f"{pages[0]}{row.pk}/change/" for row in Authenticator.objects.all()]
    shown = "".join(office.get(path).content.decode() for path in pages)
    assert "operator" in shown
    assert device.secret not in shown
    for row in Authenticator.objects.all():
        assert not [
            value for value in row.data.values() if str(value) in shown and len(str(value)) > 9
        ]
    row = Authenticator.objects.get(type="totp")
    assert office.post(f"{pages[0]}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    client, _ = give_password()
    assert is_signed_in(client)


# --- Required -------------------------------------------------------------------------------------
def test_where_it_is_required_one_enrols_before_the_session_begins(
    mode: Mode, olive: User, clock: AuthenticatorClock
) -> None:
    mode("required")
    client, answer = give_password()
    assert answer.headers["Location"] == FACTOR
    page = client.get(FACTOR).content.decode()
    secret = secret_in(page)
    assert f'<a href="{LOGIN}">Back to signing in</a>' in page
    assert "Not now" not in page
    assert not is_signed_in(client)
    client.post(FACTOR, {"code": wrong_code(secret)})
    assert not is_signed_in(client)
    assert client.get(CODE).headers["Location"] == LOGIN
    shown = client.post(FACTOR, {"code": code_of(secret, clock())}).content.decode()
    assert len(recovery_codes_in(shown)) == 10
    assert 'href="/workspaces/desk/"' in shown
    assert is_signed_in(client)


def test_a_new_password_ends_the_sign_ins_that_wait_for_enrolling(mode: Mode, olive: User) -> None:
    mode("required")
    thief, _ = give_password()
    assert thief.get(FACTOR).status_code == 200
    olive.set_password("a-new-password")
    olive.save()
    assert thief.get(FACTOR).headers["Location"] == LOGIN


def test_the_key_that_one_was_shown_is_not_the_next_ones_in_the_same_browser(
    mode: Mode, olive: User, colleague: User, clock: AuthenticatorClock
) -> None:
    mode("required")
    colleague.set_password(PASSWORD)
    colleague.save()
    shared, _ = give_password(username="colleague")
    seen = secret_in(shared.get(FACTOR).content.decode())
    give_password(shared)
    answer = shared.post(FACTOR, {"code": code_of(seen, clock())}).content.decode()
    assert secret_in(answer) != seen
    assert not secondfactor.is_enrolled(olive)


def test_api_tokens_and_logins_that_stand_are_not_asked(
    mode: Mode, olive: User, desk: object
) -> None:
    client = Client()
    client.force_login(olive)
    mode("required")
    assert client.get(CONTROL).status_code == 200


# --- Guessing -------------------------------------------------------------------------------------
def test_after_ten_wrong_codes_the_right_one_is_not_looked_at(device: Device) -> None:
    client, _ = give_password()
    statuses = [client.post(CODE, {"code": device.wrong}).status_code for _ in range(10)]
    assert statuses == [200] * 9 + [429]
    locked = client.post(CODE, {"code": device.code})
    assert locked.status_code == 429
    assert "Try again in 15 minutes." in locked.content.decode()
    assert not is_signed_in(client)


def test_another_address_another_node_or_the_password_anew_does_not_help(
    device: Device, clock: AuthenticatorClock
) -> None:
    for number in range(10):
        client, _ = give_password(Client(REMOTE_ADDR=f"198.51.100.{number}"))
        client.post(CODE, {"code": device.wrong})
    ratelimits.forget()  # as a node that has counted nothing, while Redis is away
    for minutes_later in (0, 14):
        clock.now += 60 * minutes_later
        client, _ = give_password(Client(REMOTE_ADDR="203.0.113.9"))
        locked = client.post(CODE, {"code": device.code})
        assert locked.status_code == 429
        assert locked.headers["Retry-After"] == str(60 * (15 - minutes_later))
        assert not is_signed_in(client)
    clock.now += 60
    client.post(CODE, {"code": device.code})
    assert is_signed_in(client)


@pytest.mark.django_db(transaction=True)
def test_of_twelve_guesses_at_once_ten_are_looked_at(device: Device) -> None:
    browsers = [
        give_password(Client(REMOTE_ADDR=f"198.51.100.{number}"))[0] for number in range(12)
    ]
    start = Barrier(len(browsers))

    def guess(client: Client) -> int:
        start.wait(limit(2))
        try:
            return client.post(CODE, {"code": device.wrong}).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(len(browsers)) as threads:
        statuses = sorted(threads.map(guess, browsers))
    assert statuses == [200] * 10 + [429] * 2


def test_what_was_typed_as_a_code_is_not_kept(device: Device) -> None:
    client, _ = give_password()
    for typed in (device.wrong, PASSWORD):
        client.post(CODE, {"code": typed})
    [kept] = AccessAttempt.objects.values()
    assert kept["failures_since_start"] == 2
    assert [typed for typed in (device.wrong, PASSWORD) if typed in str(kept)] == []


def test_wrong_codes_and_wrong_passwords_count_together(device: Device) -> None:
    client, _ = give_password()
    for _ in range(5):
        client.post(CODE, {"code": device.wrong})
        give_password(password="a-wrong-guess")
    assert client.post(CODE, {"code": device.code}).status_code == 429


def test_strangers_who_guess_passwords_keep_nobody_from_their_code(device: Device) -> None:
    client, _ = give_password(Client(REMOTE_ADDR="203.0.113.9"))
    for _ in range(10):
        give_password(password="a-wrong-guess")
    client.post(CODE, {"code": device.code})
    assert is_signed_in(client)


def test_the_key_of_second_factors_opens_nothing_else(device: Device) -> None:
    data = Authenticator.objects.get(type="totp").data
    with pytest.raises(crypto.Unreadable):
        crypto.decrypt("vnc password", data["secret"])


def test_a_bystander_has_nothing_to_do_with_it(device: Device, desk: object) -> None:
    visitor = person("visitor")
    client = Client()
    client.force_login(visitor)
    assert "Set up your second factor" in client.get(FACTOR).content.decode()
