"""Guessing passwords: who is locked out, where, for how long, and what is said and kept."""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections
from django.db.models import F, Sum
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils.module_loading import import_string

from controlplane import ratelimits
from tests.integration.people import Browser
from tests.support.timing import limit

HERE, ELSEWHERE = "203.0.113.7", "198.51.100.8"
PASSWORD, WRONG = "olives-password", "a-wrong-guess"
LIMIT, MINUTES = 10, 15
LOGIN = "/accounts/login/"
ATTEMPTS = "admin:axes_accessattempt_changelist"


@pytest.fixture(autouse=True)
def _quick_hashes(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def olive(_quick_hashes: None, operator: User) -> User:
    """Somebody with a password."""
    operator.set_password(PASSWORD)
    operator.save()
    return operator


def sign_in(
    password: str = WRONG,
    address: str = HERE,
    username: str = "operator",
    path: str = LOGIN,
    **headers: str,
) -> HttpResponse:
    """Send the form once."""
    form = {"username": username, "password": password, "next": "/workspaces/desk/"}
    return Client(REMOTE_ADDR=address, headers=headers).post(path, form)


def is_signed_in(answer: HttpResponse) -> bool:
    return answer.status_code == 302 and "sessionid" in answer.cookies


def guess(times: int, **options: str) -> list[int]:
    """Send wrong passwords; return the statuses of the answers."""
    return [sign_in(**options).status_code for _ in range(times)]


def let_pass(time: timedelta) -> None:
    """Age all failures."""
    AccessAttempt.objects.update(attempt_time=F("attempt_time") - time)


def assert_locked(answer: HttpResponse, minutes: int = MINUTES) -> None:
    page = answer.content.decode()
    assert answer.status_code == 429
    assert "sessionid" not in answer.cookies
    assert f"Too many wrong passwords or codes. Try again in {minutes} minute" in page
    assert 60 * (minutes - 1) <= int(answer["Retry-After"]) <= 60 * minutes
    assert answer["Cache-Control"] == "no-store"
    assert 'name="next" value="/workspaces/desk/"' in page


# --- Locking --------------------------------------------------------------------------------------
def test_after_ten_wrong_passwords_the_right_one_is_not_looked_at_either() -> None:
    assert guess(LIMIT - 1) == [200] * (LIMIT - 1)
    assert_locked(sign_in())
    assert_locked(sign_in(PASSWORD))


def test_nine_wrong_passwords_lock_nobody_and_the_right_one_forgets_them() -> None:
    for _ in range(3):
        guess(LIMIT - 1)
        assert is_signed_in(sign_in(PASSWORD))


def test_a_stranger_locks_nobody_out_but_at_the_strangers_address(observer: User) -> None:
    guess(LIMIT, address=ELSEWHERE)
    assert_locked(sign_in(PASSWORD, ELSEWHERE))
    assert is_signed_in(sign_in(PASSWORD, HERE))
    observer.set_password(PASSWORD)
    observer.save()
    assert is_signed_in(sign_in(PASSWORD, ELSEWHERE, username="observer"))


def test_a_name_that_nobody_has_is_locked_like_any_other() -> None:
    guess(LIMIT, username="nobody")
    assert_locked(sign_in(username="nobody"))


def test_the_admin_has_no_form_of_its_own(operator: User, admin: User) -> None:
    form = {"username": "admin", "password": PASSWORD, "next": "/admin/controlplane/"}
    answer = Client().post("/admin/login/?next=/admin/controlplane/", form)
    assert answer.headers["Location"] == f"{LOGIN}?next=/admin/controlplane/"
    assert "sessionid" not in answer.cookies
    assert Client().get("/admin/login/?next=//x.example/")["Location"] == f"{LOGIN}?next=/admin/"
    assert Browser(operator).get("/admin/login/").status_code == 403
    assert Browser(admin).client.get("/admin/login/")["Location"] == "/admin/"


def test_another_browser_does_not_help() -> None:
    for number in range(LIMIT):
        sign_in(**{"User-Agent": f"browser {number}"})
    assert_locked(sign_in(PASSWORD, **{"User-Agent": "another one"}))


def test_another_address_of_the_same_ipv6_network_does_not_help() -> None:
    for number in range(LIMIT):
        sign_in(address=f"2001:db8::{number:x}")
    assert_locked(sign_in(PASSWORD, "2001:db8::ffff"))
    assert is_signed_in(sign_in(PASSWORD, "2001:db8:0:1::1"))


@pytest.mark.parametrize("address", ["", "/run/proxy.sock"])
def test_who_comes_without_an_address_is_counted_too(address: str) -> None:
    guess(LIMIT, address=address)
    assert_locked(sign_in(PASSWORD, address))


def test_it_is_over_when_it_was_said_to_be_and_then_counted_anew() -> None:
    guess(LIMIT)
    let_pass(timedelta(minutes=5))
    assert_locked(sign_in(PASSWORD), minutes=10)  # and asking does not prolong it
    let_pass(timedelta(minutes=10, seconds=1))
    assert guess(LIMIT - 1) == [200] * (LIMIT - 1)
    assert is_signed_in(sign_in(PASSWORD))


def test_a_login_that_stands_is_not_ended() -> None:
    browser = Browser(User.objects.get(username="operator"), REMOTE_ADDR=HERE)
    guess(LIMIT)
    assert browser.get("/").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_guesses_at_the_same_time_are_all_counted() -> None:
    at_once = 16
    barrier = Barrier(at_once)

    def guess_with_the_others(_: int) -> int:
        barrier.wait(limit(1))
        try:
            return sign_in().status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(at_once) as pool:
        statuses = list(pool.map(guess_with_the_others, range(at_once)))
    assert set(statuses) <= {200, 429}
    counted = AccessAttempt.objects.aggregate(all=Sum("failures_since_start"))["all"]
    assert LIMIT <= counted <= at_once
    assert_locked(sign_in(PASSWORD))


# --- One address, many names ----------------------------------------------------------------------
def test_one_address_may_not_try_all_names() -> None:
    statuses = [sign_in(username=f"user-{number}").status_code for number in range(61)]
    assert statuses == [200] * 60 + [429]
    refused = sign_in(PASSWORD)
    assert refused.status_code == 429
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert "Try again in 1 minute." in refused.content.decode()
    assert is_signed_in(sign_in(PASSWORD, ELSEWHERE))
    ratelimits.forget()
    assert is_signed_in(sign_in(PASSWORD))


# --- What is kept, and letting somebody try again -------------------------------------------------
def test_neither_log_nor_database_nor_admin_holds_what_was_typed_as_a_password(
    admin: User, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        guess(LIMIT + 1)
    office = Browser(admin).client
    row = AccessAttempt.objects.get()
    pages = [
        office.get(reverse(ATTEMPTS)).content.decode(),
        office.get(reverse("admin:axes_accessattempt_change", args=[row.pk])).content.decode(),
    ]
    told = [caplog.text, *pages, *map(str, AccessAttempt.objects.values_list())]
    assert not [text for text in told if WRONG in text]
    assert f'ip_address: "{HERE}"' in caplog.text
    assert 'username: "operator"' not in caplog.text  # it may be a password in the wrong field


def test_the_admin_shows_who_is_locked_out_and_lets_them_try_again(admin: User) -> None:
    office = Browser(admin).client
    office.handler.enforce_csrf_checks = False
    guess(LIMIT)
    guess(LIMIT - 1, address=ELSEWHERE)
    page = office.get(reverse(ATTEMPTS)).content.decode()
    rows = re.findall(r"<tr>.*?</tr>", page.partition("<tbody>")[2], re.DOTALL)
    assert {HERE in row: "True" in row for row in rows} == {True: True, False: False}
    chosen = AccessAttempt.objects.get(ip_address=HERE)
    form = {"action": "delete_selected", "_selected_action": [chosen.pk], "post": "yes"}
    assert office.post(reverse(ATTEMPTS), form).status_code == 302
    assert is_signed_in(sign_in(PASSWORD))
    assert AccessAttempt.objects.get().ip_address == ELSEWHERE


def test_the_admin_lets_nobody_change_what_happened(admin: User) -> None:
    guess(1)
    office = Browser(admin).client
    page = office.get(
        reverse("admin:axes_accessattempt_change", args=[AccessAttempt.objects.get().pk])
    )
    assert 'name="_save"' not in page.content.decode()
    assert office.get(reverse("admin:axes_accessattempt_add")).status_code == 403


def test_a_command_lets_somebody_try_again_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    guess(LIMIT)
    call_command("axes_list_attempts")
    assert capsys.readouterr().out == f"{HERE}\toperator\t{LIMIT}\n"
    call_command("axes_reset_username", "operator")
    assert is_signed_in(sign_in(PASSWORD))


@pytest.mark.parametrize(
    "path",
    [
        "controlplane.backends.PeopleBackend",
        "controlplane.proxyusers.ProxyBackend",
        "controlplane.providerusers.ProviderBackend",
    ],
)
def test_an_upgrade_finds_the_backends_that_sessions_were_begun_with(path: str) -> None:
    found = import_string(path)
    assert f"{found.__module__}.{found.__qualname__}" == path, "new sessions name another one"
