"""Posting to servers whose addresses others have entered: which are dialled, and for how long."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from controlplane.destinations import Network, numeric
from controlplane.exceptions import PostFailed
from controlplane.webhooks import posting
from controlplane.webhooks.posting import Endpoint, may_be_told, parse_endpoint, post
from tests.support.processes import free_port
from tests.support.receiver import Receiver
from tests.support.silence import silent_address

LOOPBACK: list[Network] = [ip_network("127.0.0.0/8")]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server on the loopback interface."""
    server = Receiver().start()
    yield server
    server.stop()


async def send(url: str, allowed: list[Network] = LOOPBACK, seconds: float = 5) -> int:
    return await post(
        parse_endpoint(url), {"X-Of": "ours"}, b"{}", allowed=allowed, seconds=seconds
    )


async def failure(url: str, allowed: list[Network] = LOOPBACK, seconds: float = 5) -> str:
    with pytest.raises(PostFailed) as caught:
        await send(url, allowed, seconds)
    return caught.value.detail


# --- Addresses ------------------------------------------------------------------------------------
def test_an_address_is_taken_apart() -> None:
    found = parse_endpoint("https://hooks.example:8443/a/b?c=d")
    assert found == Endpoint("https", "hooks.example", 8443, "/a/b?c=d")
    assert found.authority == "hooks.example:8443"
    assert parse_endpoint("http://[2001:db8::1]").authority == "[2001:db8::1]"
    assert parse_endpoint("https://hooks.example").target == "/"


@pytest.mark.parametrize(
    "url",
    [
        *("", "hooks.example", "ftp://hooks.example/", "file:///etc/passwd", "http://"),
        *("http://a:0/", "http://a:x/", "http://[::1/", "http://me:secret@hooks.example/"),
        *("http://hooks.example/#secret", "http://hooks.example/a b", "http://hooks.example/ä"),
        "http://hooks.example/secret\r\nX-Injected: 1",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(PostFailed) as caught:
        parse_endpoint(url)
    assert "secret" not in caught.value.detail


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "255.255.255.255", "168.63.129.16", "::1", "::", "fe80::1"),
        *("fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"),
        "2002:7f00:1::",
    ],
)
def test_no_private_address_is_told_in_whatever_clothes(text: str) -> None:
    assert not may_be_told(numeric(text), [])


def test_public_addresses_and_listed_networks_are_told() -> None:
    assert may_be_told(numeric("93.184.216.34"), [])
    assert may_be_told(numeric("2606:2800:220:1::1"), [])
    assert may_be_told(numeric("127.0.0.1"), LOOPBACK)
    assert not may_be_told(numeric("10.0.0.1"), LOOPBACK)


# --- Dialling -------------------------------------------------------------------------------------
async def test_the_body_arrives_with_its_headers(receiver: Receiver) -> None:
    receiver.status = 204
    assert await send(receiver.url) == 204
    (told,) = receiver.told
    assert (told.path, told.body) == ("/hooks?key=geheim", b"{}")
    assert told.headers["x-of"] == "ours"
    assert told.headers["host"] == f"127.0.0.1:{receiver.port}"


async def test_a_private_address_is_not_dialled(receiver: Receiver) -> None:
    assert "WEBHOOK_ALLOW" in await failure(receiver.url, [])
    assert receiver.told == []


async def test_a_name_that_leads_to_a_private_address_is_not_dialled(receiver: Receiver) -> None:
    problem = await failure(f"http://localhost:{receiver.port}/", [])
    assert "127.0.0.1" in problem
    assert "WEBHOOK_ALLOW" in problem
    assert receiver.told == []


async def test_the_address_that_is_dialled_is_the_one_that_was_judged(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that says something else each time it is asked changes nothing."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, *args: Any, **options: Any) -> Any:
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    allowed: list[Network] = [ip_network("127.0.0.1/32")]
    assert await send(f"http://hooks.example:{receiver.port}/", allowed) == 200
    assert asked == ["hooks.example"]


async def test_an_address_that_stays_silent_leaves_time_for_the_next(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent_address() as silent:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            for address in (silent, ("127.0.0.1", receiver.port))
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert await send("http://two-addresses.example/", seconds=2) == 200
        del found[1]
        assert await failure("http://one-address.example/", seconds=0.2) == "no answer within 0.2 s"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example"])
async def test_a_host_that_there_is_not_is_named(host: str) -> None:
    assert (await failure(f"http://{host}/")).startswith(f"{host}: ")


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.status, receiver.location = 302, receiver.url
    assert await send(receiver.url) == 302
    assert len(receiver.told) == 1


async def test_no_proxy_of_the_environment_is_asked(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert await send(receiver.url) == 200


async def test_a_receiver_that_drips_is_cut_off(receiver: Receiver) -> None:
    receiver.hangs.set()
    begun = time.monotonic()
    assert await failure(receiver.url, seconds=0.5) == "no answer within 0.5 s"
    assert time.monotonic() - begun < 5
    assert len(receiver.told) == 1


async def test_an_endless_head_is_not_read(receiver: Receiver) -> None:
    receiver.location = "x" * 4 * posting.HEAD_BYTES
    assert await failure(receiver.url) == "its answer is not HTTP"


async def test_what_does_not_answer_says_so(receiver: Receiver) -> None:
    assert "refused" in await failure(f"http://127.0.0.1:{free_port()}/secret")
    assert "TLS" in await failure(receiver.url.replace("http:", "https:"))
    assert "secret" not in await failure(f"http://no-such-host.invalid:{receiver.port}/secret")
