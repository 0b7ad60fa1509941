"""What proxies say: believed from trusted networks, removed from everybody else's requests."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.exceptions import ConfigError
from controlplane.proxies import (
    REQUEST_ID,
    Identity,
    TrustedProxies,
    check_headers,
    identity_of,
    parse_header,
    parse_networks,
)

PROXY, INNER_PROXY, OUTSIDE, CLIENT = "10.0.0.5", "10.0.0.6", "203.0.113.9", "198.51.100.7"


@pytest.fixture(autouse=True)
def trusted(settings: Any) -> None:
    settings.TRUSTED_PROXIES = parse_networks("TRUSTED_PROXIES", ["10.0.0.0/8", "fd00::/8"])


async def seen(
    *headers: tuple[str, str],
    client: str | None = PROXY,
    kind: str = "http",
    scheme: str | None = None,
) -> dict[str, Any]:
    """Return the scope that the application sees."""
    found: list[dict[str, Any]] = []

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        found.append(scope)

    own = [(b"host", b"inner:8000"), (b"x-other", b"kept")]
    sent = [(name.encode(), value.encode()) for name, value in headers]
    scope = {
        "type": kind,
        "scheme": scheme or {"http": "http", "websocket": "ws"}.get(kind),
        "client": [client, 4711] if client is not None else None,
        "headers": [*own, *sent],
    }
    await TrustedProxies(application)(scope, None, None)
    return found[0]


def headers_of(scope: dict[str, Any], name: str) -> list[str]:
    return [value.decode() for each, value in scope["headers"] if each == name.encode()]


async def test_a_trusted_proxy_tells_scheme_host_and_client() -> None:
    scope = await seen(
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "desk.example"),
        ("x-forwarded-for", CLIENT),
    )
    assert (scope["scheme"], scope["client"]) == ("https", [CLIENT, 0])
    assert headers_of(scope, "host") == ["desk.example"]
    assert headers_of(scope, "x-other") == ["kept"]


async def test_a_trusted_proxy_names_the_request_and_nobody_else_does(settings: Any) -> None:
    settings.TRUST_REQUEST_ID = True
    name = ("x-request-id", "4711")
    assert (await seen(name))[REQUEST_ID] == "4711"
    assert REQUEST_ID not in await seen()
    stranger = await seen(name, client=OUTSIDE)
    assert REQUEST_ID not in stranger
    assert headers_of(stranger, "x-request-id") == []


async def test_a_proxy_that_may_pass_on_what_clients_send_names_no_request() -> None:
    scope = await seen(("x-request-id", "4711"))
    assert not scope[REQUEST_ID]
    assert headers_of(scope, "x-request-id") == []


@pytest.mark.parametrize("client", [OUTSIDE, "", "/run/socket", "::1", None])
async def test_nobody_else_is_believed_and_the_headers_are_removed(client: str | None) -> None:
    scope = await seen(
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-for", CLIENT),
        client=client,
    )
    assert scope["scheme"] == "http"
    assert scope["client"] == ([client, 4711] if client is not None else None)
    assert headers_of(scope, "host") == ["inner:8000"]
    assert not any(name.startswith(b"x-forwarded") for name, _ in scope["headers"])


@pytest.mark.parametrize(
    ("kind", "proto", "expected"),
    [
        ("http", "https", "https"),
        ("http", "HTTPS ", "https"),
        ("http", "http", "http"),
        ("websocket", "https", "wss"),
        ("websocket", "http", "ws"),
        ("http", "gopher", "http"),
        ("websocket", "", "ws"),
    ],
)
async def test_the_scheme_fits_the_kind_of_request(kind: str, proto: str, expected: str) -> None:
    assert (await seen(("x-forwarded-proto", proto), kind=kind))["scheme"] == expected


async def test_a_proxy_that_ends_tls_twice_can_say_so() -> None:
    assert (await seen(("x-forwarded-proto", "http"), scheme="https"))["scheme"] == "http"


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (CLIENT, CLIENT),
        (f"{CLIENT}, {INNER_PROXY}", CLIENT),
        (f"1.1.1.1, {CLIENT}", CLIENT),  # what stands before may be made up by the client
        (f"1.1.1.1,{CLIENT} , {INNER_PROXY},", CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("fd00::1, 10.1.1.1", PROXY),
        ("", PROXY),
        (" , ", PROXY),
    ],
)
async def test_the_client_is_the_last_that_is_no_proxy_of_ours(chain: str, expected: str) -> None:
    scope = await seen(("x-forwarded-for", chain))
    assert scope["client"][0] == expected


async def test_a_proxy_seen_through_a_dual_stack_socket_is_still_trusted() -> None:
    scope = await seen(("x-forwarded-for", CLIENT), client=f"::ffff:{PROXY}")
    assert scope["client"] == [CLIENT, 0]


async def test_a_request_without_such_headers_is_passed_on_as_it_is() -> None:
    scope = await seen()
    assert (scope["client"], headers_of(scope, "host")) == ([PROXY, 4711], ["inner:8000"])


async def test_what_is_no_request_is_passed_on() -> None:
    assert (await seen(("x-forwarded-proto", "https"), kind="lifespan"))["scheme"] is None


def test_networks_are_read_from_a_list() -> None:
    networks = parse_networks("TRUSTED_PROXIES", ["10.0.0.0/8", " ::1 ", "192.0.2.1"])
    assert [str(each) for each in networks] == ["10.0.0.0/8", "::1/128", "192.0.2.1/32"]


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy.example", "10.0.0.0/33", ""])
def test_what_is_no_network_names_the_setting(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_networks("TRUSTED_PROXIES", [text])
    assert caught.value.name == "TRUSTED_PROXIES"


# --- Who has signed in at the proxy ---------------------------------------------------------------
USER, GROUPS = "x-remote-user", "x-remote-groups"


@pytest.fixture
def signs_in(settings: Any) -> None:
    settings.AUTH_PROXY_HEADER, settings.AUTH_PROXY_GROUPS_HEADER = USER, GROUPS


@pytest.fixture
def signs_in_without_groups(settings: Any) -> None:
    settings.AUTH_PROXY_HEADER, settings.AUTH_PROXY_GROUPS_HEADER = USER, ""


def assert_nothing_is_left_of_it(scope: dict[str, Any]) -> None:
    names = {name.decode().lower().replace("_", "-") for name, _ in scope["headers"]}
    assert not names & {USER, GROUPS}


@pytest.mark.usefixtures("signs_in")
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_trusted_proxy_tells_who_has_signed_in(kind: str) -> None:
    scope = await seen((USER, " zoë "), (GROUPS, "staff, desk users,,staff"), kind=kind)
    assert identity_of(scope) == Identity("zoë", ("desk users", "staff"))
    assert_nothing_is_left_of_it(scope)


@pytest.mark.usefixtures("signs_in")
@pytest.mark.parametrize("client", [OUTSIDE, "", "/run/socket", "::1", None])
async def test_nobody_else_can_tell_who_somebody_is(client: str | None) -> None:
    forged = [("x-forwarded-for", PROXY), (USER, "admin"), (GROUPS, "staff")]
    scope = await seen(*forged, client=client)
    assert identity_of(scope) is None
    assert_nothing_is_left_of_it(scope)


@pytest.mark.usefixtures("signs_in")
@pytest.mark.parametrize("client", [PROXY, OUTSIDE])
@pytest.mark.parametrize("name", ["x_remote_user", "X_Remote-User", "x-remote_user"])
async def test_another_spelling_tells_nothing_and_reaches_nobody(name: str, client: str) -> None:
    scope = await seen((name, "admin"), client=client)
    assert identity_of(scope) is None
    assert_nothing_is_left_of_it(scope)


@pytest.mark.usefixtures("signs_in")
@pytest.mark.parametrize(
    "headers",
    [
        [(USER, "anna"), (USER, "admin")],
        [(USER, "anna"), (GROUPS, "a"), (GROUPS, "staff")],
        [(USER, "")],
        [(USER, " ")],
        [(GROUPS, "staff")],
        [],
    ],
)
async def test_what_is_said_twice_or_of_nobody_signs_nobody_in(
    headers: list[tuple[str, str]],
) -> None:
    assert identity_of(await seen(*headers)) is None


@pytest.mark.usefixtures("signs_in")
async def test_no_groups_are_none_at_all_where_groups_are_told() -> None:
    assert identity_of(await seen((USER, "anna"))) == Identity("anna", ())


@pytest.mark.usefixtures("signs_in_without_groups")
async def test_groups_are_left_alone_where_they_are_not_told() -> None:
    scope = await seen((USER, "anna"), (GROUPS, "staff"))
    assert identity_of(scope) == Identity("anna", None)


async def test_by_default_such_a_header_is_one_like_any_other() -> None:
    scope = await seen((USER, "anna"))
    assert identity_of(scope) is None
    assert headers_of(scope, USER) == ["anna"]


@pytest.mark.parametrize("text", ["X-Remote-User", " x-remote-user ", "Remote-User"])
def test_a_header_is_read_in_lower_case(text: str) -> None:
    assert parse_header("AUTH_PROXY_HEADER", text) == text.strip().lower()


@pytest.mark.parametrize(
    "text", ["X_Remote_User", "X Remote", "Cookie", "Host", "X-Forwarded-For", "-", "X-Ä"]
)
def test_what_cannot_be_such_a_header_names_the_setting(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_header("AUTH_PROXY_HEADER", text)
    assert caught.value.name == "AUTH_PROXY_HEADER"


@pytest.mark.parametrize(
    ("user", "groups", "proxies", "named"),
    [
        ("", GROUPS, ["10.0.0.1"], "AUTH_PROXY_GROUPS_HEADER"),
        (USER, USER, ["10.0.0.1"], "AUTH_PROXY_GROUPS_HEADER"),
        (USER, "", [], "AUTH_PROXY_HEADER"),
    ],
)
def test_headers_that_do_not_fit_together_are_refused(
    user: str, groups: str, proxies: list[str], named: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_headers(user, groups, parse_networks("X", proxies))
    assert caught.value.name == named
