"""Addresses of desktops, and where they may be."""

from __future__ import annotations

import pytest

from controlplane.destinations import ANYWHERE, Address, parse_destinations, parse_url
from controlplane.exceptions import ConfigError, UpstreamError

SETTING = "DISPLAY_UPSTREAM_ALLOW"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("tcp://desk", ("tcp", "desk", 5900, "")),
        ("tcp://desk:5901", ("tcp", "desk", 5901, "")),
        ("tcp://[2001:db8::1]:5901", ("tcp", "2001:db8::1", 5901, "")),
        ("ws://desk/websockify", ("ws", "desk", 80, "/websockify")),
        ("wss://desk:6080/", ("wss", "desk", 6080, "/")),
        ("unix:///run/desktops/one.sock", ("unix", "", 0, "/run/desktops/one.sock")),
    ],
)
def test_an_address_says_how_and_where(url: str, expected: tuple[str, str, int, str]) -> None:
    assert parse_url(url) == Address(*expected, url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://desk", "must start with"),
        ("desk:5900", "must start with"),
        ("tcp://", "names no host"),
        ("tcp://desk:0", "port 0"),
        ("tcp://desk:x", "is not an address"),
        ("tcp://desk/path", "a host and a port only"),
        ("tcp://desk?token=1", "a host and a port only"),
        ("tcp://me@desk", "user or a password"),
        ("ws://me:secret@desk/", "user or a password"),
        ("unix://relative.sock", "must be unix:///path"),
        ("unix:///run/../etc/x", "must be unix:///path"),
        ("unix:///run/x?token=1", "takes a path only"),
        ("ws://desk/#token", "a part behind #"),
    ],
)
def test_what_is_no_address_is_named_with_its_problem(url: str, problem: str) -> None:
    with pytest.raises(UpstreamError, match=problem) as caught:
        parse_url(url)
    assert caught.value.step == "resolve"


@pytest.mark.parametrize(
    "url", ["ws://desk/?token=geheim", "http://desk?token=geheim", "ws://desk/?a=1#geheim"]
)
def test_a_query_is_never_repeated(url: str) -> None:
    try:
        shown = repr(parse_url(url)) + str(parse_url(url))
    except UpstreamError as error:
        shown = str(error)
    assert "geheim" not in shown


RESERVED = ["169.254.169.254", "fe80::1%eth0", "fd00:ec2::254", "100.100.100.200", "224.0.0.1"]


@pytest.mark.parametrize("address", [*RESERVED, "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"])
def test_link_local_and_metadata_addresses_are_refused_unless_they_are_listed(address: str) -> None:
    with pytest.raises(UpstreamError, match=SETTING):
        ANYWHERE.permitted("desk", [address])
    with pytest.raises(UpstreamError, match=SETTING):
        parse_destinations(SETTING, ["*"]).permitted("desk", [address])
    listed = parse_destinations(SETTING, ["0.0.0.0/0", "::/0"])
    assert listed.permitted("desk", [address]) == [address]


def test_where_nothing_is_listed_everything_else_may_be_dialled() -> None:
    found = ["127.0.0.1", "10.1.2.3", "192.0.2.1", "::1"]
    assert ANYWHERE.permitted("desk", found) == found
    ANYWHERE.check(parse_url("unix:///run/desk.sock"))


def test_of_what_a_name_resolves_to_only_the_permitted_is_dialled() -> None:
    listed = parse_destinations(SETTING, ["10.0.0.0/8", "2001:db8::/32"])
    assert listed.permitted("desk", ["192.0.2.1", "10.1.2.3", "2001:db8::7"]) == [
        "10.1.2.3",
        "2001:db8::7",
    ]
    with pytest.raises(UpstreamError, match=r"desk \(192\.0\.2\.1\)"):
        listed.permitted("desk", ["192.0.2.1", "192.0.2.1"])


def test_a_listed_name_may_be_anywhere_and_others_nowhere() -> None:
    listed = parse_destinations(SETTING, ["*.desks.example", "one"])
    assert listed.permitted("A.Desks.Example", ["192.0.2.1"]) == ["192.0.2.1"]
    assert listed.permitted("one", ["192.0.2.1"]) == ["192.0.2.1"]
    for other in ("desks.example", "two", "a.desks.example.org"):
        with pytest.raises(UpstreamError):
            listed.permitted(other, ["192.0.2.1"])


@pytest.mark.parametrize(
    ("url", "is_clear"),
    [
        ("tcp://10.1.1.1", False),
        ("tcp://192.0.2.1", True),
        ("tcp://[::ffff:192.0.2.1]", True),
        ("tcp://who-knows", False),  # only its address at the time of dialling tells
        ("unix:///run/desks/one.sock", False),
        ("unix:///run/other.sock", True),
        ("unix:///run/desks", True),
    ],
)
def test_what_is_clearly_not_permitted_is_said_before_it_is_stored(
    url: str, is_clear: bool
) -> None:
    listed = parse_destinations(SETTING, ["10.0.0.0/8", "unix:///run/desks/"])
    if not is_clear:
        return listed.check(parse_url(url))
    with pytest.raises(UpstreamError, match=SETTING):
        listed.check(parse_url(url))
    return None


@pytest.mark.parametrize("entry", ["http://desk", "10.0.0.1/8", "unix://run", "a b", "1", "-desk"])
def test_an_entry_that_is_none_is_named(entry: str) -> None:
    with pytest.raises(ConfigError, match=SETTING) as caught:
        parse_destinations(SETTING, ["10.0.0.0/8", entry])
    assert entry in str(caught.value)
