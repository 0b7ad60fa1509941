"""Webhooks: what is written with events, and how it reaches a real receiver by a real worker."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from procrastinate.contrib.django import app as queue

from controlplane import handovers, housekeeping, leases
from controlplane.exceptions import ControlRefused
from controlplane.models import ControlEvent, Webhook, WebhookDelivery, Workspace
from controlplane.presenters import iso
from controlplane.webhooks import adding, deliveries, outbox
from controlplane.webhooks.deliveries import Outcome, due_lanes, settle, take
from controlplane.webhooks.outbox import Lane
from tests.integration.people import OTHER_TAB, now, person, tab
from tests.support import commands
from tests.support.processes import ROOT, Process
from tests.support.receiver import Receiver
from tests.support.timing import wait_until

DELIVERIES = "controlplane_webhookdelivery"
SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{43}=")
LOOPBACK = "127.0.0.0/8"


@pytest.fixture(autouse=True)
def _loopback_may_be_told(settings: Any) -> None:
    settings.WEBHOOK_ALLOW = [ip_network(LOOPBACK)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server that takes down what it is told."""
    server = Receiver().start()
    yield server
    server.stop()


@pytest.fixture
def hook(desk: Workspace, receiver: Receiver) -> Webhook:
    """A webhook for all workspaces."""
    return adding.create("Platform", receiver.url)[0]


def come_and_go(desk: Workspace, user: User) -> None:
    """Take control and give it back: two events."""
    leases.acquire(desk, tab(user), ttl=300)
    leases.release(desk, tab(user))


def waiting() -> list[str]:
    rows = WebhookDelivery.objects.filter(delivered_at=None, failed_at=None).order_by("pk")
    return [each.event.what for each in rows.select_related("event")]


def ends(hook: Webhook) -> tuple[int, int]:
    """Return how many of its deliveries came to a good end, and how many were given up."""
    hook.refresh_from_db()
    return hook.delivered, hook.given_up


def put_off() -> None:
    """Have everything that waits be due."""
    WebhookDelivery.objects.update(next_try_at=Now() - timedelta(seconds=1))


def age_deliveries(days: float) -> None:
    WebhookDelivery.objects.update(created_at=Now() - timedelta(days=days))


# --- Writing --------------------------------------------------------------------------------------
def test_each_webhook_that_wants_an_event_gets_a_delivery(
    hook: Webhook, desk: Workspace, operator: User, receiver: Receiver
) -> None:
    other = Workspace.objects.create(slug="other", upstream_url="tcp://127.0.0.1:5998")
    own, _ = adding.create("Own", receiver.url, workspace=desk)
    adding.create("Elsewhere", receiver.url, workspace=other)
    off, _ = adding.create("Off", receiver.url)
    Webhook.objects.filter(pk=off.pk).update(enabled=False)
    leases.acquire(desk, tab(operator), ttl=300)
    found = WebhookDelivery.objects.values_list("webhook", "workspace_slug", "event__what")
    assert sorted(found) == [(hook.pk, "desk", "acquired"), (own.pk, "desk", "acquired")]
    row = WebhookDelivery.objects.first()
    assert row is not None
    assert abs(row.next_try_at - now()) < timedelta(seconds=10)
    assert abs(row.created_at - now()) < timedelta(seconds=10)


def test_requests_are_told_and_refusals_and_keeping_are_not(
    hook: Webhook, desk: Workspace, operator: User, colleague: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    handovers.ask(desk, tab(colleague, OTHER_TAB), message="Please")
    leases.keep(desk, tab(operator), epoch=1, ttl=300)
    with pytest.raises(ControlRefused):
        leases.acquire(desk, tab(colleague, OTHER_TAB), ttl=300)
    assert set(ControlEvent.objects.values_list("what", flat=True)) >= {"kept", "refused"}
    assert waiting() == ["acquired", "requested"]


def test_what_is_rolled_back_is_told_to_nobody(
    hook: Webhook, desk: Workspace, operator: User
) -> None:
    with transaction.atomic():
        leases.acquire(desk, tab(operator), ttl=300)
        assert waiting() == ["acquired"]
        transaction.set_rollback(True)
    assert waiting() == []


def test_a_decision_costs_one_query_more_and_a_renewal_none(
    desk: Workspace, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(call: Callable[..., Any], *args: Any, **options: Any) -> list[str]:
        with CaptureQueriesContext(connection) as found:
            call(*args, **options)
        return [each["sql"] for each in found.captured_queries]

    holder = tab(operator)
    taking = count(leases.acquire, desk, holder, ttl=300)
    renewing = count(leases.acquire, desk, holder, ttl=300, epoch=1)
    assert sum("webhook" in sql for sql in taking) == 1
    assert sum("webhook" in sql for sql in renewing) == 0


def test_the_payload_names_no_client_and_no_address(
    hook: Webhook, desk: Workspace, operator: User
) -> None:
    come_and_go(desk, operator)
    event = ControlEvent.objects.get(what="released")
    assert (event.client_id, event.ip) != ("", None)
    assert deliveries.payload(event) == {
        "type": "control.released",
        "timestamp": iso(event.at),
        "data": {
            "workspace": "desk",
            "name": "Desk 12",
            "what": "released",
            "who": "Olive Operator",
            "epoch": 1,
            "ended_epoch": 1,
            "reason": "released",
            "note": "",
            "id": event.pk,
        },
    }


# --- Taking turns ---------------------------------------------------------------------------------
def test_a_lane_is_taken_in_order_and_by_one_at_a_time(
    hook: Webhook, desk: Workspace, operator: User
) -> None:
    come_and_go(desk, operator)
    lane = Lane(hook.pk, "desk")
    assert due_lanes() == [lane]
    first = take(lane)
    assert isinstance(first, WebhookDelivery)
    assert (first.event.what, first.attempts) == ("acquired", 1)
    assert due_lanes() == []
    later = take(lane)
    assert not isinstance(later, WebhookDelivery)
    assert later is not None
    settle(first, Outcome(200))
    second = take(lane)
    assert isinstance(second, WebhookDelivery)
    settle(second, Outcome(200))
    assert take(lane) is None
    assert waiting() == []
    assert ends(hook) == (2, 0)


def test_what_comes_later_waits_for_what_has_failed(
    hook: Webhook, desk: Workspace, operator: User
) -> None:
    come_and_go(desk, operator)
    lane = Lane(hook.pk, "desk")
    first = take(lane)
    assert isinstance(first, WebhookDelivery)
    settle(first, Outcome(500, "it answered 500"))
    assert due_lanes() == []
    row = WebhookDelivery.objects.get(pk=first.pk)
    assert (row.last_status, row.last_error) == (500, "it answered 500")
    assert timedelta(seconds=3) < row.next_try_at - now() <= timedelta(seconds=5)


def test_what_another_has_begun_since_is_not_written_over(
    hook: Webhook, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    lane = Lane(hook.pk, "desk")
    slow = take(lane)
    put_off()
    quick = take(lane)
    assert isinstance(slow, WebhookDelivery)
    assert isinstance(quick, WebhookDelivery)
    settle(slow, Outcome(error="too late"))
    assert WebhookDelivery.objects.get().last_error == ""
    assert ends(hook) == (0, 0)
    settle(quick, Outcome(200))
    assert waiting() == []
    assert ends(hook) == (1, 0)


def test_the_pauses_grow_to_an_hour() -> None:
    assert [deliveries.pause_after(n) for n in (1, 2, 3, 4)] == [5, 15, 45, 135]
    assert {deliveries.pause_after(n) for n in (7, 30, 3000)} == {3600}


def test_what_fails_for_a_day_is_given_up_and_skipped_and_said(
    hook: Webhook, desk: Workspace, operator: User, caplog: pytest.LogCaptureFixture
) -> None:
    come_and_go(desk, operator)
    age_deliveries(days=1)
    lane = Lane(hook.pk, "desk")
    first = take(lane)
    assert isinstance(first, WebhookDelivery)
    settle(first, Outcome(500, "it answered 500"))
    assert waiting() == ["released"]
    assert WebhookDelivery.objects.get(pk=first.pk).failed_at is not None
    assert ends(hook) == (0, 1)
    assert (
        f"Platform: event {first.event_id} is given up and skipped: it answered 500" in caplog.text
    )
    assert due_lanes() == [lane]


def test_a_webhook_that_is_switched_off_waits(
    hook: Webhook, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    Webhook.objects.update(enabled=False)
    assert (due_lanes(), take(Lane(hook.pk, "desk"))) == ([], None)
    Webhook.objects.update(enabled=True)
    assert due_lanes() == [Lane(hook.pk, "desk")]


def test_a_removed_workspace_is_still_told_of(
    hook: Webhook, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    desk.delete()
    taken = take(Lane(hook.pk, "desk"))
    assert isinstance(taken, WebhookDelivery)
    assert deliveries.payload(taken.event)["data"]["name"] == "desk"


def test_what_has_ended_is_removed_after_a_month(
    hook: Webhook, desk: Workspace, operator: User
) -> None:
    come_and_go(desk, operator)
    taken = take(Lane(hook.pk, "desk"))
    assert isinstance(taken, WebhookDelivery)
    settle(taken, Outcome(200))
    age_deliveries(days=29)
    housekeeping.tidy()
    assert WebhookDelivery.objects.count() == 2
    age_deliveries(days=31)
    housekeeping.tidy()
    assert waiting() == ["released"]
    assert WebhookDelivery.objects.count() == 1


def test_pruning_counts_events_and_not_what_was_told_of_them(
    hook: Webhook, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    ControlEvent.objects.update(at=Now() - timedelta(days=3))
    output = StringIO()
    call_command("prune_events", "--days", "2", stdout=output)
    assert output.getvalue() == "1 event(s) removed\n"
    assert waiting() == []


# --- The worker -----------------------------------------------------------------------------------
def database_url() -> str:
    config = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{config['NAME']}"
    return f"postgres://{config['USER']}@{config['HOST']}:{config['PORT']}/{config['NAME']}"


def environment() -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": database_url(), "WEBHOOK_ALLOW": LOOPBACK}


@pytest.fixture
def _empty_queue(transactional_db: None) -> Iterator[None]:
    """The queue's tables are not Django's to empty after a test."""
    yield
    if outbox.has_queue():
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM procrastinate_jobs")


@pytest.fixture
def workers(tmp_path: Path, _empty_queue: None) -> Iterator[Callable[[], Process]]:
    """Starts workers that go on; all write into one log."""
    started: list[Process] = []

    def start() -> Process:
        log = tmp_path / f"worker-{len(started)}.log"
        started.append(commands.start(["deliver_webhooks"], environment(), log))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def deliver_once() -> str:
    """Deliver what is due by a worker of its own; return what it logs."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        worker = commands.start(["deliver_webhooks", "--once"], environment(), log)
        assert worker.wait(expected=6) == 0, worker.log()
        return worker.log()


def documented_verification() -> Callable[[str, dict[str, str], bytes], None]:
    """Return the function that docs/webhooks.md gives to receivers."""
    text = (ROOT / "docs/webhooks.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)
    return names["verify"]  # type: ignore[no-any-return]  # it is what the document says


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_empty_queue")
def test_a_delivery_passes_the_documented_verification(
    hook: Webhook, desk: Workspace, operator: User, receiver: Receiver
) -> None:
    come_and_go(desk, operator)
    deliver_once()
    assert receiver.kinds() == ["acquired", "released"]
    verify = documented_verification()
    for told in receiver.told:
        verify(hook.secret, told.headers, told.body)
        assert told.headers["webhook-id"] == f"evt_{told.data['id']}"
        assert told.headers["content-type"] == "application/json"
    first = receiver.told[0]
    for secret, body in (
        (hook.secret, first.body + b" "),
        (f"whsec_{'A' * 43}=", first.body),
    ):
        with pytest.raises(ValueError, match="not signed"):
            verify(secret, first.headers, body)
    with pytest.raises(ValueError, match="too old"):
        verify(hook.secret, {**first.headers, "webhook-timestamp": "1000000000"}, first.body)


@pytest.mark.django_db(transaction=True)
def test_a_receiver_that_was_away_is_told_in_order_once_it_is_back(
    hook: Webhook,
    desk: Workspace,
    operator: User,
    receiver: Receiver,
    workers: Callable[[], Process],
) -> None:
    receiver.stop()
    workers()
    come_and_go(desk, operator)
    tried = WebhookDelivery.objects.exclude(last_error="")
    wait_until(tried.exists, "it has been tried in vain", expected=10)
    come_and_go(desk, operator)
    receiver.start()
    wait_until(lambda: len(receiver.told) == 4, "all has been told", expected=15)
    assert receiver.kinds() == ["acquired", "released"] * 2
    assert [each.data["epoch"] for each in receiver.told] == [1, 1, 2, 2]
    wait_until(lambda: waiting() == [], "and written down")


@pytest.mark.django_db(transaction=True)
def test_two_workers_tell_each_event_once_and_in_order(
    hook: Webhook,
    desk: Workspace,
    operator: User,
    receiver: Receiver,
    workers: Callable[[], Process],
) -> None:
    other = Workspace.objects.create(slug="other", name="Other", upstream_url="tcp://127.0.0.1:1")
    person("second", "Sec Ond", is_superuser=True)
    second = User.objects.get(username="second")
    adding.create("Another", receiver.url)
    come_and_go(desk, operator)
    workers(), workers()
    for _ in range(5):
        come_and_go(desk, operator)
        come_and_go(other, second)
    wait_until(lambda: waiting() == [], "all has been told", expected=20)
    assert len(receiver.told) == 2 * (12 + 10)
    keys = [hook.secret, Webhook.objects.get(name="Another").secret]
    verify = documented_verification()
    for slug, count in (("desk", 12), ("other", 10)):
        for secret in keys:
            ids = []
            for told in receiver.told:
                try:
                    verify(secret, told.headers, told.body)
                except ValueError:
                    continue
                if told.data["workspace"] == slug:
                    ids.append(told.data["id"])
            assert ids == sorted(set(ids))
            assert len(ids) == count


def test_jobs_from_before_an_upgrade_find_their_tasks() -> None:
    ours = {name for name in queue.tasks if name.startswith(outbox.QUEUE)}
    assert ours == ({"webhooks:deliver", "webhooks:look"} if outbox.has_queue() else set())
    assert outbox.DELIVER == "webhooks:deliver"


@pytest.mark.django_db(transaction=True)
def test_what_a_killed_worker_had_taken_is_delivered_by_the_next(
    hook: Webhook,
    desk: Workspace,
    operator: User,
    receiver: Receiver,
    workers: Callable[[], Process],
) -> None:
    receiver.hangs.set()
    worker = workers()
    come_and_go(desk, operator)
    wait_until(lambda: receiver.told, "it is being sent", expected=10)
    worker.kill()
    receiver.hangs.clear()
    put_off()  # the minute for which it had taken it is over
    if outbox.has_queue():  # and its heart has not beaten since
        with connection.cursor() as cursor:
            old = "last_heartbeat = now() - interval '1 minute'"
            cursor.execute(f"UPDATE procrastinate_workers SET {old}")
    deliver_once()
    assert receiver.kinds() == ["acquired", "acquired", "released"]
    assert waiting() == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_empty_queue")
def test_neither_a_redirect_nor_a_private_address_is_told_and_both_are_said(
    hook: Webhook, desk: Workspace, operator: User, receiver: Receiver
) -> None:
    receiver.status, receiver.location = 307, receiver.url
    leases.acquire(desk, tab(operator), ttl=300)
    log = deliver_once()
    assert len(receiver.told) == 1
    row = WebhookDelivery.objects.get()
    assert (row.last_status, row.last_error) == (307, "it answered 307; redirects are not followed")
    assert row.last_error in log
    Webhook.objects.update(url="http://10.255.255.1/secret-path")
    put_off()
    log += deliver_once()
    assert "WEBHOOK_ALLOW" in WebhookDelivery.objects.get().last_error
    for hidden in (hook.secret, hook.secret[6:], "geheim", "secret-path"):
        assert hidden not in log


# --- Commands -------------------------------------------------------------------------------------
def run(*args: str) -> tuple[str, str]:
    output, beside = StringIO(), StringIO()
    call_command(*args, stdout=output, stderr=beside)
    return output.getvalue(), beside.getvalue()


def test_the_secret_alone_is_printed_once_and_kept_encrypted(
    desk: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    output, beside = run(
        "add_webhook", "Platform", "https://hooks.example/x", "--workspace", "desk"
    )
    secret = output.removesuffix("\n")
    assert SECRET.fullmatch(secret)
    assert beside == "Platform: added (desk). Its secret is not shown again.\n"
    row = Webhook.objects.get()
    assert (row.secret, row.workspace, row.created_by) == (secret, desk, "the administrator")
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM controlplane_webhook")
        assert secret not in str(cursor.fetchone())
    assert secret not in caplog.text


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["Mine", "ftp://hooks.example"], "url: It must be an address"),
        (["Mine", "http://10.0.0.1/"], "WEBHOOK_ALLOW"),
        (["Mine", "http://[::ffff:10.0.0.1]/"], "WEBHOOK_ALLOW"),
        (["Mine", "https://hooks.example", "--workspace", "none"], "No such workspace: none"),
        (["Platform", "https://hooks.example"], "name: Webhook with this Name already exists"),
        (["", "https://hooks.example"], "name: This field cannot be blank"),
    ],
)
def test_a_webhook_that_cannot_be_is_refused_and_says_why(
    args: list[str], problem: str, hook: Webhook
) -> None:
    with pytest.raises(CommandError) as caught:
        run("add_webhook", *args)
    assert problem in str(caught.value)
    assert Webhook.objects.count() == 1


def test_a_secret_that_no_key_fits_is_said_and_reencrypt_keeps_those_that_fit(
    hook: Webhook, desk: Workspace, operator: User, settings: Any
) -> None:
    secret, former = hook.secret, settings.SECRET_KEY
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another" * 9, [former]
    assert run("reencrypt")[0] == "1 secret(s) encrypted anew\n"
    settings.SECRET_KEY_FALLBACKS = []
    assert Webhook.objects.get().secret == secret
    settings.SECRET_KEY = "lost" * 16
    assert not Webhook.objects.get().is_secret_readable
    with pytest.raises(CommandError, match="webhook Platform"):
        run("reencrypt")
    leases.acquire(desk, tab(operator), ttl=300)
    taken = take(Lane(hook.pk, "desk"))
    assert isinstance(taken, WebhookDelivery)
    assert "SECRET_KEY" in asyncio.run(deliveries.send(taken)).error


# --- The admin ------------------------------------------------------------------------------------
@pytest.fixture
def office(admin: User) -> Client:
    """The admin's browser."""
    client = Client()
    client.force_login(admin)
    return client


def test_the_admin_shows_a_new_secret_once_and_never_again(
    office: Client, desk: Workspace, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    fields = {"name": "Platform", "url": receiver.url, "workspace": "", "enabled": "on"}
    answer = office.post(reverse("admin:controlplane_webhook_add"), fields)
    assert "no-store" in answer.headers["Cache-Control"]
    (secret,) = set(SECRET.findall(answer.content.decode()))
    row = Webhook.objects.get()
    assert (row.secret, row.created_by) == (secret, "Ada Admin")
    change = reverse("admin:controlplane_webhook_change", args=[row.pk])
    history = reverse("admin:controlplane_webhook_history", args=[row.pk])
    for url in (change, history, reverse("admin:controlplane_webhook_changelist")):
        page = office.get(url)
        assert page.status_code == 200
        assert secret[6:20] not in page.content.decode()
    office.post(change, {**fields, "name": "Renamed", "workspace": desk.pk})
    row.refresh_from_db()
    assert (row.name, row.workspace, row.secret) == ("Renamed", desk, secret)
    assert secret not in caplog.text
    assert (
        office.post(
            reverse("admin:controlplane_webhook_add"), {**fields, "url": "http://10.0.0.1/"}
        )
        .context["adminform"]
        .errors
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_empty_queue")
def test_the_admin_has_what_was_told_delivered_again(
    office: Client, hook: Webhook, desk: Workspace, operator: User, receiver: Receiver
) -> None:
    come_and_go(desk, operator)
    deliver_once()
    leases.acquire(desk, tab(operator), ttl=300)
    rows = WebhookDelivery.objects.order_by("pk")
    data = {
        "action": "deliver_again",
        "_selected_action": [str(each.pk) for each in rows if each.event.what != "released"],
    }
    answer = office.post(reverse(f"admin:{DELIVERIES}_changelist"), data, follow=True)
    assert "1 will be delivered again; 1 were waiting anyway." in answer.content.decode()
    deliver_once()
    assert receiver.kinds() == ["acquired", "released", "acquired", "acquired"]
    ids = [each.headers["webhook-id"] for each in receiver.told]
    assert ids[0] == ids[2] != ids[3]
    page = office.get(reverse(f"admin:{DELIVERIES}_changelist"), {"state": "delivered"})
    assert page.content.decode().count("delivered</td>") == 4


def test_staff_who_may_only_look_deliver_nothing_again(
    hook: Webhook, desk: Workspace, operator: User
) -> None:
    clerk = person("clerk", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_webhookdelivery"))
    client = Client()
    client.force_login(clerk)
    leases.acquire(desk, tab(operator), ttl=300)
    page = client.get(reverse(f"admin:{DELIVERIES}_changelist")).content.decode()
    assert "waiting" in page
    assert 'value="deliver_again"' not in page
    assert client.get(reverse("admin:controlplane_webhook_add")).status_code == 403


def test_a_workspace_with_webhooks_can_be_deleted_in_the_admin(
    office: Client, desk: Workspace, operator: User, receiver: Receiver
) -> None:
    adding.create("Own", receiver.url, workspace=desk)
    leases.acquire(desk, tab(operator), ttl=300)
    url = reverse("admin:controlplane_workspace_delete", args=[desk.pk])
    office.post(url, {"post": "yes"})
    assert (Workspace.objects.count(), Webhook.objects.count()) == (0, 0)
