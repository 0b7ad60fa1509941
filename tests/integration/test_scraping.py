"""What /metrics reads from the database, and to whom it is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.db.models.functions import Now
from django.test import Client

from controlplane import leases, scraping
from controlplane.models import (
    ControlEvent,
    DisplayControlLease,
    Webhook,
    WebhookDelivery,
    Workspace,
)
from tests.integration.people import agent, lease_of, let_expire, person, tab
from tests.support.scrape import Scrape

TOKEN = "scrape-0123456789-abcdefghij"


@pytest.fixture
def other(desk: Workspace) -> Workspace:
    """A second desktop."""
    return Workspace.objects.create(slug="other", name="Other", upstream_url="tcp://127.0.0.1:9")


def ask(client: Client | None = None, token: str = TOKEN, **headers: str) -> Any:
    return (client or Client()).get("/metrics", headers={"Authorization": token} | headers)


# --- What is read ---------------------------------------------------------------------------------
def test_leases_are_told_by_controller(desk: Workspace, other: Workspace, operator: User) -> None:
    assert scraping.read().held == {"user": 0, "agent": 0}
    leases.acquire(desk, tab(operator), ttl=300)
    robot = person("robot", is_superuser=True)
    leases.acquire(other, agent(robot), ttl=300)
    assert scraping.read().held == {"user": 1, "agent": 1}
    let_expire(other)
    assert scraping.read().held == {"user": 1, "agent": 0}


def test_a_desktop_is_parked_until_that_is_over(desk: Workspace, operator: User) -> None:
    leases.acquire(desk, agent(person("robot", is_superuser=True)), ttl=300)
    leases.acquire(desk, tab(operator), ttl=300)
    assert scraping.read().parked == 0
    let_expire(desk, seconds_ago=100)  # nobody has noticed it yet
    assert scraping.read().parked == 1
    Workspace.objects.filter(pk=desk.pk).update(parked_seconds=60)
    assert scraping.read().parked == 0


def test_closed_desktops_are_told(desk: Workspace, other: Workspace) -> None:
    leases.close(desk, by="Mary Manager", note="It is being repaired.")
    assert lease_of(desk).closed_at
    assert scraping.read().closed == 1


def test_what_came_of_deliveries_is_told_when_their_rows_are_long_gone(desk: Workspace) -> None:
    Webhook.objects.create(name="Platform", url="https://hooks.example/", delivered=7, given_up=1)
    assert scraping.read().deliveries == [("Platform", 7, 1)]


def test_deliveries_that_wait_are_told(desk: Workspace) -> None:
    webhook = Webhook.objects.create(name="Platform", url="https://hooks.example/", secret="s")
    event = ControlEvent.objects.create(
        workspace=desk, workspace_slug="desk", what="acquired", epoch=1, at=Now()
    )
    assert scraping.read().longest_wait == 0
    fates: list[dict[str, Any]] = [
        {},
        {"created_at": Now() - timedelta(seconds=100)},
        {"delivered_at": Now(), "created_at": Now() - timedelta(seconds=1000)},
        {"failed_at": Now(), "created_at": Now() - timedelta(seconds=1000)},
    ]
    for fate in fates:
        WebhookDelivery.objects.create(webhook=webhook, event=event, workspace_slug="desk", **fate)
    facts = scraping.read()
    assert facts.waiting == 2
    assert 100 <= facts.longest_wait < 1000


def test_it_takes_few_questions_however_many_desktops(
    desk: Workspace, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        Workspace.objects.create(slug=f"desk-{number}", name="Desk")
    DisplayControlLease.objects.update(parked_at=Now())
    with django_assert_max_num_queries(6):
        assert scraping.read().parked == 21


# --- To whom --------------------------------------------------------------------------------------
def test_without_the_setting_there_is_no_such_page(db: None) -> None:
    assert ask().status_code == 404
    assert ask(token="Bearer ").status_code == 404


@pytest.mark.parametrize(
    "shown", ["", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"]
)
def test_who_does_not_show_the_token_learns_nothing(shown: str, settings: Any, admin: User) -> None:
    settings.METRICS_TOKEN = TOKEN
    client = Client()
    client.force_login(admin)  # a superuser is nobody special here
    answer = ask(client, shown)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert b"desktopctl_" not in answer.content


def test_who_shows_it_is_told_under_any_name_without_a_session_or_a_rate(
    settings: Any, db: None, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    settings.METRICS_TOKEN = TOKEN
    settings.API_RATE_PER_ADDRESS = None  # to look at it would be an error

    async def nothing() -> None:
        return None

    monkeypatch.setattr(scraping, "_look", nothing)
    with django_assert_num_queries(0):
        answer = ask(token=f"bearer {TOKEN}", Host="10.9.8.7:8000")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert not answer.cookies
    assert Scrape.of(answer.content.decode()).has("streams")


@pytest.mark.django_db(transaction=True)
def test_a_database_that_fails_is_told_and_the_rest_all_the_same(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.METRICS_TOKEN = TOKEN
    assert Scrape.of(ask(token=f"Bearer {TOKEN}").content.decode()).value("database_up") == 1

    def fail() -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(scraping, "read", fail)
    told = Scrape.of(ask(token=f"Bearer {TOKEN}").content.decode())
    assert told.has("database_up")
    assert told.value("database_up") == 0
    assert not told.has("leases_held")
    assert told.has("streams")
    assert "metrics lack what the database knows" in caplog.text
