"""Signing in with an OpenID provider, which is another site, in a browser that means its policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.rig import Tab
from tests.e2e.test_accessibility import problems
from tests.e2e.test_content_security_policy import COUNT_VIOLATIONS, refused_by
from tests.e2e.test_reconnecting import forgive_broken_links
from tests.e2e.test_signing_in_again import let_login_expire, until_signed_out, window_of_sign_in
from tests.support.openid import Provider
from tests.support.server import LiveServer

_GRANT = """
from django.contrib.auth.models import Group
from django.core.management import call_command
Group.objects.create(name="operators")
call_command("grant", "desk-1", "operator", group="operators")
"""


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider().start()
    provider.people["a-1"] = {"preferred_username": "anna", "groups": ["operators"]}
    yield provider
    provider.stop()
    assert provider.faults == []


@pytest.fixture
def server(start_server: StartServer, provider: Provider) -> LiveServer:
    server = start_server(**provider.settings, OIDC_GROUPS_CLAIM="groups")
    server.manage("shell", "-c", _GRANT)
    return server


def sign_in_at_the_provider(page: Page, name: str) -> None:
    page.get_by_role("link", name="Sign in with Example Corp").click()
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Let me in").click()


def test_the_way_leads_over_the_provider_to_the_desk(
    server: LiveServer, provider: Provider, person: MakePerson
) -> None:
    anna = person("anna", server, elsewhere=(provider.issuer,))
    anna.context.add_init_script(COUNT_VIOLATIONS)
    page = anna.context.new_page()
    page.goto("/workspaces/desk-1/")
    sign_in_at_the_provider(page, "a-1")
    page.wait_for_url(f"{anna.base}/workspaces/desk-1/")
    assert refused_by(page) == []
    Tab(page).until_live().take_control()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_with_the_way_there_shuts_nobody_out_on_a_phone_either(
    server: LiveServer, person: MakePerson, scheme: str, tmp_path: Path
) -> None:
    viewport = {"width": 400, "height": 800}
    page = person("anna", server, viewport=viewport, color_scheme=scheme).context.new_page()
    page.goto("/accounts/login/?next=/")
    assert problems(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_who_cancels_there_reads_so_here(
    server: LiveServer, provider: Provider, person: MakePerson
) -> None:
    anna = person("anna", server, elsewhere=(provider.issuer,))
    page = anna.context.new_page()
    page.goto("/accounts/login/")
    sign_in_at_the_provider(page, "nobody")
    expect(page.get_by_role("heading", name="You are not signed in")).to_be_visible()
    assert problems(page) == []
    page.get_by_role("link", name="Back to signing in").click()
    expect(page.get_by_role("link", name="Sign in with Example Corp")).to_be_visible()
    [refused] = anna.complaints  # the browser's own word for the status of that page
    assert "403 (Forbidden)" in refused
    anna.complaints.clear()


def test_who_is_signed_out_comes_back_over_the_provider_and_the_page_goes_on(
    server: LiveServer, provider: Provider, person: MakePerson
) -> None:
    anna = person("anna", server, elsewhere=(provider.issuer,))
    page = anna.context.new_page()
    page.goto("/workspaces/desk-1/")
    sign_in_at_the_provider(page, "a-1")
    tab = Tab(page).until_live()
    let_login_expire(anna, server)
    until_signed_out(tab)

    sign_in_at_the_provider(window_of_sign_in(tab), "a-1")
    tab.until_live()
    expect(tab.status).to_have_text("You are watching. Nobody has control.")
    assert tab.page.evaluate("window.isSamePage"), "it was not loaded again"
    forgive_broken_links(anna)
