"""Signing in at an authenticating proxy, with real servers: who is believed, what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.databases import Database, Databases
from tests.support.server import LiveServer
from tests.support.timing import limit
from tests.support.trust import trusted

PROXY, ELSEWHERE = "127.0.0.2", "127.0.0.3"
USER, GROUPS = "X-Remote-User", "X-Remote-Groups"
CONTROL = "/api/workspaces/desk/display/control"
TAB = "a-browser-tab-1"

_GROUPS = """
from django.contrib.auth.models import Group, User
from django.core.management import call_command
for name in ("operators", "watchers", "of-the-database"):
    Group.objects.create(name=name)
call_command("grant", "desk", "operator", group="operators")
call_command("grant", "desk", "observer", group="watchers")
User.objects.create_user("gone", is_active=False)
"""


@dataclass
class Site:
    """A server behind a proxy that signs people in, and its database."""

    server: LiveServer
    twin: LiveServer
    database: Database


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[Site]:
    directory: Path = tmp_path_factory.mktemp("proxied")
    (directory / "password").write_text("vncpass1")
    database = databases.fresh()
    server = LiveServer(
        directory,
        database.url,
        TRUSTED_PROXIES=PROXY,
        AUTH_PROXY_HEADER=USER,
        AUTH_PROXY_GROUPS_HEADER=GROUPS,
    )
    server.populate({"desk": "tcp://127.0.0.1:1"}, directory / "password")
    server.manage("shell", "-c", _GROUPS)
    twin = server.twin(directory / "twin").start()
    yield Site(server.start(), twin, database)
    twin.stop()
    server.stop()


@dataclass
class Browser:
    """Somebody's browser; ``via`` is the address that its requests reach the server from."""

    server: LiveServer
    via: str = PROXY
    said: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        transport = httpx.HTTPTransport(local_address=self.via, verify=trusted())
        base = self.server.url
        self.client = httpx.Client(transport=transport, base_url=base, timeout=limit(1))

    def get(self, path: str = "/", **headers: str) -> httpx.Response:
        """Ask for a page, with what the proxy says."""
        return self.client.get(path, headers=self.said | headers)

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Call the API as the page does."""
        csrf = {"X-CSRFToken": self.client.cookies.get("csrftoken", "")}
        return self.client.post(path, json=body, headers=self.said | csrf | headers)

    @property
    def name(self) -> str:
        """As whom the server knows it: empty for nobody."""
        answer = self.get("/accounts/signed-in/")
        return answer.text.partition('data-user="')[2].partition('"')[0]

    @property
    def can(self) -> dict[str, bool] | None:
        """What it may do with the desktop; None where it does not even see it."""
        answer = self.get(CONTROL)
        return dict(answer.json()["can"]) if answer.status_code == 200 else None


@pytest.fixture
def browser(site: Site) -> Iterator[Any]:
    """Return a function that gives somebody a browser behind the proxy, or elsewhere."""
    opened: list[Browser] = []

    def make(user: str = "", groups: str = "", via: str = PROXY) -> Browser:
        said = {name: value for name, value in ((USER, user), (GROUPS, groups)) if value}
        opened.append(Browser(site.server, via, said))
        return opened[-1]

    yield make
    for each in opened:
        each.client.close()


def test_whom_the_proxy_names_is_signed_in_and_added_without_any_right(
    site: Site, browser: Any
) -> None:
    visitor = browser("vera@example.org")
    assert visitor.name == "vera@example.org"
    assert visitor.can is None
    assert visitor.get("/admin/").status_code == 302
    [(staff, superuser, password)] = site.database.rows(
        "SELECT is_staff, is_superuser, password FROM auth_user WHERE username = %s",
        ["vera@example.org"],
    )
    assert not staff
    assert not superuser
    assert password.startswith("!")


@pytest.mark.parametrize("via", [ELSEWHERE, "127.0.0.1"])
def test_the_header_from_any_other_address_signs_nobody_in(browser: Any, via: str) -> None:
    forger = browser("admin", "operators", via)
    assert forger.name == ""
    assert forger.get(CONTROL).status_code == 401
    assert forger.get("/", **{"X-Forwarded-For": PROXY}).status_code == 302
    assert "sessionid" not in forger.client.cookies


def test_another_spelling_of_the_header_signs_nobody_in(browser: Any) -> None:
    for via in (PROXY, ELSEWHERE):
        forger = browser(via=via)
        assert forger.get("/", X_Remote_User="admin").status_code == 302
        assert "sessionid" not in forger.client.cookies


def test_a_password_still_signs_in_where_the_proxy_names_nobody(browser: Any) -> None:
    person = browser(via=ELSEWHERE)
    page = person.get("/accounts/login/")
    form = page.text.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    data = {"username": "operator", "password": "operator-pass", "csrfmiddlewaretoken": form}
    assert person.client.post("/accounts/login/", data=data).status_code == 302
    assert person.name == "operator"


def test_groups_that_are_named_give_what_they_were_granted(browser: Any) -> None:
    assert browser("olga", "operators, unknown").can == {
        "observe": True,
        "control": True,
        "force": False,
    }
    assert browser("walter", "watchers").can["control"] is False
    assert browser("norbert", "unknown").can is None


def test_groups_follow_the_header_within_the_same_session(site: Site, browser: Any) -> None:
    person = browser("paula", "operators")
    assert person.can["control"] is True
    session = person.client.cookies["sessionid"]
    person.said[GROUPS] = "watchers"
    assert person.can["control"] is False
    del person.said[GROUPS]
    assert person.can is None
    assert person.client.cookies["sessionid"] == session


def test_a_group_that_is_named_no_more_ends_control(browser: Any) -> None:
    holder, watcher = browser("hanna", "operators"), browser("wilma", "watchers")
    holder.get("/")
    taken = holder.post(f"{CONTROL}/acquire", {"client_id": TAB})
    assert taken.status_code == 200, taken.text
    holder.said[GROUPS] = "watchers"
    holder.get("/")
    after = watcher.get(CONTROL).json()
    assert (after["controller"], after["last_end"]["reason"]) == ("none", "access_ended")


def test_another_name_ends_the_session_of_the_one_before(browser: Any) -> None:
    shared = browser("first")
    assert shared.name == "first"
    before = shared.client.cookies["sessionid"]
    shared.said[USER] = "second"
    assert shared.name == "second"
    old = Browser(shared.server, PROXY)
    old.client.cookies.set("sessionid", before)
    assert old.name == ""
    old.client.close()


def test_a_session_goes_on_where_the_proxy_names_nobody_as_for_the_api(browser: Any) -> None:
    person = browser("peter", "operators")
    person.get("/")
    person.said.clear()
    assert person.get("/api/workspaces").status_code == 200
    assert person.post(f"{CONTROL}/release", {"client_id": TAB}).status_code == 200


def test_a_call_that_changes_something_begins_no_session(browser: Any) -> None:
    person = browser("petra", "operators")
    answer = person.post(f"{CONTROL}/release", {"client_id": TAB})
    assert answer.status_code == 401
    assert "sessionid" not in person.client.cookies


def test_a_session_lasts_for_twelve_hours(browser: Any) -> None:
    person = browser("paul")
    [cookie] = [
        each for each in person.get("/").headers.get_list("Set-Cookie") if "sessionid" in each
    ]
    seconds = int(cookie.lower().partition("max-age=")[2].partition(";")[0])
    assert 11 * 3600 < seconds <= 12 * 3600


@pytest.mark.parametrize("name", ["gone", "x" * 151, "no spaces here", "<script>"])
def test_who_is_disabled_or_can_have_no_account_is_not_signed_in(browser: Any, name: str) -> None:
    person = browser(name)
    assert person.name == ""
    assert person.get("/").status_code == 302
    assert person.get(CONTROL).status_code == 401


def test_the_account_of_an_api_token_is_nobody_to_sign_in_as(site: Site, browser: Any) -> None:
    site.server.manage("add_token", "robot", "--scope", "control", "--all-workspaces")
    [(account,)] = site.database.rows(
        "SELECT username FROM auth_user JOIN controlplane_apitoken ON account_id = auth_user.id"
        " WHERE name = %s",
        ["robot"],
    )
    assert browser(account, "operators").name == ""


def test_api_tokens_work_beside_it_and_are_nobody_else(site: Site, browser: Any) -> None:
    made = site.server.manage("add_token", "program", "--scope", "control", "--workspace", "desk")
    bearer = {"Authorization": f"Bearer {made.split()[-1]}"}
    for program in (browser("admin"), browser(), browser("admin", via=ELSEWHERE)):
        answer = program.get(CONTROL, **bearer)
        assert answer.status_code == 200
        assert answer.json()["can"] == {"observe": True, "control": True, "force": False}
        assert "sessionid" not in program.client.cookies


def test_health_checks_are_nobodys(browser: Any) -> None:
    probe = browser("probe")
    assert probe.get("/healthz").status_code == 200
    assert "sessionid" not in probe.client.cookies


def test_wrong_passwords_count_for_the_address_that_the_proxy_names_on_every_node(
    site: Site, browser: Any
) -> None:
    def guess(node: LiveServer, address: str, password: str = "a-wrong-guess") -> int:
        person = Browser(node, PROXY, {"X-Forwarded-For": f"1.1.1.1, {address}"})
        page = person.get("/accounts/login/")
        form = page.text.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
        data = {"username": "observer", "password": password, "csrfmiddlewaretoken": form}
        answer = person.client.post("/accounts/login/", data=data, headers=person.said)
        person.client.close()
        return answer.status_code

    nodes = [site.server, site.twin] * 5
    assert [guess(node, "203.0.113.7") for node in nodes] == [200] * 9 + [429]
    assert guess(site.server, "203.0.113.7", "observer-pass") == 429
    assert guess(site.twin, "203.0.113.7", "observer-pass") == 429
    assert guess(site.twin, "203.0.113.8", "observer-pass") == 302
