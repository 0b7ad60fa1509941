"""What can be found by a machine: axe-core finds nothing serious on any page, in any dress.

The picture itself cannot be read aloud; docs/page.md says so.
"""

from __future__ import annotations

from contextlib import closing

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.rig import LinkMaker, Robot, Tab
from tests.support.processes import ROOT
from tests.support.server import LiveServer

AXE = ROOT / "node_modules/axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
DRESSES = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": {"width": 400, "height": 800}},
}


@pytest.fixture(params=DRESSES)
def dress(request: pytest.FixtureRequest) -> dict[str, object]:
    """How a browser is set."""
    return DRESSES[request.param]


@pytest.fixture
def server(start_server: StartServer) -> LiveServer:
    return start_server()


def problems(page: Page) -> list[str]:
    """What axe-core finds: the rule, and the elements that break it."""
    page.evaluate(AXE.read_text())
    found = page.evaluate(
        "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", RULES
    )
    assert found["testEngine"]["name"] == "axe-core"
    return [
        f"{each['id']} ({each['impact']}): {[node['html'][:120] for node in each['nodes']]}"
        for each in found["violations"]
    ]


def test_a_page_with_a_mistake_is_found_out(server: LiveServer, person: MakePerson) -> None:
    page = person("operator", server).log_in()
    page.evaluate("document.querySelector('#q').labels[0].remove()")
    page.evaluate("document.querySelector('#q').placeholder = ''")
    assert [each.split()[0] for each in problems(page)] == ["label"]


def test_signing_in_and_the_list(
    server: LiveServer, person: MakePerson, dress: dict[str, object]
) -> None:
    somebody = person("operator", server, **dress)
    page = somebody.context.new_page()
    page.goto("/accounts/login/")
    assert problems(page) == []
    page = somebody.log_in()
    assert problems(page) == []
    page.goto("/?q=nothing-of-that-name")
    assert problems(page) == []


def test_watching_and_each_panel(
    server: LiveServer, person: MakePerson, dress: dict[str, object]
) -> None:
    tab = person("operator", server, **dress).open("desk-1")
    assert problems(tab.page) == []
    for name in ("Clipboard", "View"):
        tab.button(name).click()
        expect(tab.page.get_by_role("complementary", name=name)).to_be_visible()
        assert problems(tab.page) == []


def test_in_control_with_all_keys_and_somebody_who_asks(
    server: LiveServer, person: MakePerson, dress: dict[str, object]
) -> None:
    holder = person("operator", server, **dress).open("desk-1").take_control()
    holder.button("More keys").click()
    asker = person("admin", server, **dress).open("desk-1")
    for name in ("End control…", "Ask for control"):
        asker.button(name).click()
        expect(asker.page.get_by_role("dialog")).to_be_visible()
        assert problems(asker.page) == []
        if name == "End control…":
            asker.page.keyboard.press("Escape")
    asker.page.get_by_role("button", name="Ask", exact=True).click()
    expect(holder.page.get_by_role("region", name="Needs an answer")).to_be_visible()
    assert problems(holder.page) == []


def test_handing_back_to_an_agent_that_waits(
    server: LiveServer, person: MakePerson, dress: dict[str, object]
) -> None:
    with closing(Robot(server)) as robot:
        robot.acquire()
        robot.call("request-human", reason="captcha")
        tab = person("operator", server, **dress).open("desk-1")
        expect(tab.status).to_contain_text("robot asks for you: “captcha”.")
        assert problems(tab.page) == []
        tab.take_control()
        assert problems(tab.page) == []
        tab.button("Hand back to robot").click()
        expect(tab.page.get_by_role("dialog")).to_be_visible()
        assert problems(tab.page) == []


def test_a_desktop_that_is_not_there(
    server: LiveServer, person: MakePerson, dress: dict[str, object]
) -> None:
    server.manage("add_workspace", "nowhere", "--upstream", "tcp://127.0.0.1:9")
    tab = Tab(person("admin", server, **dress).log_in())
    tab.page.goto("/workspaces/nowhere/")
    expect(tab.status).to_contain_text("The desktop cannot be reached")
    assert problems(tab.page) == []


def test_the_page_of_a_control_link(
    server: LiveServer, person: MakePerson, dress: dict[str, object]
) -> None:
    url = LinkMaker(server).make()["url"]
    tab = Tab(person("guest", server, **dress).context.new_page())
    tab.page.goto(url)
    tab.until_live()
    assert problems(tab.page) == []
    tab.page.reload()
    expect(tab.status).to_contain_text("Ask for a new one.")
    assert problems(tab.page) == []


def test_every_control_is_reached_by_tab_and_shows_where_the_focus_is(
    server: LiveServer, person: MakePerson
) -> None:
    tab = person("operator", server).open("desk-1")
    names = tab.page.eval_on_selector_all(
        "a[href], button, input",
        "all => all.filter(e => e.checkVisibility() && !e.disabled).length",
    )
    tab.page.locator("body").focus()
    seen: set[str] = set()
    for _ in range(names):
        tab.page.keyboard.press("Tab")
        name, outline = tab.page.evaluate(
            "(e => [e.outerHTML, getComputedStyle(e).outlineStyle])(document.activeElement)"
        )
        assert outline != "none", name
        seen.add(name)
    assert len(seen) == names
