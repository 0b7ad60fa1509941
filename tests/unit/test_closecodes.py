"""One table of close codes in three places: the enum, the script, the document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controlplane import exceptions
from controlplane.closecodes import _CODE_OF_ERROR, Action, CloseCode, code_of
from controlplane.exceptions import (
    ControlPlaneError,
    CredentialsRefused,
    DisplayMissing,
    Forbidden,
    ProtocolError,
    StreamForbidden,
    StreamRefused,
    TokenRefused,
    TooManyStreams,
    TooSlow,
    UpstreamError,
    UpstreamTimeout,
)

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = (ROOT / "static/controlplane/closecodes.js").read_text()
DOCUMENT = (ROOT / "docs/close-codes.md").read_text()

CONTRACT = {
    1000: Action.STOP,
    4400: Action.STOP,
    4401: Action.RETRY,
    4403: Action.STOP,
    4404: Action.STOP,
    4410: Action.STOP,
    4411: Action.WAIT,
    4413: Action.RETRY,
    4429: Action.RETRY_LATER,
    4502: Action.RETRY,
    4503: Action.RETRY_AT_ONCE,
    4504: Action.RETRY,
    4511: Action.STOP,
}


def test_the_codes_and_what_a_page_does_are_those_of_the_contract() -> None:
    assert {int(code): code.action for code in CloseCode} == CONTRACT


def test_each_code_may_be_sent_by_every_server_and_fits_into_a_close_frame() -> None:
    for code in CloseCode:
        assert code == 1000 or 3000 <= code <= 4999
        assert 0 < len(code.meaning.encode()) <= 123


def test_a_code_is_a_number_with_a_name() -> None:
    assert (CloseCode(4410), int(CloseCode.SUPERSEDED)) == (CloseCode.SUPERSEDED, 4410)
    assert f"{CloseCode.SUPERSEDED:d}" == "4410"


def test_the_script_has_the_same_table() -> None:
    table = SCRIPT.partition("CLOSE_CODES = Object.freeze({")[2].partition("}")[0]
    rows = re.findall(r'^\s*(\d+): "(\w+)",$', table, re.MULTILINE)
    assert {int(code): action for code, action in rows} == {
        int(code): str(code.action) for code in CloseCode
    }
    assert len(rows) == len(CloseCode)


def test_the_script_knows_the_same_actions() -> None:
    (union,) = re.findall(r"@typedef \{(.*)\} Action", SCRIPT)
    assert set(re.findall(r'"(\w+)"', union)) == {str(action) for action in Action}


def test_the_document_has_the_same_table() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| (\w+) \| [^|]+ \|$", DOCUMENT, re.MULTILINE)
    assert rows == [(str(int(code)), code.meaning, str(code.action)) for code in CloseCode]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProtocolError("x"), CloseCode.PROTOCOL),
        (TooSlow("x"), CloseCode.TOO_SLOW),
        (TokenRefused("x"), CloseCode.TOKEN),
        (StreamForbidden("x"), CloseCode.FORBIDDEN),
        (DisplayMissing("x"), CloseCode.MISSING),
        (TooManyStreams("x"), CloseCode.TOO_MANY),
        (UpstreamError("connect", "x"), CloseCode.UPSTREAM),
        (UpstreamTimeout("connect", "x"), CloseCode.UPSTREAM_TIMEOUT),
        (CredentialsRefused("authentication", "x"), CloseCode.CREDENTIALS),
    ],
)
def test_each_error_of_a_stream_has_its_code(error: ControlPlaneError, code: CloseCode) -> None:
    assert code_of(error) is code


def test_every_kind_of_refused_stream_has_a_code_of_its_own() -> None:
    listed = {kind for kind, _ in _CODE_OF_ERROR}
    assert set(StreamRefused.__subclasses__()) <= listed
    assert {UpstreamError, *UpstreamError.__subclasses__()} <= listed


def test_no_error_hides_behind_its_parent_in_the_table() -> None:
    kinds = [kind for kind, _ in _CODE_OF_ERROR]
    for position, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:position])


def test_an_error_that_is_not_a_streams_is_raised_again() -> None:
    with pytest.raises(Forbidden):
        code_of(Forbidden("forbidden", "x"))


def test_the_tree_at_the_top_of_the_errors_names_them_all() -> None:
    documented = set(re.findall(r"[├└]── (\w+)", exceptions.__doc__ or ""))

    def below(kind: type) -> set[str]:
        found = {
            child.__name__ for child in kind.__subclasses__() if child.__module__ == kind.__module__
        }
        return found.union(*(below(child) for child in kind.__subclasses__()))

    assert documented == below(ControlPlaneError)
