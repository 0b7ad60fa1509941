"""A second factor in the browser: enrolling, signing in with a code, beside a page as well."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.rig import Person
from tests.e2e.test_accessibility import problems
from tests.e2e.test_content_security_policy import COUNT_VIOLATIONS, refused_by
from tests.e2e.test_reconnecting import forgive_broken_links
from tests.e2e.test_signing_in_again import let_login_expire, until_signed_out, window_of_sign_in
from tests.support.authenticator import code_of


def give_password(page: Page) -> None:
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill("operator-pass")
    page.get_by_role("button", name="Sign in").click()


def give_code(page: Page, code: str, button: str) -> None:
    page.get_by_label("Code").fill(code)
    page.get_by_role("button", name=button).click()


def enrol(page: Page) -> list[str]:
    """Scan, type, keep; return the recovery codes."""
    picture = page.get_by_role("img", name="The secret below")
    assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
    secret = page.locator("code.secret").inner_text().replace(" ", "")
    give_code(page, code_of(secret, time.time()), "Set up")
    expect(page.get_by_role("heading", name="Keep these recovery codes")).to_be_visible()
    return page.locator(".codes code").all_inner_texts()


def assert_shuts_nobody_out(page: Page) -> None:
    assert problems(page) == []
    assert refused_by(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_enrolling_while_signing_in_and_coming_again_with_a_code(
    start_server: StartServer, person: MakePerson, scheme: str
) -> None:
    server = start_server(SIGNIN_TOTP="required")
    phone = {"width": 400, "height": 800}
    someone: Person = person("operator", server, viewport=phone, color_scheme=scheme)
    someone.context.add_init_script(COUNT_VIOLATIONS)
    page = someone.context.new_page()
    page.goto("/accounts/login/?next=/")
    give_password(page)
    assert_shuts_nobody_out(page)
    codes = enrol(page)
    assert len(codes) == 10
    assert_shuts_nobody_out(page)
    page.get_by_role("link", name="I have kept them").click()
    page.get_by_role("link", name="Second factor").click()
    assert_shuts_nobody_out(page)
    page.get_by_role("link", name="Back to the desktops").click()

    page.get_by_role("button", name="Sign out").click()
    give_password(page)
    assert_shuts_nobody_out(page)
    give_code(page, "1", "Go on")
    expect(page.get_by_role("alert")).to_contain_text("This code is wrong")
    assert_shuts_nobody_out(page)
    give_code(page, codes[0], "Go on")
    expect(page.get_by_role("heading", name="Desktops")).to_be_visible()


def test_who_is_signed_out_comes_back_with_a_code_and_the_page_goes_on(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server(SIGNIN_TOTP="optional")
    someone = person("operator", server)
    page = someone.log_in()
    page.get_by_role("link", name="Second factor").click()
    codes = enrol(page)
    page.close()
    tab = someone.open("desk-1")
    let_login_expire(someone, server)
    until_signed_out(tab)

    window = window_of_sign_in(tab)
    give_password(window)
    with window.expect_event("close"):
        give_code(window, codes[0], "Go on")
    tab.until_live()
    assert tab.page.evaluate("window.isSamePage"), "it was not loaded again"
    forgive_broken_links(someone)
