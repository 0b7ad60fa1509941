"""No secret is seen where it does not belong, in a server's whole life at the log level DEBUG."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.authenticator import code_of, recovery_codes_in, secret_in, wrong_code
from tests.support.databases import Database, Databases
from tests.support.openid import CLIENT_SECRET, Provider
from tests.support.receiver import Receiver
from tests.support.rfb import key
from tests.support.secret_life import Caller, Onlooker, Secrets
from tests.support.server import LiveServer
from tests.support.stream_client import CLIENT_ID, StreamClient
from tests.support.vnc_server import FakeVnc
from tests.support.websockify import Websockify

# The story is long, and each command in it starts Django anew.
pytestmark = pytest.mark.timeout(600)

_RUN_ALL = """
import json, sys
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
facts = json.load(sys.stdin)
for name, password in facts["people"].items():
    all_rights = dict.fromkeys(["is_staff", "is_superuser"], name == "admin")
    User.objects.create_user(name, password=password, **all_rights)
for argv in facts["commands"]:
    try:
        call_command(*argv)
    except (CommandError, SystemExit) as end:
        print(repr(end))
    print("done:", argv[0])
"""

DESK = "/api/workspaces/desk"
TAB = {"client_id": CLIENT_ID}


@dataclass
class Life:
    """What is known afterwards."""

    secrets: Secrets = field(default_factory=Secrets)
    errors: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    pages: dict[str, str] = field(default_factory=dict)
    command_lines: set[str] = field(default_factory=set)
    printed: str = ""


class Story:
    """The life itself: a chapter a method. Each says what it is about, and notes the secrets."""

    def __init__(self, server: LiveServer, life: Life, directory: Path) -> None:
        self._server = server
        self._life = life
        self._secrets = life.secrets
        self._directory = directory
        self._opened = ExitStack()

    def close(self) -> None:
        """Close all connections."""
        self._opened.close()
        StreamClient.close_all()

    def caller(self, **headers: str) -> Caller:
        """Return somebody new."""
        caller = Caller(self._server.url, self._life.errors, **headers)
        self._opened.enter_context(caller.http)
        return caller

    def person(self, name: str) -> Caller:
        """Somebody who has signed in, once with a wrong password."""
        caller = self.caller()
        wrong = self._secrets.make(f"a wrong password of {name}")
        assert caller.sign_in(name, wrong).status_code == 200
        password = self._secrets.values[f"the password of {name}"]
        assert caller.sign_in(name, password).status_code == 302
        self._secrets.note(f"a session of {name}", caller.http.cookies["sessionid"])
        self._secrets.note(f"the CSRF token of {name}", caller.http.cookies["csrftoken"])
        return caller

    def file(self, name: str, text: str) -> Path:
        """Write a file, as those that hold secrets are given to commands."""
        file = self._directory / name.replace(" ", "-")
        file.write_text(f"{text}\n")
        return file

    def run(self, *argv: str | Path) -> None:
        """Run a command whose output is nobody's secret."""
        self._life.commands.append(self._server.manage_as_typed(*argv))

    def run_all(self, commands: list[list[str]], people: dict[str, str] | None = None) -> None:
        """Add people with their passwords, then run commands, all in one process: it is faster."""
        facts = json.dumps({"people": people or {}, "commands": commands})
        printed = self._server.manage_as_typed("shell", "-c", _RUN_ALL, text=facts)
        self._life.commands.append(printed)
        assert printed.count("done: ") == len(commands), printed

    def add_people_and_desktops(self, desk: FakeVnc, gate: Websockify) -> None:
        """As an administrator does; the VNC server takes no password, but is offered one."""
        names = ("operator", "manager", "admin")
        people = {name: self._secrets.make(f"the password of {name}") for name in names}
        vnc = str(self.file("vnc", self._secrets.make("the VNC password", 4)))
        self.run("add_workspace", "desk", "--upstream", desk.url, "--password-file", vnc)
        query = self.file("query", f"token={self._secrets.make('a token of websockify')}")
        headers = self.file("headers", f"X-Key: {self._secrets.make('a header for websockify')}")
        address = f"ws://127.0.0.1:{gate.port}/"
        secret = ["--query-file", str(query), "--headers-file", str(headers)]
        grants = [
            ["grant", slug, name, name]
            for slug in ("desk", "gate")
            for name in ("operator", "manager")
        ]
        add = ["add_workspace", "gate", "--upstream", address, "--password-file", vnc, *secret]
        roamer = ["add_workspace", "roamer", "--upstream", "tcp://127.0.0.1:1"]
        self.run_all([add, roamer, *grants], people)

    def watch_and_control(self, person: Caller) -> None:
        """Dial in both ways, twice, and with a forged token; type and paste."""
        taken = person.post(f"{DESK}/display/control/acquire", TAB).json()
        stream = self.dial("a token in the subprotocols", taken["session_url"]).in_control()
        copied = self._secrets.make("a copied text")
        stream.send(b"\x06\0\0\0" + len(copied).to_bytes(4, "big") + copied.encode())
        typed = key(True, 0x1234)
        self._secrets.note("a key, as websockets' log has it", typed.hex(" "))
        stream.send(typed)
        again = StreamClient(taken["session_url"])
        assert again.closed()[0] == 4401
        observed = person.post(f"{DESK}/display/session", TAB | {"client_id": "tab-2-in-query"})
        url = observed.json()["session_url"]
        self.dial("a token in the query", url, token_in_query=True).close()
        forged = self._secrets.make("a forged token", 40)
        for in_query in (True, False):
            address = f"{url.partition('#')[0]}#token={forged}"
            assert StreamClient(address, token_in_query=in_query).closed()[0] == 4401
        stream.close()
        person.post(f"{DESK}/display/control/release", TAB)

    def dial(self, name: str, session_url: str, token_in_query: bool = False) -> StreamClient:
        """Open a stream with a token that is noted."""
        self._secrets.note(name, session_url.partition("#token=")[2])
        return StreamClient(session_url, token_in_query=token_in_query).shake_hands()

    def fail_upstream(self, person: Caller, desk: FakeVnc, gate: Websockify) -> None:
        """Have the desktop refuse our password, talk nonsense, be away; websockify likewise."""
        session = "/api/workspaces/{}/display/session"
        stream = person.post(session.format("gate"), TAB).json()["session_url"]
        self.dial("a token for a gate", stream).close()
        gate.stop()
        for slug, behaviour in (("desk", "garbage"), ("gate", "well"), ("desk", "wrong_password")):
            desk.behaviour = behaviour  # type: ignore[assignment]  # one of them
            url = person.post(session.format(slug), TAB).json()["session_url"]
            self._secrets.note(f"a token for a failing {slug}", url.partition("#token=")[2])
            assert StreamClient(url).closed()[0] in {4502, 4511}
        desk.behaviour = "well"

    def use_tokens(self) -> None:
        """Make an API token, use it, spoil it, revoke it."""
        made = self._server.manage("add_token", "robot", "--scope", "manage", "--all-workspaces")
        text = self._secrets.note("an API token", made.split()[-1])
        robot = self.caller(Authorization=f"Bearer {text}")
        assert robot.http.get(DESK).status_code == 200
        bad = self._secrets.make("a bad API token", 20)
        stranger = self.caller(Authorization=f"Bearer dctl_{bad}")
        assert stranger.http.get(DESK).status_code == 401
        typed = self._secrets.make("a password with a mistake in its body")
        wrong = {"vnc_password": typed, "upstream_headers": typed, "upstream_url": "nowhere"}
        assert robot.call("PUT", DESK, json=wrong).status_code == 400
        assert robot.call("PATCH", DESK, json={"vnc_pasword": typed}).status_code == 400
        self.register()
        self.run("revoke_token", "robot")
        assert robot.http.get(DESK).status_code == 401

    def register(self) -> None:
        """Have a desktop report where it is, once with a token that is not its own."""
        made = self._server.manage("registration_token", "roamer").split()[0]
        token = self._secrets.note("a registration token", made)
        query = self._secrets.make("a query of a desktop")
        body = {"upstream_url": f"ws://127.0.0.1:1/?token={query}"}
        for text, status in ((token, 200), (self._secrets.make("a bad one", 20), 401)):
            desktop = self.caller(Authorization=f"Bearer {text}")
            answer = desktop.post("/api/workspaces/roamer/register", body)
            assert answer.status_code == status, answer.text

    def invite(self, manager: Caller) -> None:
        """Make a control link, open it, open it again."""
        body = {"name": "Gesine", "role": "operator", "ttl_seconds": 600}
        made = manager.post(f"{DESK}/links", body).json()
        ticket = self._secrets.note("a ticket", made["url"].partition("#ticket=")[2])
        guest = self.caller()
        opened = guest.post("/api/links/exchange", {"ticket": ticket, **TAB})
        assert opened.status_code == 200, opened.text
        [bearer] = [value for value in opened.json().values() if str(value).startswith("d")]
        self._secrets.note("the bearer of a link", bearer)
        assert guest.post("/api/links/exchange", {"ticket": ticket, **TAB}).status_code == 410
        visitor = self.caller(Authorization=f"Bearer {bearer}", **{"X-Client-Id": CLIENT_ID})
        assert visitor.http.get(f"{DESK}/display/control").status_code == 200
        thief = self.caller(Authorization=f"Bearer {bearer}", **{"X-Client-Id": "another-tab-9"})
        assert thief.http.get(f"{DESK}/display/control").status_code == 401

    def tell_others(self, receiver: Receiver, person: Caller) -> None:
        """Deliver webhooks, to a receiver that takes them and to one that does not."""
        made = self._server.manage("add_webhook", "platform", receiver.url)
        self._secrets.note("the secret of a webhook", made.split()[0])
        person.post(f"{DESK}/display/control/acquire", TAB)
        receiver.status = 500
        self.run("deliver_webhooks", "--once")
        receiver.status = 200
        person.post(f"{DESK}/display/control/release", TAB)
        self.run("deliver_webhooks", "--once")
        assert receiver.told

    def come_from_the_provider(self, provider: Provider) -> None:
        """Sign in there, once with a code that is none, once with one that is good."""
        self._secrets.note("the secret of the client", CLIENT_SECRET)
        provider.people["a-1"] = {"preferred_username": "anna"}
        anna = self.caller()
        for is_good in (False, True):
            there = anna.http.get("/accounts/oidc/").headers["Location"]
            back = provider.send_back(urlsplit(there).query, "a-1")
            code = parse_qs(urlsplit(back).query)["code"][0]
            self._secrets.note(f"a code of the provider, {is_good}", code)
            answer = anna.http.get(back if is_good else back.replace(code, "another"))
            assert answer.status_code == (302 if is_good else 400)
        for number, token in enumerate(provider.tokens_given):
            self._secrets.note(f"token {number} of the provider", token)
        self._secrets.note("a session from the provider", anna.http.cookies["sessionid"])

    def enrol(self, person: Caller) -> None:
        """Get a second factor, try a wrong code, and see it in the admin later."""
        page = "/accounts/second-factor/"
        secret = self._secrets.note("a TOTP secret", secret_in(person.http.get(page).text))
        person.call("POST", page, data={"code": wrong_code(secret)})
        shown = person.call("POST", page, data={"code": code_of(secret)}).text
        codes = recovery_codes_in(shown)
        assert len(codes) == 10
        for number, code in enumerate(codes):
            self._secrets.note(f"recovery code {number}", code)
        person.call("POST", page, data={"code": wrong_code(secret), "do": "renew"})
        renewed = person.call("POST", page, data={"code": codes[0], "do": "renew"}).text
        self._secrets.note("a new recovery code", recovery_codes_in(renewed)[0])

    def look_at_everything(self, admin: Caller) -> None:
        """As an administrator who is curious, in the browser and by commands."""
        self._life.pages = admin.pages_of_the_admin()
        self.run_all(
            [
                ["leases", "--all", "--json"],
                ["tokens", "--json"],
                ["events"],
                ["axes_list_attempts"],
                ["check_displays"],
                ["force_release", "--all", "--note", "the end"],
                ["check", "--deploy"],
            ]
        )

    def break_the_database(self, person: Caller, database: Database) -> None:
        """Let queries fail as if the code were wrong: 500, with a traceback in the log."""
        database.rows("ALTER TABLE django_session RENAME COLUMN session_data TO gone")
        for path in ("/", f"{DESK}/display", "/admin/"):
            assert person.http.get(path).status_code == 500
        database.rows("ALTER TABLE django_session RENAME COLUMN gone TO session_data")
        database.rows("ALTER TABLE controlplane_apitoken RENAME COLUMN digest TO gone")
        text = self._secrets.values["an API token"]
        assert self.caller(Authorization=f"Bearer {text}").http.get(DESK).status_code == 500
        database.rows("ALTER TABLE controlplane_apitoken RENAME COLUMN gone TO digest")


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Life:
    life, directory = Life(), tmp_path_factory.mktemp("secrets")
    database = databases.fresh("postgres")
    password = life.secrets.make("the database's password")
    provider = Provider().start()
    key = directory / "key"
    key.write_text(life.secrets.make("the secret key", 32))
    server = LiveServer(
        directory,
        database.url.replace("postgres@", f"postgres:{password}@"),
        DJANGO_SETTINGS_MODULE="tests.support.debug_settings",
        SECRET_KEY_FILE=key,
        SECRET_KEY_FALLBACKS=life.secrets.make("a former secret key", 32),
        REDIS_URL=f"redis://:{life.secrets.make('the password of Redis')}@127.0.0.1:1/0",
        WEBHOOK_ALLOW="127.0.0.0/8",
        SIGNIN_TOTP="optional",
        **provider.settings,
    )
    receiver, onlooker = Receiver().start(), Onlooker()
    with FakeVnc() as desk, onlooker.watching():
        gate = Websockify(directory, f"127.0.0.1:{desk.port}").wait()
        story = Story(server, life, directory)
        story.add_people_and_desktops(desk, gate)
        server.start_as_typed()
        try:
            operator, manager, admin = map(story.person, ("operator", "manager", "admin"))
            story.watch_and_control(operator)
            story.use_tokens()
            story.invite(manager)
            story.tell_others(receiver, operator)
            story.come_from_the_provider(provider)
            story.enrol(manager)
            story.fail_upstream(operator, desk, gate)
            story.look_at_everything(admin)
            story.break_the_database(operator, database)
            operator.call("POST", "/accounts/logout/")
        finally:
            story.close()
            server.stop()
            gate.stop()
            receiver.stop()
            provider.stop()
    life.printed, life.command_lines = server.log, onlooker.seen
    return life


def test_the_story_is_told_in_full(life: Life) -> None:
    """What is searched is what there is to find: without it, the tests below could not fail."""
    assert " DEBUG " in life.printed
    for said in ("Traceback", "websockify", "login failure", "desk", "Redis"):
        assert said in life.printed, said
    for code in ("400", "401", "410", "500"):
        assert any(code in each or "error" in each for each in life.errors), code
    assert len(life.pages) > 40
    assert any("manage.py serve" in line for line in life.command_lines)
    assert any("add_workspace" in line for line in life.command_lines)
    assert len(life.secrets.values) > 25


def test_nothing_that_the_server_prints_holds_a_secret(life: Life) -> None:
    assert life.secrets.found_in(life.printed) == []


def test_no_command_line_holds_a_secret(life: Life) -> None:
    assert life.secrets.found_in("\n".join(life.command_lines)) == []


def test_no_error_answer_holds_a_secret(life: Life) -> None:
    found = {each[:60]: life.secrets.found_in(each) for each in life.errors}
    assert {name: names for name, names in found.items() if names} == {}


def test_no_page_of_the_admin_holds_a_secret(life: Life) -> None:
    found = {path: life.secrets.found_in(page) for path, page in life.pages.items()}
    assert {path: names for path, names in found.items() if names} == {}


def test_no_command_prints_a_secret_that_it_was_not_asked_for(life: Life) -> None:
    assert life.secrets.found_in("\n".join(life.commands)) == []
