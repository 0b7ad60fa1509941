"""Both handshakes of a proxied stream (RFC 6143 §7.1 to §7.3), for RFB 3.3, 3.7 and 3.8.

The proxy is a client towards the desktop (UpstreamHandshake) and a server towards the browser
(BrowserHandshake). It completes the first before it starts the second, so the password of the
desktop stays here and a desktop that cannot be reached is told in words.

Each conversation is written as a generator that yields how many bytes it needs next and is sent
exactly those: it reads like the RFC and cannot depend on how the bytes arrive.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias, TypeVar

from controlplane.exceptions import (
    ControlPlaneError,
    CredentialsRefused,
    ProtocolError,
    UpstreamError,
)
from controlplane.rfb.auth import CHALLENGE_LENGTH, vnc_response

T = TypeVar("T")
Conversation: TypeAlias = Generator[int, bytes, T]

VERSION_LENGTH: Final = 12
BANNER: Final = b"RFB 003.008\n"

SECURITY_NONE: Final = 1
SECURITY_VNC: Final = 2
SECURITY_NAMES: Final = {
    1: "None",
    2: "VNC authentication",
    5: "RA2",
    6: "RA2ne",
    16: "Tight",
    17: "Ultra",
    18: "TLS",
    19: "VeNCrypt",
    20: "SASL",
    21: "MD5",
    22: "xvp",
    30: "Apple Remote Desktop",
    129: "RA2-256",
    130: "RA2ne-256",
}

RESULT_OK: Final = b"\0\0\0\0"
RESULT_TOO_MANY: Final = b"\0\0\0\2"

SHARED: Final = b"\1"
SERVER_INIT_LENGTH: Final = 24
MAX_NAME_LENGTH: Final = 64 * 1024
MAX_SIDE: Final = 32767
"""X11 has no larger screens."""
MAX_PIXELS: Final = 2**27
"""A wall of sixteen 4K screens. A whole frame has to fit the limits of the data plane."""
MAX_REASON_BYTES: Final = 1024
MAX_REASON_CHARACTERS: Final = 200
MAX_TYPES_NAMED: Final = 8


@dataclass(frozen=True, slots=True)
class ServerInit:
    """What a desktop says of itself (§7.3.2); sizes in pixels, ``raw`` as received."""

    width: int
    height: int
    pixel_format: bytes
    name: str
    raw: bytes


class _Exchange:
    """Feeds a conversation with exactly the bytes it asks for, whatever pieces they come in."""

    def __init__(self, conversation: Conversation[None]) -> None:
        self._conversation = conversation
        self._buffer = bytearray()
        self._needed = next(conversation)
        self._failed = False
        self.done = False

    def advance(self, data: bytes) -> None:
        """Go on as far as ``data`` allows; an error ends the conversation for good."""
        if self.done or self._failed:
            raise RuntimeError("the handshake is over: it takes no more bytes")
        self._buffer += data
        while self._can_go_on():
            self._step()

    def leftover(self) -> bytes:
        """Return what was fed beyond the end of the conversation; empty until it is done."""
        return bytes(self._buffer) if self.done else b""

    def _can_go_on(self) -> bool:
        return not self.done and len(self._buffer) >= self._needed

    def _step(self) -> None:
        piece = bytes(self._buffer[: self._needed])
        del self._buffer[: self._needed]
        try:
            self._needed = self._conversation.send(piece)
        except StopIteration:
            self.done = True
        except ControlPlaneError:
            self._failed = True
            self._buffer.clear()
            raise


class UpstreamHandshake:
    """The client's side, towards a desktop. It always asks for a shared session.

    Every failure is an UpstreamError with the step it happened at and a detail in plain words.
    It is CredentialsRefused where dialling again cannot help and may lock us out. Neither ever
    contains the password.
    """

    def __init__(self, password: str | None) -> None:
        """Use ``password`` if the desktop asks for one; an empty one counts as none."""
        self._password = password or None
        self._step = "banner"
        self._outgoing = bytearray()
        self._server_init: ServerInit | None = None
        self._exchange = _Exchange(self._converse())

    @property
    def done(self) -> bool:
        """Whether ServerInit has been read, so that the stream may begin."""
        return self._exchange.done

    @property
    def step(self) -> str:
        """What it waits for: banner, security, authentication or ServerInit."""
        return self._step

    @property
    def is_authenticating(self) -> bool:
        """Whether what is to be sent next leads to the password's being judged."""
        return self._step == "authentication"

    @property
    def server_init(self) -> ServerInit:
        """What the desktop said of itself; only once ``done``."""
        if self._server_init is None:
            raise RuntimeError("ServerInit has not been read yet")
        return self._server_init

    @property
    def leftover(self) -> bytes:
        """What the desktop sent after ServerInit; only once ``done``."""
        return self._exchange.leftover()

    def feed(self, data: bytes) -> bytes:
        """Take what the desktop sent and return what to send to it now, perhaps nothing.

        Raises UpstreamError or CredentialsRefused. After that, and once ``done``, it must not be
        fed any more (RuntimeError).
        """
        self._exchange.advance(data)
        reply = bytes(self._outgoing)
        self._outgoing.clear()
        return reply

    def _converse(self) -> Conversation[None]:
        minor = yield from self._agree_on_version()
        self._step = "security"
        if minor == 3:
            security = yield from self._obey_dictated_security()
        else:
            security = yield from self._choose_security()
        if security == SECURITY_VNC:
            yield from self._authenticate()
        elif minor == 8:
            yield from self._read_result_of_none()
        self._password = None
        self._step = "ServerInit"
        self._outgoing += SHARED
        yield from self._read_server_init()

    def _agree_on_version(self) -> Conversation[int]:
        # The first bytes alone tell a server of another kind, which may never send twelve.
        version = yield 4
        if version != BANNER[:4]:
            raise self._failure("this is not a VNC server: it does not start with an RFB version")
        version += yield VERSION_LENGTH - 4
        minor = _minor_version(version)
        if minor is None:
            raise self._failure("this is not a VNC server: its RFB version cannot be read")
        if minor == 0:
            raise self._failure(
                f"its RFB version is too old ({_printable(version[4:])}); 3.3 is needed"
            )
        self._outgoing += b"RFB 003.%03d\n" % minor
        return minor

    def _obey_dictated_security(self) -> Conversation[int]:
        """RFB 3.3: the server decides (§7.1.2, last part)."""
        security = int.from_bytes((yield 4), "big")
        if security == 0:
            yield from self._fail_with_reason()
        return self._preferred([security])

    def _choose_security(self) -> Conversation[int]:
        """RFB 3.7 and up: the server lists, the client picks (§7.1.2)."""
        count = (yield 1)[0]
        if count == 0:
            yield from self._fail_with_reason()
        security = self._preferred((yield count))
        self._outgoing.append(security)
        return security

    def _preferred(self, offered: bytes | list[int]) -> int:
        if SECURITY_VNC in offered and self._password is not None:
            return SECURITY_VNC
        if SECURITY_NONE in offered:
            return SECURITY_NONE
        if SECURITY_VNC in offered:
            self._step = "authentication"
            raise self._refusal("the desktop asks for a VNC password and none is stored")
        raise self._failure(f"no supported security type is offered, only {_named(offered)}")

    def _authenticate(self) -> Conversation[None]:
        """VNC authentication (§7.2.2) and its result (§7.1.3), which all versions send."""
        self._step = "authentication"
        self._outgoing += self._answer((yield CHALLENGE_LENGTH))
        result = yield 4
        if result == RESULT_OK:
            return
        # 3.8 sends a reason too. It is not waited for: if it never came, a refused password
        # would look like a broken connection and be tried again until the server locks us out.
        tries = ": too many attempts" if result == RESULT_TOO_MANY else ""
        raise self._refusal(f"authentication failed{tries}")

    def _answer(self, challenge: bytes) -> bytes:
        try:
            return vnc_response(self._password or "", challenge)
        except ValueError:
            detail = "the stored password has characters that no VNC password has"
            raise self._refusal(detail) from None

    def _read_result_of_none(self) -> Conversation[None]:
        """Only 3.8 sends a result where there was nothing to check (§7.1.3)."""
        if (yield 4) != RESULT_OK:
            yield from self._fail_with_reason()

    def _read_server_init(self) -> Conversation[None]:
        raw = yield SERVER_INIT_LENGTH
        width, height = int.from_bytes(raw[0:2], "big"), int.from_bytes(raw[2:4], "big")
        if not _is_plausible(width, height):
            raise self._failure(f"the desktop claims an impossible size ({width} × {height})")
        length = int.from_bytes(raw[20:24], "big")
        if length > MAX_NAME_LENGTH:
            raise self._failure(f"the desktop's name is too long ({length} bytes)")
        name = yield length
        self._server_init = ServerInit(width, height, raw[4:20], _printable(name), raw + name)

    def _fail_with_reason(self) -> Conversation[NoReturn]:
        """Read why the server said no (§7.1.2, §7.1.3), no more than is shown, and fail."""
        length = int.from_bytes((yield 4), "big")
        reason = yield min(length, MAX_REASON_BYTES)
        text = _printable(reason)[:MAX_REASON_CHARACTERS]
        raise self._failure(
            f"the server refused: {text}" if text else "the server refused without a reason"
        )

    def _failure(self, detail: str) -> UpstreamError:
        return UpstreamError(self._step, detail)

    def _refusal(self, detail: str) -> CredentialsRefused:
        return CredentialsRefused(self._step, detail)


class BrowserHandshake:
    """The server's side, towards a browser that has been authorised already: it offers only None.

    Frames are lists because they must stay apart: noVNC reads the version banner and nothing
    else from the frame that it comes in, so the rest has to wait for the browser's version.
    """

    def __init__(self, server_init: bytes) -> None:
        """Present the desktop of ``server_init``, a whole ServerInit message."""
        self._server_init = server_init
        self._frames: list[bytes] = []
        self._exchange = _Exchange(self._converse())

    @property
    def done(self) -> bool:
        """Whether ClientInit has been read; from here on the browser sends messages."""
        return self._exchange.done

    @property
    def leftover(self) -> bytes:
        """What the browser sent after ClientInit: the start of its messages."""
        return self._exchange.leftover()

    def start(self) -> list[bytes]:
        """Return the frames to send before anything has been received: the banner, alone."""
        return [BANNER]

    def feed(self, data: bytes) -> list[bytes]:
        """Take what the browser sent and return the frames to send now, in order.

        Raises ProtocolError. After that, and once ``done``, it must not be fed any more
        (RuntimeError).
        """
        self._exchange.advance(data)
        frames, self._frames = self._frames, []
        return frames

    def _converse(self) -> Conversation[None]:
        minor = _minor_version((yield VERSION_LENGTH))
        if not minor:
            raise ProtocolError("the RFB version cannot be read or is too old")
        if minor == 3:
            self._frames.append(SECURITY_NONE.to_bytes(4, "big"))
        else:
            yield from self._offer_none()
        if minor == 8:
            self._frames.append(RESULT_OK)
        # ClientInit: one byte, whether to share. The proxy's own wish (always) is already sent.
        yield 1
        self._frames.append(self._server_init)

    def _offer_none(self) -> Conversation[None]:
        self._frames.append(bytes([1, SECURITY_NONE]))
        chosen = (yield 1)[0]
        if chosen != SECURITY_NONE:
            raise ProtocolError(f"security type {chosen} was chosen but not offered")


def _minor_version(banner: bytes) -> int | None:
    """Return which of 3.3, 3.7 and 3.8 to speak with the sender of ``banner`` (§7.1.1).

    0 is a version before 3.3, None is not a version. 3.4 to 3.6 never existed and mean 3.3;
    later ones, Apple's 3.889 among them, understand 3.8.
    """
    match = re.fullmatch(rb"RFB ([0-9]{3})\.([0-9]{3})\n", banner)
    if match is None:
        return None
    version = int(match[1]), int(match[2])
    if version < (3, 3):
        return 0
    if version < (3, 7):
        return 3
    return 7 if version == (3, 7) else 8


def _is_plausible(width: int, height: int) -> bool:
    return 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS


def _named(types: bytes | list[int]) -> str:
    distinct = list(dict.fromkeys(types))
    names = [f"{SECURITY_NAMES.get(number, 'type')} ({number})" for number in distinct]
    more = ", …" if len(names) > MAX_TYPES_NAMED else ""
    return ", ".join(names[:MAX_TYPES_NAMED]) + more


def _printable(text: bytes) -> str:
    """Decode a server's text for people and logs: one line, nothing that moves the cursor."""
    decoded = text.decode("utf-8", errors="replace")
    return "".join(char if char.isprintable() else " " for char in decoded).strip()
