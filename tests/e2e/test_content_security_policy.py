"""Every page works under its Content-Security-Policy: the browser has nothing to complain about."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.e2e.conftest import MakePerson, StartServer

PAGES = {
    "the list": "/",
    "a display": "/workspaces/desk-1/",
    "a page that is not there": "/nothing",
    "the admin": "/admin/",
    "a list of the admin": "/admin/controlplane/controlevent/",
    "a filtered list of the admin": "/admin/controlplane/displaycontrollease/",
    "a form with dates": "/admin/controlplane/apitoken/add/",
    "a form with rows to be added": "/admin/controlplane/workspace/add/",
    "a form with lists to choose from": "/admin/auth/user/1/change/",
    "a page of the admin of our own": "/admin/controlplane/workspace/import/",
    "the admin's password form": "/admin/password_change/",
    "the API's docs": "/api/docs",
}

# Counted by the page itself: what a policy forbids is told to it, whatever the console shows.
COUNT_VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sourceFile}`);
});
"""


def refused_by(page: Page) -> list[str]:
    """What the policy has kept the page from."""
    return list(page.evaluate("window.violations"))


def test_every_page_opens_without_a_complaint(
    person: MakePerson, start_server: StartServer
) -> None:
    admin = person("admin", start_server())
    admin.context.add_init_script(COUNT_VIOLATIONS)
    page = admin.log_in()
    refused = {}
    for name, path in PAGES.items():
        page.goto(path, wait_until="networkidle" if name == "the API's docs" else "load")
        refused[name] = refused_by(page)
    assert refused == {name: [] for name in PAGES}
    [not_found] = admin.complaints  # the browser's own word for a page that is not there
    assert "404 (Not Found)" in not_found
    admin.complaints.clear()


def test_a_script_that_somebody_has_smuggled_into_a_page_does_not_run(
    person: MakePerson, start_server: StartServer
) -> None:
    operator = person("operator", start_server())
    operator.context.add_init_script(COUNT_VIOLATIONS)
    page = operator.log_in()
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.isSmuggled = true";
          document.body.append(script);
        }"""
    )
    assert page.evaluate("window.isSmuggled") is None
    [refused] = refused_by(page)
    assert refused.startswith("script-src-elem: inline")
    [complaint] = operator.complaints
    assert "Content Security Policy" in complaint
    operator.complaints.clear()
