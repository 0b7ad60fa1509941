"""What browsers are told about every kind of page, by PUBLIC_URL's scheme; and its cookies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.test import Client

from controlplane import readiness
from controlplane.ratelimits import parse_rate
from tests.integration.people import Browser
from tests.support.databases import Databases
from tests.support.server import LiveServer
from tests.support.timing import limit
from tests.support.trust import trusted

PLATFORM = "https://platform.example"
HOST = "desks.example.org"


@dataclass(frozen=True)
class Kind:
    """A kind of page: how it is asked for, and with which status it is answered."""

    path: str
    status: int = 200
    user: str = ""
    method: str = "GET"
    host: str = HOST


KINDS = {
    "the list": Kind("/", user="admin"),
    "a way to the sign-in": Kind("/", 302),
    "a display": Kind("/workspaces/desk/", user="operator"),
    "the page of a control link": Kind("/workspaces/desk/embed"),
    "the sign-in": Kind("/accounts/login/"),
    "the end of a sign-in": Kind("/accounts/signed-in/", user="operator"),
    "the words of the scripts": Kind("/words.js"),
    "the admin": Kind("/admin/", user="admin"),
    "the way to the admin's sign-in": Kind("/admin/login/", 302),
    "a list of the admin": Kind("/admin/controlplane/workspace/", user="admin"),
    "a form of the admin": Kind("/admin/controlplane/apitoken/add/", user="admin"),
    "an answer of the API": Kind("/api/workspaces", user="operator"),
    "an error of the API": Kind("/api/workspaces", 401),
    "an error that middleware has made JSON": Kind("/api/nothing", 404),
    "the API's docs": Kind("/api/docs"),
    "the OpenAPI document": Kind("/api/openapi.json"),
    "a page that is not there": Kind("/nothing", 404),
    "a form that is too old": Kind("/accounts/login/", 403, method="POST"),
    "a host that is not ours": Kind("/", 400, host="elsewhere.example"),
    "a probe": Kind("/healthz"),
    "readiness": Kind("/readyz"),
    "a script": Kind("/static/controlplane/main.js"),
    "noVNC": Kind("/static/novnc/core/rfb.js"),
    "an image": Kind("/static/controlplane/favicon.svg"),
}

FEATURES = (
    "clipboard-read=(self), clipboard-write=(self), fullscreen=(self), accelerometer=(), "
    "camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), "
    "magnetometer=(), microphone=(), midi=(), payment=(), screen-wake-lock=(), serial=(), usb=()"
)
EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": FEATURES,
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
# The one page that others may frame has no cookies, and its address holds a ticket.
EXCEPTIONS: dict[str, dict[str, str | None]] = {
    "the page of a control link": {"X-Frame-Options": None, "Referrer-Policy": "no-referrer"}
}
POLICY_EXCEPTIONS = {"the page of a control link": {"frame-ancestors": f"'self' {PLATFORM}"}}


def policy_of(answer: httpx.Response) -> dict[str, str]:
    """Return the directives of an answer; there may be only one policy."""
    [policy] = answer.headers.get_list("Content-Security-Policy")
    directives = (each.strip().partition(" ") for each in policy.split(";"))
    return {name: value for name, _, value in directives}


class Site:
    """A server as it is seen through its proxy, at an address with ``scheme``."""

    def __init__(self, server: LiveServer, scheme: str) -> None:
        self.scheme = scheme
        self._base = f"http://127.0.0.1:{server.port}"

    def ask(self, kind: Kind) -> httpx.Response:
        """Return the answer to one request."""
        headers = {"Host": kind.host, "X-Forwarded-Proto": self.scheme}
        if kind.user:
            headers["Cookie"] = f"sessionid=session-of-{kind.user}"
        url = f"{self._base}{kind.path}"
        return httpx.request(kind.method, url, headers=headers, timeout=limit(1), verify=trusted())


@pytest.fixture(scope="module", params=["http", "https"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, databases: Databases
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "password").write_text("vncpass1")
    server = LiveServer(
        directory,
        databases.fresh().url,
        PUBLIC_URL=f"{request.param}://{HOST}",
        TRUSTED_PROXIES="127.0.0.1",
        EMBED_ORIGINS=PLATFORM,
    )
    server.populate({"desk": "tcp://127.0.0.1:1"}, directory / "password")
    server.start()
    yield Site(server, request.param)
    server.stop()


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_page_tells_browsers_what_they_may_do_with_it(name: str, site: Site) -> None:
    answer = site.ask(KINDS[name])
    assert answer.status_code == KINDS[name].status
    hsts = {"Strict-Transport-Security": "max-age=31536000" if site.scheme == "https" else None}
    expected = EVERYWHERE | hsts | EXCEPTIONS.get(name, {})
    assert {header: answer.headers.get(header) for header in expected} == expected
    assert policy_of(answer) == POLICY | POLICY_EXCEPTIONS.get(name, {})


@pytest.mark.parametrize("name", KINDS)
def test_no_page_holds_a_script_or_a_style_of_its_own(name: str, site: Site) -> None:
    answer = site.ask(KINDS[name])
    if not answer.headers.get("Content-Type", "").startswith("text/html"):
        return
    for inline in ("<style", " style=", " onclick=", " onload=", "javascript:"):
        assert inline not in answer.text
    scripts = answer.text.count("<script")
    sources = answer.text.count(' src="/') + answer.text.count('type="application/json"')
    assert scripts <= sources


def test_cookies_are_for_the_public_addresss_scheme_and_not_for_other_sites(site: Site) -> None:
    page = site.ask(Kind("/", user="operator"))
    [csrf] = page.headers.get_list("Set-Cookie")
    assert ("Secure" in csrf) == (site.scheme == "https")
    assert "SameSite=Lax" in csrf


def test_the_cookie_of_a_login_is_not_for_scripts(site: Site) -> None:
    page = site.ask(Kind("/accounts/login/"))
    form = page.text.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    answer = httpx.post(
        str(page.url),
        data={"username": "operator", "password": "operator-pass", "csrfmiddlewaretoken": form},
        cookies=dict(page.cookies),
        headers={
            "Host": HOST,
            "X-Forwarded-Proto": site.scheme,
            "Referer": f"{site.scheme}://{HOST}/",
        },
        timeout=limit(1),
    )
    [session] = [
        each for each in answer.headers.get_list("Set-Cookie") if each.startswith("sessionid=")
    ]
    assert "HttpOnly" in session
    assert "SameSite=Lax" in session
    assert ("Secure" in session) == (site.scheme == "https")


@pytest.mark.parametrize("path", ["/readyz", "/api/workspaces"])
def test_our_own_failures_tell_it_too(
    path: str, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(readiness, "current", fail)
    monkeypatch.setattr("controlplane.api.workspaces.overview", fail)
    browser = Browser(operator)
    browser.client.raise_request_exception = False
    answer = browser.get(path)
    assert answer.status_code == 500
    assert {name: answer.headers.get(name) for name in EVERYWHERE} == EVERYWHERE
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]


def test_a_call_too_many_tells_it_too(settings: Any, db: None) -> None:
    settings.API_RATE_PER_ADDRESS = parse_rate("X", "1/minute")
    Client().get("/api/openapi.json")
    answer = Client().get("/api/openapi.json")
    assert answer.status_code == 429
    assert {name: answer.headers.get(name) for name in EVERYWHERE} == EVERYWHERE
