"""Both handshakes: every version, every way to fail, in any pieces."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.exceptions import CredentialsRefused, ProtocolError, UpstreamError
from controlplane.rfb.auth import vnc_response
from controlplane.rfb.handshake import BrowserHandshake, ServerInit, UpstreamHandshake

PASSWORD = "s3cret!"
CHALLENGE = bytes(range(16))
ANSWER = vnc_response(PASSWORD, CHALLENGE)
PIXEL_FORMAT = bytes.fromhex("20 18 00 01 00ff 00ff 00ff 10 08 00 000000")
OK, FAILED, TOO_MANY = (struct.pack(">I", result) for result in (0, 1, 2))


def banner(minor: int, major: int = 3) -> bytes:
    return b"RFB %03d.%03d\n" % (major, minor)


def text(reason: bytes) -> bytes:
    return struct.pack(">I", len(reason)) + reason


def server_init(width: int = 800, height: int = 600, name: bytes = b"Desk 12") -> bytes:
    return struct.pack(">HH", width, height) + PIXEL_FORMAT + text(name)


INIT = server_init()


def bytewise(data: bytes) -> Iterator[bytes]:
    return (data[index : index + 1] for index in range(len(data)))


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return (data[start:end] for start, end in pairwise(edges))


# ==============================================================================================
# Towards the desktop
# ==============================================================================================


@dataclass
class Outcome:
    """What came of a handshake with a server that sends its part regardless of ours."""

    sent: bytes = b""
    error: UpstreamError | None = None
    init: ServerInit | None = None
    leftover: bytes = b""

    @property
    def verdict(self) -> tuple[object, ...]:
        told = self.error and (type(self.error), self.error.step, self.error.detail)
        return told, self.init, self.leftover


def meet(password: str | None, chunks: Iterable[bytes]) -> Outcome:
    handshake, outcome = UpstreamHandshake(password), Outcome()
    for chunk in chunks:
        if handshake.done:
            outcome.leftover += chunk
            continue
        try:
            outcome.sent += handshake.feed(chunk)
        except UpstreamError as error:
            outcome.error = error
            return outcome
        outcome.leftover += handshake.leftover
    outcome.init = handshake.server_init if handshake.done else None
    return outcome


def failure(password: str | None, data: bytes) -> UpstreamError:
    """Meet a server that makes the handshake fail, bytewise and whole alike."""
    outcome = meet(password, bytewise(data))
    assert outcome.verdict == meet(password, [data]).verdict
    assert outcome.error is not None
    assert PASSWORD not in str(outcome.error)
    return outcome.error


# For each version and security type: what the server sends, and what it gets.
SUCCESSES = {
    "3.3 None": (banner(3) + struct.pack(">I", 1) + INIT, banner(3) + b"\1"),
    "3.7 None": (banner(7) + b"\1\1" + INIT, banner(7) + b"\1\1"),
    "3.8 None": (banner(8) + b"\1\1" + OK + INIT, banner(8) + b"\1\1"),
    "3.3 VNC": (
        banner(3) + struct.pack(">I", 2) + CHALLENGE + OK + INIT,
        banner(3) + ANSWER + b"\1",
    ),
    "3.7 VNC": (banner(7) + b"\1\2" + CHALLENGE + OK + INIT, banner(7) + b"\2" + ANSWER + b"\1"),
    "3.8 VNC": (banner(8) + b"\1\2" + CHALLENGE + OK + INIT, banner(8) + b"\2" + ANSWER + b"\1"),
}


@pytest.mark.parametrize("case", SUCCESSES)
def test_the_desktop_is_met(case: str) -> None:
    server, expected = SUCCESSES[case]

    outcome = meet(PASSWORD, [server])

    assert outcome.error is None
    assert outcome.sent == expected
    assert outcome.init == ServerInit(800, 600, PIXEL_FORMAT, "Desk 12", INIT)


@pytest.mark.parametrize("case", SUCCESSES)
def test_the_desktop_is_met_when_every_byte_comes_alone(case: str) -> None:
    server, expected = SUCCESSES[case]

    outcome = meet(PASSWORD, bytewise(server + b"update"))

    assert outcome.sent == expected
    assert outcome.verdict == meet(PASSWORD, [server + b"update"]).verdict
    assert outcome.leftover == b"update"


@settings(deadline=None)
@given(st.sampled_from(sorted(SUCCESSES)), st.lists(st.integers(0, 10**4), max_size=20))
def test_the_desktop_is_met_in_any_pieces(case: str, cuts: list[int]) -> None:
    server, expected = SUCCESSES[case]

    outcome = meet(PASSWORD, pieces(server + b"update", cuts))

    assert outcome.sent == expected
    assert outcome.init == ServerInit(800, 600, PIXEL_FORMAT, "Desk 12", INIT)
    assert outcome.leftover == b"update"


def test_each_answer_is_given_as_soon_as_its_question_is_whole() -> None:
    handshake = UpstreamHandshake(PASSWORD)

    assert handshake.feed(banner(8)[:11]) == b""
    assert handshake.feed(banner(8)[11:]) == banner(8)
    assert handshake.feed(b"\2\1\2") == b"\2"
    assert handshake.feed(CHALLENGE) == ANSWER
    assert handshake.feed(OK) == b"\1"
    assert handshake.feed(INIT + b"rest") == b""
    assert handshake.done
    assert handshake.leftover == b"rest"


def test_the_step_says_what_is_waited_for() -> None:
    handshake = UpstreamHandshake(PASSWORD)
    steps = [handshake.step]

    for part in (banner(8), b"\1\2", CHALLENGE, OK, INIT):
        handshake.feed(part)
        steps.append(handshake.step)

    assert steps == [
        "banner", "security", "authentication", "authentication", "ServerInit", "ServerInit",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (banner(4), 3),
        (banner(5), 3),
        (banner(6), 3),
        (banner(9), 8),
        (banner(889), 8),
        (banner(0, major=4), 8),
        (banner(1, major=5), 8),
    ],
)
def test_other_versions_are_answered_with_one_that_exists(theirs: bytes, ours: int) -> None:
    assert UpstreamHandshake(None).feed(theirs) == banner(ours)


@pytest.mark.parametrize(
    ("offered", "password", "chosen"),
    [
        (b"\1\2", None, 1),
        (b"\1\2", PASSWORD, 2),
        (b"\2\1", PASSWORD, 2),
        (b"\2\1", None, 1),
        (b"\2\1", "", 1),
        (b"\1", PASSWORD, 1),
        (b"\x13\x10\2", PASSWORD, 2),
    ],
)
def test_a_stored_password_is_used_wherever_the_desktop_takes_one(
    offered: bytes, password: str | None, chosen: int
) -> None:
    handshake = UpstreamHandshake(password)
    handshake.feed(banner(8))

    assert handshake.feed(bytes([len(offered)]) + offered) == bytes([chosen])


# -- Failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "greeting",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request", b"220 ", bytes(12), b"rfb 003.008\n"],
)
def test_a_server_of_another_kind_is_told_from_its_first_bytes(greeting: bytes) -> None:
    error = failure(None, greeting)

    assert (error.step, error.detail) == (
        "banner",
        "this is not a VNC server: it does not start with an RFB version",
    )


@pytest.mark.parametrize(
    "greeting", [b"RFB 3.8\n    ", b"RFB 003.008\r", b"RFB 00x.008\n", b"RFB \xb2\xb2\xb2.008\n"]
)
def test_a_version_that_cannot_be_read_is_told(greeting: bytes) -> None:
    error = failure(None, greeting)

    assert error.step == "banner"
    assert error.detail == "this is not a VNC server: its RFB version cannot be read"


@pytest.mark.parametrize("greeting", [banner(2), banner(0, major=0), banner(9, major=2)])
def test_a_version_before_3_3_is_told(greeting: bytes) -> None:
    error = failure(None, greeting)

    assert error.step == "banner"
    assert error.detail == f"its RFB version is too old ({greeting[4:11].decode()}); 3.3 is needed"


REFUSALS = {
    "3.3": banner(3) + struct.pack(">I", 0),
    "3.7": banner(7) + b"\0",
    "3.8": banner(8) + b"\0",
    "3.8 after None": banner(8) + b"\1\1" + FAILED,
}


@pytest.mark.parametrize("case", REFUSALS)
def test_the_reason_of_a_server_that_refuses_is_told(case: str) -> None:
    error = failure(None, REFUSALS[case] + text(b"Too many security failures"))

    assert not isinstance(error, CredentialsRefused)
    assert error.step == "security"
    assert error.detail == "the server refused: Too many security failures"


@pytest.mark.parametrize("case", REFUSALS)
def test_a_server_may_refuse_without_a_reason(case: str) -> None:
    assert failure(None, REFUSALS[case] + text(b"")).detail == (
        "the server refused without a reason"
    )


@pytest.mark.parametrize("length", [201, 1024, 2**32 - 1])
def test_a_long_reason_is_cut_and_not_waited_for(length: int) -> None:
    error = failure(None, banner(8) + b"\0" + struct.pack(">I", length) + b"x" * min(length, 1024))

    assert error.detail == "the server refused: " + "x" * 200


def test_a_reason_cannot_write_more_than_one_line() -> None:
    reason = "no\r\nINFO forged\x1b[2J\0 caf\u00e9 \u202e".encode() + b"\xff"

    detail = failure(None, banner(8) + b"\0" + text(reason)).detail

    assert detail == "the server refused: no  INFO forged [2J  café  \ufffd"
    assert detail.isprintable()


def test_a_desktop_without_a_supported_security_type_is_told_with_what_it_offers() -> None:
    error = failure(PASSWORD, banner(8) + b"\4\x13\x12\x13\xc8")

    assert not isinstance(error, CredentialsRefused)
    assert error.step == "security"
    assert error.detail == (
        "no supported security type is offered, only VeNCrypt (19), TLS (18), type (200)"
    )


def test_a_dictated_security_type_that_is_not_supported_is_told() -> None:
    error = failure(PASSWORD, banner(3) + struct.pack(">I", 16))

    assert error.detail == "no supported security type is offered, only Tight (16)"


def test_a_very_long_list_of_security_types_is_cut() -> None:
    error = failure(PASSWORD, banner(8) + bytes([250]) + bytes(range(3, 253)))

    assert len(error.detail) < 200
    assert error.detail.endswith(", …")


@pytest.mark.parametrize(
    "asks", [banner(3) + struct.pack(">I", 2), banner(7) + b"\1\2", banner(8) + b"\1\2"]
)
@pytest.mark.parametrize("password", [None, ""])
def test_a_desktop_that_wants_a_password_where_none_is_stored(
    asks: bytes, password: str | None
) -> None:
    error = failure(password, asks)

    assert isinstance(error, CredentialsRefused)
    assert error.step == "authentication"
    assert error.detail == "the desktop asks for a VNC password and none is stored"


ASKS_FOR_PASSWORD = {
    "3.3": banner(3) + struct.pack(">I", 2) + CHALLENGE,
    "3.7": banner(7) + b"\1\2" + CHALLENGE,
    "3.8": banner(8) + b"\1\2" + CHALLENGE,
}


@pytest.mark.parametrize("case", ASKS_FOR_PASSWORD)
@pytest.mark.parametrize("result", [FAILED, b"\xff\xff\xff\xff"])
def test_a_wrong_password_is_told_without_waiting_for_a_reason(case: str, result: bytes) -> None:
    error = failure(PASSWORD, ASKS_FOR_PASSWORD[case] + result)

    assert isinstance(error, CredentialsRefused)
    assert (error.step, error.detail) == ("authentication", "authentication failed")


def test_too_many_attempts_are_told_as_such() -> None:
    error = failure(PASSWORD, ASKS_FOR_PASSWORD["3.7"] + TOO_MANY)

    assert isinstance(error, CredentialsRefused)
    assert error.detail == "authentication failed: too many attempts"


def test_a_stored_password_that_no_server_can_have_is_not_tried() -> None:
    error = failure("日本" + PASSWORD, ASKS_FOR_PASSWORD["3.8"])

    assert isinstance(error, CredentialsRefused)
    assert error.step == "authentication"
    assert error.detail == "the stored password has characters that no VNC password has"


TRUSTED = banner(8) + b"\1\1" + OK


@pytest.mark.parametrize(
    ("width", "height"), [(0, 600), (800, 0), (0, 0), (32768, 1), (1, 65535), (32767, 32767)]
)
def test_an_impossible_size_is_told(width: int, height: int) -> None:
    error = failure(None, TRUSTED + server_init(width, height)[:24])

    assert error.step == "ServerInit"
    assert error.detail == f"the desktop claims an impossible size ({width} × {height})"


@pytest.mark.parametrize(("width", "height"), [(1, 1), (15360, 8640), (32767, 4096)])
def test_an_unusual_size_is_accepted(width: int, height: int) -> None:
    init = meet(None, [TRUSTED + server_init(width, height)]).init

    assert init is not None
    assert (init.width, init.height) == (width, height)


@pytest.mark.parametrize("length", [64 * 1024 + 1, 2**32 - 1])
def test_a_name_that_is_too_long_is_refused_at_its_length(length: int) -> None:
    error = failure(None, TRUSTED + server_init()[:20] + struct.pack(">I", length))

    assert (error.step, error.detail) == (
        "ServerInit",
        f"the desktop's name is too long ({length} bytes)",
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"", ""),
        (b"n" * 64 * 1024, "n" * 64 * 1024),
        ("Büro 7".encode(), "Büro 7"),
        (b"B\xfcro\n7", "B\ufffdro 7"),
    ],
    ids=["empty", "longest", "UTF-8", "other"],
)
def test_any_name_can_be_shown_and_is_passed_on_unchanged(name: bytes, shown: str) -> None:
    init = meet(None, [TRUSTED + server_init(name=name)]).init

    assert init is not None
    assert init.name == shown
    assert init.raw == server_init(name=name)


# -- Hostile servers, and how it is called -----------------------------------------------------

server_parts = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([banner(3), banner(7), banner(8), banner(889)]),
    st.sampled_from([b"\1\1", b"\1\2", b"\2\1\2", b"\0", OK, FAILED, CHALLENGE, INIT]),
    st.integers(0, 3).map(lambda number: struct.pack(">I", number)),
)


@settings(deadline=None)
@given(
    st.lists(server_parts, max_size=8).map(b"".join),
    st.sampled_from([None, PASSWORD]),
    st.lists(st.integers(0, 10**4), max_size=20),
)
def test_whatever_a_server_sends_in_any_pieces_has_the_same_outcome(
    data: bytes, password: str | None, cuts: list[int]
) -> None:
    whole = meet(password, [data])

    assert meet(password, pieces(data, cuts)).verdict == whole.verdict
    assert meet(password, bytewise(data)).verdict == whole.verdict


@pytest.mark.parametrize("end", ["done", "failed"])
def test_a_handshake_that_is_over_takes_no_more_bytes(end: str) -> None:
    handshake = UpstreamHandshake(None)
    if end == "done":
        handshake.feed(TRUSTED + INIT)
    else:
        with pytest.raises(UpstreamError):
            handshake.feed(b"SSH-")

    assert handshake.done is (end == "done")
    with pytest.raises(RuntimeError, match="takes no more bytes"):
        handshake.feed(b"x")


def test_there_is_no_server_init_before_it_was_read() -> None:
    handshake = UpstreamHandshake(None)
    handshake.feed(TRUSTED + INIT[:-1])

    assert not handshake.done
    assert handshake.leftover == b""
    with pytest.raises(RuntimeError, match="not been read"):
        _ = handshake.server_init


def test_the_password_is_forgotten_once_it_was_accepted() -> None:
    handshake = UpstreamHandshake(PASSWORD)
    handshake.feed(SUCCESSES["3.8 VNC"][0])

    assert PASSWORD not in repr(vars(handshake))


# ==============================================================================================
# Towards the browser
# ==============================================================================================

NONE_33 = struct.pack(">I", 1)

# For each version: what the client sends, and the frames it gets after the banner.
BROWSERS = {
    "3.3": (banner(3) + b"\1", [NONE_33, INIT]),
    "3.5": (banner(5) + b"\0", [NONE_33, INIT]),
    "3.7": (banner(7) + b"\1\1", [b"\1\1", INIT]),
    "3.8": (banner(8) + b"\1\1", [b"\1\1", OK, INIT]),
    "3.889": (banner(889) + b"\1\1", [b"\1\1", OK, INIT]),
}


def serve(chunks: Iterable[bytes]) -> tuple[list[bytes], bool, bytes, str | None]:
    """Return the frames, whether it was done, what was left over, and the violation."""
    handshake, frames, leftover = BrowserHandshake(INIT), list[bytes](), b""
    for chunk in chunks:
        if handshake.done:
            leftover += chunk
            continue
        try:
            frames += handshake.feed(chunk)
        except ProtocolError as error:
            return [], False, b"", error.detail
        leftover += handshake.leftover
    return frames, handshake.done, leftover, None


def test_the_banner_is_a_frame_of_its_own() -> None:
    """noVNC reads twelve bytes of that frame and drops the rest."""
    handshake = BrowserHandshake(INIT)

    assert handshake.start() == [b"RFB 003.008\n"]
    assert handshake.feed(b"") == []


@pytest.mark.parametrize("case", BROWSERS)
def test_the_browser_is_let_in_without_a_password(case: str) -> None:
    client, frames = BROWSERS[case]

    assert serve([client]) == (frames, True, b"", None)


@pytest.mark.parametrize("case", BROWSERS)
def test_the_browser_is_let_in_when_every_byte_comes_alone(case: str) -> None:
    client, frames = BROWSERS[case]

    assert serve(bytewise(client + b"messages")) == (frames, True, b"messages", None)


@settings(deadline=None)
@given(st.sampled_from(sorted(BROWSERS)), st.lists(st.integers(0, 10**4), max_size=20))
def test_the_browser_is_let_in_in_any_pieces(case: str, cuts: list[int]) -> None:
    client, frames = BROWSERS[case]

    assert serve(pieces(client + b"messages", cuts)) == (frames, True, b"messages", None)


def test_each_frame_waits_for_its_turn() -> None:
    handshake = BrowserHandshake(INIT)

    assert handshake.feed(banner(8)) == [b"\1\1"]
    assert handshake.feed(b"\1") == [OK]
    assert not handshake.done
    assert handshake.feed(b"\1") == [INIT]
    assert handshake.done


def test_messages_behind_client_init_belong_to_the_stream() -> None:
    handshake = BrowserHandshake(INIT)
    handshake.feed(banner(8) + b"\1\1" + b"messages")

    assert handshake.leftover == b"messages"
    with pytest.raises(RuntimeError, match="takes no more bytes"):
        handshake.feed(b"x")


@pytest.mark.parametrize("version", [b"GET / HTTP/1", banner(2), banner(9, major=1), bytes(12)])
def test_a_browser_without_a_usable_version_is_turned_away(version: bytes) -> None:
    assert serve([version])[3] == "the RFB version cannot be read or is too old"
    assert serve(bytewise(version)) == serve([version])


@pytest.mark.parametrize("chosen", [0, 2, 19, 255])
@pytest.mark.parametrize("minor", [7, 8])
def test_a_browser_may_not_choose_what_was_not_offered(minor: int, chosen: int) -> None:
    told = serve([banner(minor) + bytes([chosen])])

    assert told[3] == f"security type {chosen} was chosen but not offered"


def test_a_browser_that_broke_the_handshake_cannot_go_on() -> None:
    handshake = BrowserHandshake(INIT)
    with pytest.raises(ProtocolError):
        handshake.feed(bytes(12) + b"more")

    assert handshake.leftover == b""
    with pytest.raises(RuntimeError, match="takes no more bytes"):
        handshake.feed(b"x")


@settings(deadline=None)
@given(
    st.lists(
        st.binary(max_size=20) | st.sampled_from([banner(3), banner(7), banner(8), b"\1"]),
        max_size=6,
    ).map(b"".join),
    st.lists(st.integers(0, 10**4), max_size=20),
)
def test_whatever_a_browser_sends_in_any_pieces_has_the_same_outcome(
    data: bytes, cuts: list[int]
) -> None:
    whole = serve([data])

    assert serve(pieces(data, cuts)) == whole
    assert serve(bytewise(data)) == whole
