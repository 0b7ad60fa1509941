"""The DISPLAY_* settings: read once from the environment, typed, each with its default.

A bad value stops the start with a message that names the setting.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from environs import Env, EnvError, FileAwareEnv
from marshmallow.validate import Range

from controlplane.destinations import ANYWHERE, Destinations, parse_destinations, parse_url
from controlplane.exceptions import ConfigError, UpstreamError

MAX_LEASE_SECONDS = 3600
MIN_LEASE_SECONDS = 30
MIN_TOKEN_LENGTH = 16
MAX_ISSUER_LENGTH = 200  # of the column that people's identities are kept with
TOTP_OFF, TOTP_REQUIRED = "off", "required"
TOTP_MODES = (TOTP_OFF, "optional", TOTP_REQUIRED)
MIB = 1 << 20

KEY_IS_MISSING = (
    "SECRET_KEY is not set. Give this command the server's environment: SECRET_KEY, or "
    "SECRET_KEY_FILE (after “make run”: SECRET_KEY_FILE=var/secret_key). For a new server, make "
    "one: python3 -c 'import secrets; print(secrets.token_urlsafe(50))'"
)
"""What is wrong, and what mends it, wherever the key is missed."""

_POSITIVE = Range(min=0, min_inclusive=False)


@dataclass(frozen=True, slots=True)
class DisplaySettings:
    """How leases and streams behave. Times are seconds, sizes are bytes."""

    lease_seconds: float = 300  # how long a lease lasts without a renewal
    renew_seconds: float = 120  # how often a page renews (at most 0.4 of the lease)
    token_seconds: float = 60  # how long a session token may wait to be dialled
    watch_seconds: float = 1  # how often each process reads the leases of its streams
    fence_seconds: float = 10  # without a successful read for so long, all gates shut
    ping_seconds: float = 10  # how often server and page ask each other for a sign of life
    resume_seconds: float = 600  # how long after its expiry a lease may be resumed
    upstream_ping_seconds: float = 30  # keepalive towards desktops
    connect_seconds: float = 10  # time limit for connecting to a desktop, handshake included
    backlog_bytes: int = 1 * MIB  # above it, a stream's update requests are withheld
    backlog_cap_bytes: int = 64 * MIB  # above it, a stream is closed as too slow
    clipboard_bytes: int = 256 * 1024  # longer clipboard text is not sent to the desktop
    max_streams_per_user: int = 20
    max_streams_per_workspace: int = 50
    request_seconds: float = 60  # how long the holder has to answer who asks for control
    request_idle_seconds: float = 120  # without input for so long, the holder is not waited for
    request_countdown_seconds: float = 10  # ... but warned for so long; any input stops it
    upstream_allow: Destinations = ANYWHERE  # where desktops may be
    upstream_template: str = ""  # of workspaces without an address of their own; with {slug}
    upstream_ca_file: Path | None = None  # for wss://, instead of the system's authorities

    @property
    def min_lease_seconds(self) -> float:
        """The shortest time to live that a caller may ask for."""
        return min(MIN_LEASE_SECONDS, self.lease_seconds)

    def renew_after_seconds(self, ttl: float) -> float:
        """How long after a renewal the next one is due: two may be late before the lease ends."""
        return min(self.renew_seconds, 0.4 * ttl)


class Environment(FileAwareEnv):
    """Environment variables, or the files that their ``_FILE`` variants name."""

    def __init__(self) -> None:
        super().__init__(eager=True, strip_whitespace=True)  # a file ends with a newline

    def _get_value(self, env_key: str, default: Any) -> Any:
        try:
            return super()._get_value(env_key, default)
        except EnvError:
            raise
        except ValueError:
            raise ConfigError(f"{env_key}_FILE", "must name a readable text file") from None


def split_url(name: str, url: str, *schemes: str) -> SplitResult:
    """Return the parts of setting ``name``, an address; ConfigError, without its value, if not."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        starts = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ConfigError(name, f"must be an address that starts with {starts}")
    return parts


def parse_origin(name: str, url: str) -> str:
    """Return an origin of setting ``name`` as browsers write it; ConfigError for anything more.

    It goes into headers: nothing but a scheme, a host and a port may be in it.
    """
    match = _ORIGIN.fullmatch(url.strip().rstrip("/").lower())
    if not match:
        raise ConfigError(name, "must be origins such as https://platform.example, without a path")
    scheme, host, port = match["scheme"], match["host"], int(match["port"] or 0)
    is_default = port in {0, _DEFAULT_PORTS[scheme]}
    return f"{scheme}://{host}" if is_default else f"{scheme}://{host}:{port}"


_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_issuer(name: str, url: str) -> str:
    """Return setting ``name``, an OpenID provider; ConfigError where it could not be believed.

    What comes from there says who somebody is: without https, only from this very machine.
    """
    if not url:
        return ""
    parts = split_url(name, url, "http", "https")
    if parts.query or parts.fragment or parts.username is not None:
        raise ConfigError(name, "must be an address without a query, as the provider writes it")
    if not is_private(url):
        raise ConfigError(name, "must start with https://")
    if len(url) > MAX_ISSUER_LENGTH:
        raise ConfigError(name, f"must have at most {MAX_ISSUER_LENGTH} characters")
    return url


def is_private(url: str) -> bool:
    """Whether nobody on the way can read or change what is sent there, nor the answer."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def check_together(**settings: str) -> None:
    """Raise ConfigError where some of these settings, by name, are given and others are not."""
    missing = [name for name, value in settings.items() if not value]
    if missing and len(missing) < len(settings):
        given = next(name for name, value in settings.items() if value)
        raise ConfigError(missing[0], f"must be set as well as {given}")


def choose(name: str, value: str, choices: Sequence[str]) -> str:
    """Return setting ``name``, which is one of these; ConfigError if it is none of them."""
    if value not in choices:
        raise ConfigError(name, f"must be {' or '.join(choices)}")
    return value


def parse_token(name: str, token: str) -> str:
    """Return setting ``name``, a secret; ConfigError, without it, where it could be guessed."""
    if token and not re.fullmatch(rf"[!-~]{{{MIN_TOKEN_LENGTH},}}", token):
        problem = f"must have at least {MIN_TOKEN_LENGTH} printable ASCII characters, no blanks"
        raise ConfigError(name, problem)
    return token


def load(env: Env) -> DisplaySettings:
    """Return the settings in ``env`` (DISPLAY_LEASE_SECONDS and so on) over the defaults.

    Raises ConfigError or environs' EnvValidationError, both of which name the variable.
    """
    values = {field.name: _read(env, field.name, field.type) for field in fields(DisplaySettings)}
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    settings = DisplaySettings(**given)
    _check_relations(settings)
    return settings


def _read(env: Env, field: str, kind: object) -> Any:
    name = f"DISPLAY_{field.upper()}"
    if not env.str(name, ""):
        return None
    match kind:
        case "int":
            return env.int(name, validate=_POSITIVE)
        case "float":
            return env.float(name, validate=_POSITIVE)
        case "Destinations":
            return parse_destinations(name, env.list(name))
        case "str":  # upstream_template
            return _template(name, env.str(name))
        case _:
            return _ca_file(name, env.path(name))


def _template(name: str, template: str) -> str:
    if "{slug}" not in template:
        raise ConfigError(name, "must hold {slug}: tcp://{slug}.desktops:5900")
    try:
        parse_url(template.replace("{slug}", "desk"))
    except UpstreamError as error:
        raise ConfigError(name, error.detail) from None
    return template


def _ca_file(name: str, path: Path) -> Path:
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError):
        raise ConfigError(name, "must name a readable file with PEM certificates") from None
    return path


def _check_relations(settings: DisplaySettings) -> None:
    if settings.upstream_template:
        _check_template(settings)
    if settings.lease_seconds > MAX_LEASE_SECONDS:
        raise ConfigError("DISPLAY_LEASE_SECONDS", f"must be at most {MAX_LEASE_SECONDS}")
    if settings.fence_seconds <= settings.watch_seconds:
        raise ConfigError("DISPLAY_FENCE_SECONDS", "must be longer than DISPLAY_WATCH_SECONDS")
    if settings.backlog_cap_bytes <= settings.backlog_bytes:
        raise ConfigError("DISPLAY_BACKLOG_CAP_BYTES", "must be larger than DISPLAY_BACKLOG_BYTES")


def _check_template(settings: DisplaySettings) -> None:
    address = parse_url(settings.upstream_template.replace("{slug}", "desk"))
    try:
        settings.upstream_allow.check(address)
    except UpstreamError as error:
        raise ConfigError("DISPLAY_UPSTREAM_TEMPLATE", error.detail) from None
