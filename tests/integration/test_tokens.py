"""Session tokens: bound, short-lived, and spent by one insert."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane import crypto, leases, tokens
from controlplane.exceptions import (
    DisplayMissing,
    StreamForbidden,
    StreamRefused,
    TokenRefused,
    TooManyStreams,
)
from controlplane.models import DisplayStream, Role, Workspace, WorkspaceGrant
from tests.integration.people import OTHER_TAB, THIS_TAB, Browser, now, open_stream, person, tab
from tests.support.timing import limit


@pytest.fixture
def browser(operator: User) -> Browser:
    """The operator's."""
    return Browser(operator)


@pytest.fixture
def token(desk: Workspace, operator: User, browser: Browser) -> str:
    """A token of this tab."""
    return mint(desk, operator, browser)


def mint(desk: Workspace, user: User, browser: Browser, client_id: str = THIS_TAB) -> str:
    return tokens.mint(desk, user, client_id, browser.session_key).token


def spend(token: str, slug: str = "desk") -> tokens.Admission:
    return tokens.spend(token, slug, "this process")


# --- Minting and spending -------------------------------------------------------------------------
def test_a_token_opens_a_stream_for_its_bearer(token: str, desk: Workspace, operator: User) -> None:
    admission = spend(token)
    row = DisplayStream.objects.get()
    assert (admission.stream, admission.workspace, admission.user) == (row, desk, operator)
    assert (row.workspace, row.user, row.client_id) == (desk, operator, THIS_TAB)
    assert (row.mode, row.process, row.closed_at) == ("observe", "this process", None)


def test_a_tab_that_had_a_stream_to_the_desktop_reconnects(
    desk: Workspace, operator: User, colleague: User, browser: Browser
) -> None:
    assert not spend(mint(desk, operator, browser)).is_reconnect
    assert spend(mint(desk, operator, browser)).is_reconnect
    assert not spend(mint(desk, operator, browser, OTHER_TAB)).is_reconnect
    others = Browser(colleague)
    assert not spend(mint(desk, colleague, others)).is_reconnect


def test_a_token_fits_into_a_subprotocol_and_hides_what_it_says(
    token: str, browser: Browser
) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{100,1000}", token)
    assert browser.session_key not in token
    assert THIS_TAB not in token


def test_no_two_tokens_are_equal(desk: Workspace, operator: User, browser: Browser) -> None:
    assert len({mint(desk, operator, browser) for _ in range(10)}) == 10


def test_a_token_works_once(token: str) -> None:
    spend(token)
    for _ in range(2):
        with pytest.raises(TokenRefused, match="used already"):
            spend(token)
    assert DisplayStream.objects.count() == 1


def test_a_token_stays_spent_after_its_stream_is_closed(token: str) -> None:
    spend(token)
    DisplayStream.objects.update(closed_at=Now())
    with pytest.raises(TokenRefused):
        spend(token)


def test_a_token_can_be_dialled_for_a_minute_by_the_databases_clock(
    desk: Workspace, operator: User, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = now()
    minted = tokens.mint(desk, operator, THIS_TAB, browser.session_key)
    assert timedelta(seconds=60) <= minted.expires_at - before < timedelta(seconds=70)
    real = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: real() + timedelta(hours=1))
    spend(minted.token)


def test_a_token_that_waited_too_long_is_refused(
    desk: Workspace, operator: User, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_now", lambda _: now() - timedelta(seconds=60, milliseconds=50))
    with pytest.raises(TokenRefused, match="expired"):
        spend(mint(desk, operator, browser))


def test_how_long_a_token_waits_is_a_setting(
    desk: Workspace, operator: User, browser: Browser, settings: Any
) -> None:
    settings.DISPLAY = type(settings.DISPLAY)(token_seconds=5)
    minted = tokens.mint(desk, operator, THIS_TAB, browser.session_key)
    assert minted.expires_at - now() <= timedelta(seconds=5)


# --- Forged and foreign tokens --------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "x", "a.b", "gAAAA" * 40, "ü" * 30, "\x00", "=" * 9])
def test_what_is_not_a_token_is_refused(text: str, desk: Workspace) -> None:
    with pytest.raises(TokenRefused):
        spend(text)


@pytest.mark.parametrize("position", [0, 5, 50, -1])
def test_a_token_that_was_changed_is_refused(position: int, token: str) -> None:
    index = position % len(token)
    replacement = "A" if token[index] != "A" else "Q"
    with pytest.raises(TokenRefused):
        spend(token[:index] + replacement + token[index + 1 :])
    assert not DisplayStream.objects.exists()


def test_another_ciphertext_of_ours_is_no_token(desk: Workspace) -> None:
    with pytest.raises(TokenRefused):
        spend(crypto.encrypt("controlplane.workspace.vnc_password", "{}").rstrip("="))


def test_a_token_of_a_former_key_works_while_that_key_is_a_fallback(
    token: str, settings: Any
) -> None:
    old, settings.SECRET_KEY = settings.SECRET_KEY, "a-new-key-" * 6
    with pytest.raises(TokenRefused):
        spend(token)
    settings.SECRET_KEY_FALLBACKS = [old]
    spend(token)


def test_a_token_is_for_its_own_workspace(token: str, operator: User) -> None:
    other = Workspace.objects.create(slug="other", name="Other", upstream_url="tcp://127.0.0.1:1")
    WorkspaceGrant.objects.create(workspace=other, user=operator, role=Role.MANAGER)
    with pytest.raises(TokenRefused, match="another workspace"):
        spend(token, "other")


# --- What has changed since it was minted ---------------------------------------------------------
def _log_out(browser: Browser, user: User, desk: Workspace) -> None:
    browser.client.logout()


def _change_password(browser: Browser, user: User, desk: Workspace) -> None:
    user.set_unusable_password()
    user.save()


def _disable_user(browser: Browser, user: User, desk: Workspace) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def _delete_user(browser: Browser, user: User, desk: Workspace) -> None:
    user.delete()


def _revoke(browser: Browser, user: User, desk: Workspace) -> None:
    WorkspaceGrant.objects.filter(user=user).delete()


def _disable_workspace(browser: Browser, user: User, desk: Workspace) -> None:
    Workspace.objects.filter(pk=desk.pk).update(enabled=False)


def _remove_upstream(browser: Browser, user: User, desk: Workspace) -> None:
    Workspace.objects.filter(pk=desk.pk).update(upstream_url="")


def _delete_workspace(browser: Browser, user: User, desk: Workspace) -> None:
    desk.delete()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_log_out, StreamForbidden),
        (_change_password, StreamForbidden),
        (_disable_user, StreamForbidden),
        (_delete_user, StreamForbidden),
        (_revoke, StreamForbidden),
        (_disable_workspace, DisplayMissing),
        (_remove_upstream, DisplayMissing),
        (_delete_workspace, DisplayMissing),
    ],
)
def test_a_token_minted_before_a_change_and_dialled_after_it_opens_nothing(
    change: Any,
    error: type[StreamRefused],
    token: str,
    browser: Browser,
    operator: User,
    desk: Workspace,
) -> None:
    change(browser, operator, desk)
    with pytest.raises(error):
        spend(token)
    assert not DisplayStream.objects.exists()


def test_a_logout_elsewhere_does_not_concern_the_token(
    token: str, browser: Browser, operator: User
) -> None:
    Browser(operator).client.logout()
    spend(token)


# --- Limits ---------------------------------------------------------------------------------------
@pytest.fixture
def limits(settings: Any) -> None:
    """At most two displays a person and three a workspace."""
    settings.DISPLAY = type(settings.DISPLAY)(max_streams_per_user=2, max_streams_per_workspace=3)


def open_two(desk: Workspace, user: User) -> None:
    for name in ("first-tab", "second-tab"):
        open_stream(desk, user, name)


@pytest.mark.usefixtures("limits")
def test_a_person_may_have_so_many_displays_open(
    token: str, desk: Workspace, operator: User
) -> None:
    open_two(desk, operator)
    with pytest.raises(TooManyStreams, match="You have"):
        spend(token)
    DisplayStream.objects.filter(client_id="first-tab").update(closed_at=Now())
    spend(token)


@pytest.mark.usefixtures("limits")
def test_a_workspace_may_be_watched_by_so_many(
    token: str, desk: Workspace, observer: User, colleague: User
) -> None:
    open_two(desk, observer)
    open_stream(desk, colleague)
    with pytest.raises(TooManyStreams, match="people are watching"):
        spend(token)


@pytest.mark.usefixtures("limits")
def test_streams_of_a_dead_process_do_not_count(
    token: str, desk: Workspace, operator: User
) -> None:
    open_two(desk, operator)
    DisplayStream.objects.update(stamped_at=Now() - timedelta(seconds=31))
    spend(token)


@pytest.mark.usefixtures("limits")
def test_a_stream_that_replaces_its_own_predecessor_is_not_one_more(
    desk: Workspace, operator: User, browser: Browser
) -> None:
    open_two(desk, operator)
    spend(mint(desk, operator, browser, "second-tab"))


@pytest.mark.usefixtures("limits")
def test_the_holder_is_let_into_a_full_workspace(
    token: str, desk: Workspace, operator: User, observer: User, colleague: User
) -> None:
    open_two(desk, observer)
    open_stream(desk, colleague)
    leases.acquire(desk, tab(operator), ttl=300)
    spend(token)


@pytest.mark.usefixtures("limits")
def test_the_holder_is_let_in_however_many_displays_the_holder_has_open(
    token: str, desk: Workspace, operator: User
) -> None:
    open_two(desk, operator)
    leases.acquire(desk, tab(operator), ttl=300)
    spend(token)


@pytest.mark.usefixtures("limits")
def test_another_tab_of_the_holder_is_not_let_into_a_full_workspace(
    desk: Workspace, operator: User, observer: User, colleague: User, browser: Browser
) -> None:
    open_two(desk, observer)
    open_stream(desk, colleague)
    leases.acquire(desk, tab(operator), ttl=300)
    with pytest.raises(TooManyStreams):
        spend(mint(desk, operator, browser, OTHER_TAB))


@pytest.mark.usefixtures("limits")
def test_a_manager_is_always_let_in(desk: Workspace, manager: User, observer: User) -> None:
    open_two(desk, observer)
    open_two(desk, manager)
    spend(mint(desk, manager, Browser(manager)))


@pytest.mark.usefixtures("limits")
def test_what_a_manager_has_open_counts_for_the_others(
    token: str, desk: Workspace, manager: User
) -> None:
    open_two(desk, manager)
    open_stream(desk, manager, "third-tab")
    with pytest.raises(TooManyStreams, match="people are watching"):
        spend(token)


@pytest.mark.usefixtures("limits")
def test_a_token_that_was_refused_for_want_of_room_can_be_tried_again(
    token: str, desk: Workspace, operator: User
) -> None:
    open_two(desk, operator)
    with pytest.raises(TooManyStreams):
        spend(token)
    DisplayStream.objects.all().delete()
    spend(token)


# --- Everywhere at once ---------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_of_ten_that_spend_a_token_at_once_one_gets_in(desk: Workspace) -> None:
    user = person("someone", role=Role.OBSERVER)
    token = mint(desk, user, Browser(user))
    start = threading.Barrier(10)

    def try_once(number: int) -> bool:
        start.wait(limit(2))
        try:
            tokens.spend(token, "desk", f"process {number}")
        except TokenRefused:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(10) as executor:
        assert sum(executor.map(try_once, range(10))) == 1
    assert DisplayStream.objects.count() == 1


# --- Many at once ---------------------------------------------------------------------------------
def test_many_are_admitted_with_as_many_queries_as_one(
    desk: Workspace, operator: User, browser: Browser
) -> None:
    counts = []
    for number in (1, 12):
        tickets = [
            tokens.Ticket(mint(desk, operator, browser, f"tab-{number:03}-{each:03}"), "desk")
            for each in range(number)
        ]
        with CaptureQueriesContext(connection) as queries:
            outcomes = tokens.spend_all(tickets, "this process")
        assert all(isinstance(each, tokens.Admission) for each in outcomes)
        assert len({each.stream.pk for each in outcomes}) == number  # type: ignore[union-attr]  # just asserted
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_who_is_refused_takes_nobody_along(
    desk: Workspace, operator: User, stranger: User, browser: Browser
) -> None:
    spent = mint(desk, operator, browser)
    spend(spent)
    good = mint(desk, operator, browser, OTHER_TAB)
    tickets = [spent, "forged", mint(desk, stranger, Browser(stranger)), good, good]
    outcomes = tokens.spend_all([tokens.Ticket(each, "desk") for each in tickets], "this process")
    assert [type(each) for each in outcomes] == [
        *(TokenRefused, TokenRefused, StreamForbidden, tokens.Admission, TokenRefused)
    ]
    assert DisplayStream.objects.count() == 2


def test_who_comes_in_the_same_batch_counts_for_the_limit(
    desk: Workspace, operator: User, browser: Browser, settings: Any
) -> None:
    settings.DISPLAY = type(settings.DISPLAY)(max_streams_per_user=2)
    tickets = [
        tokens.Ticket(mint(desk, operator, browser, f"tab-number-{each}"), "desk")
        for each in range(3)
    ]
    outcomes = tokens.spend_all(tickets, "this process")
    assert [type(each) for each in outcomes[:2]] == [tokens.Admission] * 2
    assert isinstance(outcomes[2], TooManyStreams)
