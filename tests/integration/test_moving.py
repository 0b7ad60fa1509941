"""Desktops that move, vanish or report elsewhere while people watch them; streams cut by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import httpx
import pytest

from tests.support.databases import Database, Databases
from tests.support.rfb import SHIFT, key
from tests.support.server import LiveServer
from tests.support.stream_client import ApiClient, StreamClient
from tests.support.timing import limit, wait_until
from tests.support.vnc_server import FakeVnc

DESK = "/api/workspaces/desk"


@pytest.fixture(scope="module", params=["uvicorn", "daphne"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    databases: Databases,
) -> Iterator[tuple[LiveServer, Database]]:
    """A server behind a proxy on this machine, and its database."""
    directory = tmp_path_factory.mktemp("server")
    (directory / "password").write_text("geheim12\n")
    database = databases.fresh()
    server = LiveServer(directory, database.url, TRUSTED_PROXIES="127.0.0.1")
    server.populate({}, directory / "password")
    yield server.start(request.param), database
    server.stop()


@pytest.fixture(scope="module")
def people(server: tuple[LiveServer, Database]) -> Iterator[dict[str, ApiClient]]:
    """Everybody, logged in once."""
    with ExitStack() as logins:
        yield {
            name: logins.enter_context(closing(ApiClient(server[0].url, name)))
            for name in ("operator", "observer", "admin")
        }


@pytest.fixture
def desks(
    people: dict[str, ApiClient], server: tuple[LiveServer, Database]
) -> Iterator[list[FakeVnc]]:
    """Two desktops; the workspace, new for each test, leads to the first."""
    fakes = [FakeVnc().start(), FakeVnc().start()]
    people["admin"].call("DELETE", DESK)
    put(people["admin"], fakes[0])
    for name in ("operator", "observer"):
        server[0].manage("grant", "desk", name, name)
    yield fakes
    StreamClient.close_all()
    for fake in fakes:
        fake.stop()


def put(admin: ApiClient, desktop: FakeVnc) -> None:
    admin.call("PUT", DESK, json={"upstream_url": desktop.url}).raise_for_status_is(201)


def patch(admin: ApiClient, **values: object) -> None:
    admin.call("PATCH", DESK, json=values).raise_for_status_is(200)


def test_a_new_address_moves_everybody_to_the_new_desktop_and_control_with_them(
    desks: list[FakeVnc], people: dict[str, ApiClient]
) -> None:
    old, new = desks
    watching, driving = people["observer"].open("desk"), people["operator"].open("desk")
    epoch = people["operator"].acquire("desk")["epoch"]
    driving.in_control().send(key(True, SHIFT))
    wait_until(lambda: any(each.of_type(4) for each in old.connections), "Shift arrives")
    patch(people["admin"], upstream_url=new.url)
    assert [stream.closed()[0] for stream in (watching, driving)] == [4503, 4503]
    wait_until(lambda: all(each.ended for each in old.connections), "the old desktop is left")
    (pressed,) = [each for each in old.connections if each.of_type(4)]
    assert key(False, SHIFT) in pressed.of_type(4)
    people["observer"].open("desk")
    assert people["operator"].acquire("desk", epoch=epoch)["epoch"] == epoch
    people["operator"].open("desk").in_control().send(key(True), key(False))
    new.wait_for(key(True), key(False))
    assert len(new.connections) == 2
    assert not any(key(True) in each.messages for each in old.connections)


def test_what_changes_nothing_about_the_way_there_ends_no_stream(
    desks: list[FakeVnc], people: dict[str, ApiClient]
) -> None:
    stream = people["operator"].open("desk")
    patch(people["admin"], name="Renamed", idle_seconds=600, upstream_url=desks[0].url)
    people["operator"].acquire("desk")
    stream.in_control().send(key(True), key(False))
    desks[0].wait_for(key(True), key(False))


@pytest.mark.parametrize("way", ["removed", "disabled"])
def test_what_is_removed_or_disabled_ends_everybodys_stream_with_4404(
    way: str, desks: list[FakeVnc], people: dict[str, ApiClient]
) -> None:
    streams = [people[name].open("desk") for name in ("observer", "operator", "admin")]
    people["operator"].acquire("desk")
    streams[1].in_control()
    if way == "removed":
        assert people["admin"].call("DELETE", DESK).response.status_code == 204
    else:
        patch(people["admin"], enabled=False)
    assert [stream.closed()[0] for stream in streams] == [4404] * 3
    wait_until(lambda: all(each.ended for each in desks[0].connections), "the desktop is left")


def test_a_desktop_that_reports_itself_is_where_streams_go(
    desks: list[FakeVnc], people: dict[str, ApiClient], server: tuple[LiveServer, Database]
) -> None:
    stream = people["observer"].open("desk")
    token = server[0].manage("registration_token", "desk").strip()
    headers = {"Authorization": f"Bearer {token}"}
    path = f"{server[0].url}{DESK}/register"

    def report(body: dict[str, object], **more: str) -> str:
        answer = httpx.post(path, json=body, headers={**headers, **more}, timeout=limit(1))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["upstream_url"])

    assert report({"port": desks[1].port}) == desks[1].url
    assert stream.closed()[0] == 4503
    people["observer"].open("desk")
    assert len(desks[1].connections) == 1
    forwarded = {"X-Forwarded-For": "203.0.113.9, 192.0.2.7"}
    assert report({}, **forwarded) == "tcp://192.0.2.7:5900"


def test_disconnecting_in_the_admin_ends_that_stream_and_no_other(
    desks: list[FakeVnc], people: dict[str, ApiClient], server: tuple[LiveServer, Database]
) -> None:
    cut, stays = people["observer"].open("desk"), people["operator"].open("desk")
    ((pk,),) = server[1].rows(
        "SELECT s.id FROM controlplane_displaystream s JOIN auth_user u ON u.id = s.user_id "
        "WHERE u.username = %s AND s.closed_at IS NULL",
        ["observer"],
    )
    form = {"action": "disconnect", "_selected_action": str(pk)}
    people["admin"].post("/admin/controlplane/displaystream/", data=form).raise_for_status_is(302)
    assert cut.closed()[0] == 4403
    people["operator"].acquire("desk")
    stays.in_control()
