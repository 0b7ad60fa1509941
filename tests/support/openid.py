"""A real OpenID provider on the loopback interface: discovery, codes with PKCE, RS256, userinfo.

It checks what a client sends as the standards have it, and remembers what it was sent. What it
answers can be bent, for a client must not believe all of it.
"""

from __future__ import annotations

import hashlib
import html
import json
import secrets
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.support.processes import free_port

CLIENT_ID, CLIENT_SECRET = "desktopctl-at-test", "the-secret-of-the-client-0123456789"

_PAGE = """<!doctype html><title>Provider</title><h1>Who are you?</h1>
<form method="post"><label>Name <input name="name" autofocus></label>
<input type="hidden" name="query" value="{query}"><button>Let me in</button></form>"""

Claims = dict[str, Any]


KID = "the-published-one"


def new_key() -> RSAKey:
    """Return a key to sign with, by the name of the published one."""
    return RSAKey.generate_key(2048, {"kid": KID, "use": "sig", "alg": "RS256"})


def by_hand(header: Claims, claims: Claims, sign: Callable[[bytes], bytes]) -> str:
    """Return a token as no library would make it."""
    parts = [_base64(json.dumps(part).encode()) for part in ({"kid": KID} | header, claims)]
    return ".".join([*parts, _base64(sign(".".join(parts).encode()))])


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


@dataclass
class Grant:
    """What a code stands for until somebody brings it."""

    name: str
    asked: dict[str, str]


@dataclass
class Provider:
    """Signs in whom ``people`` names, each with claims of their own beside ``sub``.

    ``bend`` may change the claims of an id_token before it is signed, ``told`` those of the
    userinfo; ``forge`` makes the token instead, as somebody who has not the published key.
    """

    people: dict[str, Claims] = field(default_factory=dict)
    bend: Callable[[Claims], None] = lambda _: None
    told: Callable[[Claims], None] = lambda _: None
    forge: Callable[[Claims], str] | None = None
    sends_id_token: bool = True
    issuer_it_claims: str = ""
    endpoints: Claims = field(default_factory=dict)  # other ones than it has
    on_call: Callable[[str], None] = lambda _: None  # told the path of each request

    def __post_init__(self) -> None:
        self.port = free_port()
        self.key = new_key()
        self.tokens_given: list[str] = []
        self.faults: list[str] = []  # of clients
        self._codes: dict[str, Grant] = {}
        self._tokens: dict[str, str] = {}
        self._server: ThreadingHTTPServer | None = None

    @property
    def issuer(self) -> str:
        """What it calls itself."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """What a server needs to know of it."""
        return {
            "OIDC_ISSUER": self.issuer,
            "OIDC_CLIENT_ID": CLIENT_ID,
            "OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "OIDC_NAME": "Example Corp",
        }

    def start(self) -> Provider:
        """Listen from now on."""
        handler = type("Handler", (_Handler,), {"provider": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Refuse connections from now on. Stopping twice is harmless."""
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.server_close()

    def behave(self) -> None:
        """Be honest again."""
        self.bend = self.told = lambda _: None
        self.forge, self.sends_id_token, self.issuer_it_claims = None, True, ""
        self.endpoints, self.on_call = {}, lambda _: None

    # --- What it answers --------------------------------------------------------------------------
    def configuration(self) -> Claims:
        """Return what it says of itself."""
        return {
            "issuer": self.issuer_it_claims or self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
        } | self.endpoints

    def keys(self) -> Claims:
        """Return the keys that its tokens are signed with."""
        return {"keys": [self.key.as_dict(private=False)]}

    def send_back(self, query: str, name: str) -> str:
        """Return where a browser goes then; whom the provider does not know has cancelled."""
        asked = {key: values[0] for key, values in parse_qs(query).items()}
        self._check(asked, response_type="code", client_id=CLIENT_ID, code_challenge_method="S256")
        for needed in ("state", "nonce", "code_challenge", "redirect_uri"):
            if not asked.get(needed):
                self.faults.append(f"no {needed}")
        if "openid" not in asked.get("scope", "").split():
            self.faults.append("no openid in its scope")
        if name not in self.people:
            answer = {"error": "access_denied", "state": asked["state"]}
        else:
            code = secrets.token_urlsafe()
            self._codes[code] = Grant(name, asked)
            answer = {"code": code, "state": asked["state"]}
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def tokens(self, form: dict[str, str]) -> Claims | None:
        """Return the tokens for a code, which is good once; nothing for who may not have them."""
        grant = self._codes.pop(form.get("code", ""), None)
        if grant is None:
            return None
        before = len(self.faults)
        self._check(
            form,
            grant_type="authorization_code",
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            redirect_uri=grant.asked["redirect_uri"],
        )
        if _challenge(form.get("code_verifier", "")) != grant.asked["code_challenge"]:
            self.faults.append("another code_verifier")
        if len(self.faults) > before:
            return None
        access = secrets.token_urlsafe()
        self._tokens[access] = grant.name
        self.tokens_given += [access, id_token := self._id_token(grant)]
        sent = {"access_token": access, "token_type": "Bearer", "expires_in": 300}
        return sent | ({"id_token": id_token} if self.sends_id_token else {})

    def userinfo(self, authorization: str) -> Claims | None:
        """Return what is known of whoever a bearer is about."""
        name = self._tokens.get(authorization.removeprefix("Bearer "))
        if name is None:
            return None
        claims = {"sub": name} | self.people[name]
        self.told(claims)
        return claims

    def _id_token(self, grant: Grant) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": self.people[grant.name].get("sub", grant.name),
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": grant.asked["nonce"],
        }
        self.bend(claims)
        if self.forge:
            return self.forge(claims)
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, self.key)

    def _check(self, sent: dict[str, str], **expected: str) -> None:
        self.faults += [name for name, value in expected.items() if sent.get(name) != value]


def _challenge(verifier: str) -> str:
    return _base64(hashlib.sha256(verifier.encode()).digest())


class _Handler(BaseHTTPRequestHandler):
    provider: Provider

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.provider.on_call(parts.path)
        match parts.path:
            case "/.well-known/openid-configuration":
                self._send_json(self.provider.configuration())
            case "/keys":
                self._send_json(self.provider.keys())
            case "/authorize":
                self._send(200, _PAGE.format(query=html.escape(parts.query)), "text/html")
            case "/userinfo":
                self._send_json(self.provider.userinfo(self.headers.get("Authorization", "")))
            case _:
                self._send(404, "", "text/plain")

    def do_POST(self) -> None:
        self.provider.on_call(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        if self.path == "/token":
            self._send_json(self.provider.tokens(form))
            return
        self.send_response(303)
        self.send_header("Location", self.provider.send_back(form["query"], form.get("name", "")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, data: Claims | None) -> None:
        status = 400 if data is None else 200
        self._send(status, json.dumps(data or {"error": "invalid_grant"}), "application/json")

    def _send(self, status: int, text: str, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""
