"""Signing in with an OpenID provider: real servers, a real provider, no part of it replaced."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module, reload
from itertools import count
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import psycopg
import pytest
from django.db import DEFAULT_DB_ALIAS, connections
from django.test import Client
from django.urls import clear_url_caches
from joserfc import jwt
from joserfc.jwk import RSAKey

from controlplane.providerusers import BACKEND
from tests.support.authenticator import code_of, recovery_codes_in, secret_in
from tests.support.databases import Database, Databases
from tests.support.openid import CLIENT_SECRET, KID, Claims, Provider, by_hand, new_key
from tests.support.server import LiveServer
from tests.support.timing import limit, wait_until
from tests.support.trust import trusted

BEGIN, CALLBACK = "/accounts/oidc/", "/accounts/oidc/callback/"
CONTROL = "/api/workspaces/desk/display/control"
TAB = "a-browser-tab-1"

_ACCOUNTS = """
from django.contrib.auth.models import Group, User
from django.core.management import call_command
for name in ("operators", "watchers"):
    Group.objects.create(name=name)
call_command("grant", "desk", "operator", group="operators")
call_command("grant", "desk", "observer", group="watchers")
User.objects.create_user("prepared", password=None, is_staff=True)
User.objects.create_user("gone", password=None, is_active=False)
"""


_DISABLE = """
from django.contrib.auth.models import User
leaver = User.objects.get(username="leaver")
leaver.is_active = False
leaver.save()
"""


@dataclass
class Site:
    """A server that knows a provider, and its database."""

    server: LiveServer
    provider: Provider
    database: Database


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[Site]:
    directory: Path = tmp_path_factory.mktemp("provided")
    (directory / "password").write_text("vncpass1")
    database = databases.fresh()
    provider = Provider().start()
    known = provider.settings | {"OIDC_GROUPS_CLAIM": "groups"}
    server = LiveServer(directory, database.url, **known)
    server.populate({"desk": "tcp://127.0.0.1:1"}, directory / "password")
    server.manage("shell", "-c", _ACCOUNTS)
    yield Site(server.start(), provider, database)
    server.stop()
    provider.stop()


@pytest.fixture
def provider(site: Site) -> Iterator[Provider]:
    """The provider, which is honest again afterwards."""
    yield site.provider
    assert site.provider.faults == [], "what the server has sent is not as the standards say"
    site.provider.behave()


_ADDRESSES = (f"127.0.{number // 200 + 1}.{number % 200 + 1}" for number in count())


class Browser:
    """Somebody's browser, at an address of its own: from one, not all tests may begin a sign-in."""

    def __init__(self, server: LiveServer) -> None:
        transport = httpx.HTTPTransport(local_address=next(_ADDRESSES), verify=trusted())
        self.client = httpx.Client(transport=transport, base_url=server.url, timeout=limit(1))

    def begin(self, after: str = "/workspaces/desk/", **headers: str) -> httpx.Response:
        """Follow the link on the page."""
        return self.client.get(BEGIN, params={"next": after}, headers=headers)

    def at_the_provider(self, name: str, after: str = "/workspaces/desk/") -> str:
        """Say there who one is; return the address that one is sent back to."""
        there = self.begin(after)
        assert there.status_code == 302, there.text
        page = self.client.get(there.headers["Location"])
        assert "Who are you?" in page.text
        form = {"name": name, "query": urlsplit(there.headers["Location"]).query}
        return self.client.post(there.headers["Location"], data=form).headers["Location"]

    def sign_in(self, name: str, after: str = "/workspaces/desk/") -> httpx.Response:
        """Go to the provider and come back."""
        return self.client.get(self.at_the_provider(name, after))

    def post_form(self, path: str, code: str) -> httpx.Response:
        """Send the form of a page that asks for a code."""
        page = self.client.get(path).text
        token = page.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
        return self.client.post(path, data={"code": code, "csrfmiddlewaretoken": token})

    @property
    def name(self) -> str:
        """As whom the server knows it: empty for nobody."""
        answer = self.client.get("/accounts/signed-in/")
        return answer.text.partition('data-user="')[2].partition('"')[0]

    @property
    def can(self) -> dict[str, bool] | None:
        """What it may do with the desktop; None where it does not even see it."""
        answer = self.client.get(CONTROL)
        return dict(answer.json()["can"]) if answer.status_code == 200 else None

    def post(self, path: str, body: Any = None) -> httpx.Response:
        """Call the API as the page does."""
        csrf = {"X-CSRFToken": self.client.cookies.get("csrftoken", "")}
        return self.client.post(path, json=body, headers=csrf)


@pytest.fixture
def browser(site: Site, provider: Provider) -> Iterator[Callable[[], Browser]]:
    """Return a function that gives somebody a browser."""
    opened: list[Browser] = []

    def make() -> Browser:
        opened.append(Browser(site.server))
        return opened[-1]

    yield make
    for each in opened:
        each.client.close()


MakeBrowser = Callable[[], Browser]


def person(name: str, **claims: Any) -> Claims:
    return {"preferred_username": name} | claims


def assert_refused(answer: httpx.Response, words: str, status: int = 403) -> None:
    """It is a plain page of ours, and nobody is signed in."""
    assert answer.status_code == status, answer.text
    assert "You are not signed in" in answer.text
    assert words in answer.text
    assert answer.headers["Cache-Control"].startswith(("no-store", "max-age=0"))
    assert "form-action 'self'" in answer.headers["Content-Security-Policy"]


FAILED = "Something went wrong on the way to the provider and back"


# --- Coming in ------------------------------------------------------------------------------------
def test_the_page_of_signing_in_leads_to_the_provider_and_back_to_where_one_was(
    browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-1"] = person(
        "anna", given_name="Anna", family_name="Arndt", groups=["operators"]
    )
    anna = browser()
    page = anna.client.get("/", follow_redirects=True)
    assert (
        '<a class="button way-on" href="/accounts/oidc/?next=%2F">Sign in with Example Corp</a>'
        in page.text
    )
    answer = anna.sign_in("s-1")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/workspaces/desk/")
    assert anna.name == "anna"
    assert "Anna Arndt" in anna.client.get("/").text
    assert anna.can == {"observe": True, "control": True, "force": False}


def test_whoever_is_new_has_an_account_without_password_and_rights(
    site: Site, browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-2"] = person("vera@example.org", groups=["unknown"], is_superuser=True)
    vera = browser()
    vera.sign_in("s-2")
    assert vera.name == "vera@example.org"
    assert vera.can is None
    assert vera.client.get("/admin/", follow_redirects=True).status_code == 403
    [(staff, superuser, password, email)] = site.database.rows(
        "SELECT is_staff, is_superuser, password, email FROM auth_user WHERE username = %s",
        ["vera@example.org"],
    )
    assert not staff
    assert not superuser
    assert password.startswith("!")
    assert email == ""


def test_nothing_that_the_provider_tells_is_kept_but_who_it_is(
    site: Site, browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-3"] = person("karl", email="karl@example.org", phone_number="+49 1")
    browser().sign_in("s-3")
    rows = site.database.rows(
        "SELECT provider, uid, extra_data FROM socialaccount_socialaccount WHERE uid = %s", ["s-3"]
    )
    assert [(row[0], row[1], str(row[2])) for row in rows] == [(provider.issuer, "s-3", "{}")]
    assert site.database.rows("SELECT * FROM account_emailaddress", []) == []
    assert site.database.rows("SELECT * FROM socialaccount_socialtoken", []) == []


def test_a_person_is_known_by_their_id_whatever_name_the_provider_tells_later(
    browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-4"] = person("maiden")
    browser().sign_in("s-4")
    provider.people["s-4"] = person("married")
    again = browser()
    again.sign_in("s-4")
    assert again.name == "maiden"
    provider.people["s-5"] = person("maiden")
    assert_refused(browser().sign_in("s-5"), "is somebody else")


def test_an_account_that_was_made_for_somebody_without_a_password_is_theirs(
    browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-6"] = person("prepared")
    staff = browser()
    assert staff.sign_in("s-6", "/admin/").headers["Location"] == "/admin/"
    assert staff.client.get("/admin/").status_code == 200


@pytest.mark.parametrize("name", ["admin", "operator"])
def test_an_account_with_a_password_is_nobodys_who_only_has_its_name(
    browser: MakeBrowser, provider: Provider, name: str
) -> None:
    provider.people["s-7"] = person(name)
    claimant = browser()
    assert_refused(claimant.sign_in("s-7"), "has a password")
    assert claimant.name == ""


def test_the_account_of_an_api_token_is_nobody_to_sign_in_as(
    site: Site, browser: MakeBrowser, provider: Provider
) -> None:
    site.server.manage("add_token", "robot", "--scope", "control", "--all-workspaces")
    [(account,)] = site.database.rows(
        "SELECT username FROM auth_user JOIN controlplane_apitoken ON account_id = auth_user.id"
        " WHERE name = %s",
        ["robot"],
    )
    provider.people["s-8"] = person(account)
    assert_refused(browser().sign_in("s-8"), "is somebody else")


# --- Not coming in --------------------------------------------------------------------------------
def test_who_is_disabled_here_is_not_signed_in(browser: MakeBrowser, provider: Provider) -> None:
    provider.people["s-9"] = person("gone")
    gone = browser()
    assert_refused(gone.sign_in("s-9"), "has been disabled")
    assert gone.name == ""


@pytest.mark.parametrize("name", ["", "x" * 151, "no spaces here", "<script>", None, 7, ["anna"]])
def test_who_has_no_name_that_can_be_an_accounts_is_not_signed_in(
    browser: MakeBrowser, provider: Provider, name: Any
) -> None:
    provider.people["s-10"] = {"preferred_username": name}
    assert_refused(browser().sign_in("s-10"), "has not told a name")


def test_who_cancels_is_told_so(browser: MakeBrowser) -> None:
    assert_refused(browser().sign_in("nobody"), "was cancelled")


def test_a_session_of_somebody_disabled_ends(
    site: Site, browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-11"] = person("leaver", groups=["operators"])
    leaver = browser()
    leaver.sign_in("s-11")
    assert leaver.can is not None
    site.server.manage("shell", "-c", _DISABLE)
    assert leaver.client.get(CONTROL).status_code == 401
    assert_refused(browser().sign_in("s-11"), "has been disabled")


# --- Answers that must not count ------------------------------------------------------------------
def expired(claims: Claims) -> None:
    claims["exp"] = int(time.time()) - 60


def for_another_client(claims: Claims) -> None:
    claims["aud"] = "somebody-else"


def of_another_issuer(claims: Claims) -> None:
    claims["iss"] = "https://elsewhere.example"


def of_another_sign_in(claims: Claims) -> None:
    claims["nonce"] = "that-of-another-one"


def without_nonce(claims: Claims) -> None:
    del claims["nonce"]


def without_a_person(claims: Claims) -> None:
    del claims["sub"]


@pytest.mark.parametrize(
    "bend",
    [
        expired,
        for_another_client,
        of_another_issuer,
        of_another_sign_in,
        without_nonce,
        without_a_person,
    ],
)
def test_a_token_that_is_not_for_this_sign_in_signs_nobody_in(
    browser: MakeBrowser, provider: Provider, bend: Callable[[Claims], None]
) -> None:
    provider.people["s-20"] = person("victim")
    provider.bend = bend
    claimant = browser()
    assert_refused(claimant.sign_in("s-20"), FAILED, 400)
    assert claimant.name == ""


def with_another_key(claims: Claims, published: RSAKey) -> str:
    return jwt.encode({"alg": "RS256", "kid": KID}, claims, new_key())


def unsigned(claims: Claims, published: RSAKey) -> str:
    return by_hand({"alg": "none"}, claims, lambda _: b"")


def with_what_all_know(claims: Claims, published: RSAKey) -> str:
    """Let the public key be taken for a common secret."""
    known = published.as_pem(private=False)
    return by_hand({"alg": "HS256"}, claims, lambda text: hmac.digest(known, text, "sha256"))


def with_the_clients_secret(claims: Claims, published: RSAKey) -> str:
    secret = CLIENT_SECRET.encode()
    return by_hand({"alg": "HS256"}, claims, lambda text: hmac.digest(secret, text, "sha256"))


@pytest.mark.parametrize(
    "forge", [with_another_key, unsigned, with_what_all_know, with_the_clients_secret]
)
def test_a_token_that_the_provider_has_not_signed_signs_nobody_in(
    browser: MakeBrowser, provider: Provider, forge: Callable[[Claims, RSAKey], str]
) -> None:
    provider.people["s-20"] = person("victim")
    provider.forge = lambda claims: forge(claims, provider.key)
    claimant = browser()
    assert_refused(claimant.sign_in("s-20"), FAILED, 400)
    assert claimant.name == ""


def test_an_answer_without_an_id_token_signs_nobody_in(
    browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-20"] = person("victim")
    provider.sends_id_token = False
    assert_refused(browser().sign_in("s-20"), FAILED, 400)


def test_a_userinfo_about_somebody_else_signs_nobody_in(
    browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-20"] = person("victim")
    provider.told = lambda claims: claims.update(sub="s-1")
    assert_refused(browser().sign_in("s-20"), FAILED, 400)


def test_a_provider_that_calls_itself_by_another_name_is_not_asked(
    browser: MakeBrowser, provider: Provider
) -> None:
    provider.issuer_it_claims = "https://elsewhere.example"
    assert_refused(browser().begin(), FAILED, 400)


def test_an_issuer_is_compared_to_the_letter(browser: MakeBrowser, provider: Provider) -> None:
    provider.issuer_it_claims = f"{provider.issuer}/"
    assert_refused(browser().begin(), FAILED, 400)


@pytest.mark.parametrize(
    "name", ["authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri"]
)
@pytest.mark.parametrize("address", ["http://sso.example/there", "ftp://127.0.0.1/", "", None, 7])
def test_a_provider_is_not_spoken_with_where_others_could_read_along(
    browser: MakeBrowser, provider: Provider, name: str, address: Any
) -> None:
    provider.endpoints = {name: address}
    assert_refused(browser().begin(), FAILED, 400)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("here")
def test_whoever_waits_for_the_provider_holds_no_connection_to_the_database(
    client: Client, provider: Provider
) -> None:
    provider.people["s-22"] = person("patient")
    held, waits = connections[DEFAULT_DB_ALIAS], []
    provider.on_call = lambda path: waits.append((path, held.connection is not None))
    there = client.get(BEGIN).headers["Location"]
    back = urlsplit(provider.send_back(urlsplit(there).query, "s-22"))
    assert client.get(f"{back.path}?{back.query}").headers["Location"] == "/"
    discovery = "/.well-known/openid-configuration"
    called = (discovery, discovery, "/token", "/userinfo", "/keys")
    assert waits == [(path, False) for path in called]


@pytest.fixture
def here(provider: Provider, settings: Any) -> Iterator[None]:
    """Let this very process be a server that knows the provider."""
    known = provider.settings
    settings.OIDC_ISSUER = provider.issuer
    settings.SOCIALACCOUNT_PROVIDERS = {
        "openid_connect": {
            "provider_class": "controlplane.signin.provider.Provider",
            "APPS": [
                {
                    "provider_id": provider.issuer,
                    "client_id": known["OIDC_CLIENT_ID"],
                    "secret": known["OIDC_CLIENT_SECRET"],
                    "settings": {"server_url": provider.issuer, "oauth_pkce_enabled": True},
                }
            ],
        }
    }
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, BACKEND]
    reload(import_module("desktopctl.urls"))
    clear_url_caches()
    yield
    settings.OIDC_ISSUER = ""
    reload(import_module("desktopctl.urls"))
    clear_url_caches()


def test_a_provider_that_does_not_answer_is_said_to_be_away(
    browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-21"] = person("waiting")
    late = browser()
    back = late.at_the_provider("s-21")
    provider.stop()
    try:
        assert_refused(browser().begin(), "cannot be reached", 502)
        assert_refused(late.client.get(back), "cannot be reached", 502)
    finally:
        provider.start()


# --- The way there and back -----------------------------------------------------------------------
def test_an_answer_counts_only_in_the_browser_that_has_asked(
    browser: MakeBrowser, provider: Provider
) -> None:
    """Else somebody could be signed in as whoever has sent them a link."""
    provider.people["s-30"] = person("attacker")
    back = browser().at_the_provider("s-30")
    victim = browser()
    assert_refused(victim.client.get(back), FAILED, 400)
    victim.begin()  # has one of their own under way
    assert_refused(victim.client.get(back), FAILED, 400)
    assert victim.name == ""


def test_an_answer_counts_once(browser: MakeBrowser, provider: Provider) -> None:
    provider.people["s-31"] = person("once")
    once = browser()
    back = once.at_the_provider("s-31")
    assert once.client.get(back).status_code == 302
    sign_out(once)
    assert_refused(once.client.get(back), FAILED, 400)


def sign_out(someone: Browser) -> None:
    token = someone.client.get("/").text.partition('name="csrfmiddlewaretoken" value="')[2]
    form = {"csrfmiddlewaretoken": token.partition('"')[0]}
    assert someone.client.post("/accounts/logout/", data=form).status_code == 302


@pytest.mark.parametrize("query", ["", "?code=made-up", "?state=made-up&code=made-up", "?error=x"])
def test_an_answer_that_nobody_has_asked_for_is_refused(browser: MakeBrowser, query: str) -> None:
    assert_refused(browser().client.get(CALLBACK + query), FAILED, 400)


@pytest.mark.parametrize(
    "after",
    [
        "https://elsewhere.example/",
        "//elsewhere.example/",
        "/\\elsewhere.example/",
        "javascript:alert(1)",
        "",
        "desk",
    ],
)
def test_the_way_on_is_a_path_of_ours_or_the_list(
    browser: MakeBrowser, provider: Provider, after: str
) -> None:
    provider.people["s-32"] = person("wanderer")
    assert browser().sign_in("s-32", after).headers["Location"] == "/"


def test_another_sites_page_cannot_begin_a_sign_in(browser: MakeBrowser) -> None:
    for site in ("cross-site", "same-site"):
        answer = browser().begin("/workspaces/desk/", **{"Sec-Fetch-Site": site})
        assert answer.headers["Location"] == "/accounts/login/?next=/workspaces/desk/"


def test_nothing_more_can_be_asked_of_the_provider_by_the_address(browser: MakeBrowser) -> None:
    bent = {"scope": "admin", "auth_params": "prompt=none", "process": "connect", "action": "x"}
    answer = browser().client.get(BEGIN, params=bent)
    asked = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert sorted(asked["scope"][0].split()) == ["email", "openid", "profile"]
    assert "prompt" not in asked


def test_whoever_is_signed_in_stays_so(browser: MakeBrowser, provider: Provider) -> None:
    provider.people["s-33"] = person("first", groups=["operators"])
    provider.people["s-34"] = person("second")
    shared = browser()
    late = shared.at_the_provider("s-34")
    shared.sign_in("s-33")
    shared.client.get("/")
    taken = shared.post(f"{CONTROL}/acquire", {"client_id": TAB})
    assert taken.status_code == 200, taken.text
    assert shared.client.get(late).headers["Location"] == "/"
    assert shared.begin("/workspaces/desk/").headers["Location"] == "/workspaces/desk/"
    assert shared.name == "first"
    assert shared.client.get(CONTROL).json()["yours"] is True
    assert shared.post(f"{CONTROL}/release", {"client_id": TAB}).status_code == 200


def test_one_address_may_not_begin_without_end(site: Site, tmp_path: Path) -> None:
    """Each beginning is a row in the database and a call to the provider."""
    server = LiveServer(tmp_path, site.database.url, **site.provider.settings).start()
    flood = Browser(server)
    try:
        statuses = [flood.begin().status_code for _ in range(61)]
        assert statuses == [302] * 60 + [429]
        refused = flood.begin()
        assert_refused(refused, "Too many sign-ins have begun", 429)
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
    finally:
        flood.client.close()
        server.stop()


def test_who_comes_twice_at_once_for_the_first_time_has_one_account(
    site: Site, browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-35"] = person("twin")
    ways = [(each, each.at_the_provider("s-35")) for each in (browser(), browser(), browser())]
    with ThreadPoolExecutor(len(ways)) as pool:
        answers = list(pool.map(lambda way: way[0].client.get(way[1]), ways))
    assert {answer.status_code for answer in answers} <= {302, 400}
    assert 302 in {answer.status_code for answer in answers}
    assert site.database.rows(
        "SELECT uid FROM socialaccount_socialaccount WHERE uid = %s", ["s-35"]
    ) == [("s-35",)]


def test_an_account_that_is_given_a_password_meanwhile_is_not_taken_over(
    site: Site, browser: MakeBrowser, provider: Provider
) -> None:
    site.server.manage("shell", "-c", _MAKE.format("contested"))
    provider.people["s-36"] = person("contested")
    claimant = browser()
    answer = come_back_during(
        site, claimant, "s-36", "UPDATE auth_user SET password = 'its' WHERE username = 'contested'"
    )
    assert_refused(answer, "has a password")
    assert claimant.name == ""


def test_who_comes_in_another_tab_meanwhile_is_let_in_in_both(
    site: Site, browser: MakeBrowser, provider: Provider
) -> None:
    site.server.manage("shell", "-c", _MAKE.format("doubled"))
    provider.people["s-37"] = person("doubled")
    late = browser()
    answer = come_back_during(site, late, "s-37", _CONNECT, [provider.issuer, "s-37", "doubled"])
    assert answer.headers["Location"] == "/workspaces/desk/"
    assert late.name == "doubled"


def come_back_during(
    site: Site, someone: Browser, name: str, change: LiteralString, parameters: Sequence[str] = ()
) -> httpx.Response:
    """Sign in while somebody else's change of the account is under way."""
    back = someone.at_the_provider(name)
    with psycopg.connect(site.database.url) as other, ThreadPoolExecutor(1) as aside:
        other.execute(change, parameters)
        answer = aside.submit(someone.client.get, back)
        wait_until(lambda: answer.done() or site.database.rows(_WAITS_FOR_A_ROW), "the sign-in")
        other.commit()
    return answer.result()


_CONNECT = """
INSERT INTO socialaccount_socialaccount
    (provider, uid, last_login, date_joined, extra_data, user_id)
SELECT %s, %s, now(), now(), '{}', theirs.id
    FROM (SELECT id FROM auth_user WHERE username = %s FOR UPDATE) AS theirs
"""
_MAKE = "from django.contrib.auth.models import User; User.objects.create_user('{}')"
_WAITS_FOR_A_ROW = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


# --- What follows ---------------------------------------------------------------------------------
def test_groups_are_set_anew_with_each_sign_in_and_control_ends_with_the_right(
    browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-40"] = person("mover", groups=["operators", "unknown"])
    provider.people["s-1-watcher"] = person("wilma", groups=["watchers"])
    before = browser()
    before.sign_in("s-40")
    before.client.get("/")
    assert before.post(f"{CONTROL}/acquire", {"client_id": TAB}).status_code == 200
    told: tuple[tuple[Claims, bool | None], ...] = (
        ({"groups": ["watchers"]}, False),
        ({"groups": "operators"}, True),
        ({"groups": {"operators": 1}}, None),
        ({"groups": ["watchers"]}, False),
        ({}, None),
    )
    for claims, may in told:
        provider.people["s-40"] = person("mover", **claims)
        after = browser()
        after.sign_in("s-40")
        assert (after.can or {"control": None})["control"] is may
        assert before.can == after.can
    end = browser()
    end.sign_in("s-1-watcher")
    assert end.client.get(CONTROL).json()["last_end"]["reason"] == "access_ended"


def test_a_session_lasts_for_twelve_hours(browser: MakeBrowser, provider: Provider) -> None:
    provider.people["s-41"] = person("paul")
    assert_lasts_for_twelve_hours(browser().sign_in("s-41"))


def assert_lasts_for_twelve_hours(answer: httpx.Response) -> None:
    [cookie] = [each for each in answer.headers.get_list("Set-Cookie") if "sessionid" in each]
    seconds = int(cookie.lower().partition("max-age=")[2].partition(";")[0])
    assert 11 * 3600 < seconds <= 12 * 3600


def test_a_session_ends_with_what_says_who_somebody_is_at_the_provider(
    site: Site, browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-43"] = person("separated", groups=["operators"])
    separated = browser()
    separated.sign_in("s-43")
    assert separated.can is not None
    delete_what_says_who_is(site, "s-43")
    assert separated.client.get(CONTROL).status_code == 401
    assert separated.name == ""


def delete_what_says_who_is(site: Site, uid: str) -> None:
    site.database.rows("DELETE FROM socialaccount_socialaccount WHERE uid = %s", [uid])


def test_a_session_ends_where_the_provider_is_switched_off_and_a_passwords_does_not(
    site: Site, tmp_path: Path, browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-44"] = person("switched")
    switched = browser()
    switched.sign_in("s-44")
    server = LiveServer(tmp_path, site.database.url).start()
    after = Browser(server)
    try:
        for session, name in (
            (switched.client.cookies["sessionid"], ""),
            ("session-of-operator", "operator"),
        ):
            after.client.headers["Cookie"] = f"sessionid={session}"
            assert after.name == name
    finally:
        after.client.close()
        server.stop()


def test_a_password_still_signs_in(browser: MakeBrowser) -> None:
    someone = browser()
    page = someone.client.get("/accounts/login/").text
    form = page.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    data = {"username": "operator", "password": "operator-pass", "csrfmiddlewaretoken": form}
    assert someone.client.post("/accounts/login/", data=data).status_code == 302
    assert someone.name == "operator"


def test_no_other_page_of_the_library_is_there(browser: MakeBrowser) -> None:
    paths = (
        *("signup", "email", "password/change", "password/reset", "3rdparty", "3rdparty/signup"),
        *("social/signup", "oidc/login", "confirm-email", "inactive", "reauthenticate", "2fa"),
    )
    for path in paths:
        assert browser().client.get(f"/accounts/{path}/").status_code == 404, path


def test_the_log_tells_what_went_wrong_and_no_secret(
    site: Site, browser: MakeBrowser, provider: Provider
) -> None:
    provider.people["s-42"] = person("logged")
    provider.bend = expired
    someone = browser()
    back = someone.at_the_provider("s-42")
    before = len(site.server.log)
    someone.client.get(back)
    told = site.server.log[before:]
    assert "A sign-in with the provider has failed: ExpiredSignatureError" in told
    assert "Traceback" not in told
    secrets = [CLIENT_SECRET, *(value for _, value in parse_qsl(urlsplit(back).query))]
    assert [secret for secret in secrets if secret in site.server.log] == []


# --- Settings -------------------------------------------------------------------------------------
def test_without_new_people_only_who_has_an_account_is_let_in(
    site: Site, tmp_path: Path, provider: Provider
) -> None:
    provider.people["s-50"] = person("stranger")
    provider.people["s-51"] = person("expected")
    site.server.manage("shell", "-c", _MAKE.format("expected"))
    known = provider.settings | {"OIDC_ADD_PEOPLE": "off"}
    closed = LiveServer(tmp_path, site.database.url, **known).start()
    stranger, expected = Browser(closed), Browser(closed)
    try:
        assert_refused(stranger.sign_in("s-50"), "no account here for you yet")
        expected.sign_in("s-51")
        assert expected.name == "expected"
    finally:
        stranger.client.close()
        expected.client.close()
        closed.stop()


def test_an_address_of_mail_is_a_name_once_the_provider_has_verified_it(
    site: Site, tmp_path: Path, provider: Provider
) -> None:
    provider.people["s-52"] = {"email": "eva@example.org"}
    known = provider.settings | {"OIDC_USERNAME_CLAIM": "email"}
    server = LiveServer(tmp_path, site.database.url, **known).start()
    eva = Browser(server)
    try:
        for claims in ({}, {"email_verified": False}, {"email_verified": "true"}):
            provider.people["s-52"] = {"email": "eva@example.org"} | claims
            assert_refused(eva.sign_in("s-52"), "has not told a name")
        provider.people["s-52"]["email_verified"] = True
        eva.sign_in("s-52")
        assert eva.name == "eva@example.org"
    finally:
        eva.client.close()
        server.stop()


_HIDDEN = """
from allauth.mfa.models import Authenticator
from django.contrib.sessions.models import Session
print([value for row in Authenticator.objects.all() for value in row.data.values()])
print([session.get_decoded() for session in Session.objects.all()])
"""


def test_who_has_a_second_factor_here_is_asked_after_the_provider_and_nobody_must_enrol(
    site: Site, tmp_path: Path, provider: Provider
) -> None:
    provider.people["s-53"] = person("careful")
    known = provider.settings | {"SIGNIN_TOTP": "required"}
    server = LiveServer(tmp_path, site.database.url, **known).start()
    first, again = Browser(server), Browser(server)
    try:
        assert first.sign_in("s-53").headers["Location"] == "/workspaces/desk/"
        secret = secret_in(first.client.get("/accounts/second-factor/").text)
        codes = recovery_codes_in(first.post_form("/accounts/second-factor/", code_of(secret)).text)
        assert again.sign_in("s-53").headers["Location"] == "/accounts/code/"
        assert again.name == ""
        kept = server.manage("shell", "-c", _HIDDEN)
        assert [each for each in (*provider.tokens_given, secret, *codes) if each in kept] == []
        answer = again.post_form("/accounts/code/", codes[0])
        assert answer.headers["Location"] == "/workspaces/desk/"
        assert again.name == "careful"
        assert_lasts_for_twelve_hours(answer)
        delete_what_says_who_is(site, "s-53")
        assert again.name == ""
    finally:
        first.client.close()
        again.client.close()
        server.stop()


def test_without_a_provider_none_of_it_is_there(client: Client) -> None:
    for path in (BEGIN, CALLBACK):
        assert client.get(path).status_code == 404
    assert "Sign in with" not in client.get("/accounts/login/").content.decode()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"OIDC_ISSUER": "https://sso.example"}, "OIDC_CLIENT_ID: must be set"),
        ({"OIDC_CLIENT_SECRET": "hidden-words"}, "OIDC_ISSUER: must be set"),
        ({"OIDC_ISSUER": "http://sso.example"}, "OIDC_ISSUER: must start with https://"),
        ({"OIDC_ISSUER": "sso.example"}, "OIDC_ISSUER: must be an address"),
        ({"OIDC_ISSUER": "https://sso.example/?a=b"}, "OIDC_ISSUER: must be an address without"),
        ({"OIDC_ADD_PEOPLE": "perhaps"}, "OIDC_ADD_PEOPLE"),
    ],
)
def test_a_bad_setting_stops_the_start_and_is_named(
    tmp_path: Path, given: dict[str, str], complaint: str
) -> None:
    said = LiveServer(tmp_path, "sqlite:///unused", **given).manage_as_typed("check")
    assert complaint in said
    assert "hidden-words" not in said
