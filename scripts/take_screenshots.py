"""Takes the pictures in docs/images from a running demo (``make run``): ``make screenshots``.

Those in docs/images/states need no demo: tests/e2e/picture_states.py.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
KEEP_SOCKETS = """
window.sockets = [];
window.WebSocket = new Proxy(window.WebSocket, {
  construct(target, args) {
    window.sockets.push(new target(...args));
    return window.sockets.at(-1);
  },
});
"""
PHONE: ViewportSize = {"width": 400, "height": 800}
SCREEN: ViewportSize = {"width": 1180, "height": 800}


def main() -> None:
    """Take one picture of each state that README and docs show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://localhost:8000")
    url = parser.parse_args().url
    if not is_answered(url):
        sys.exit(
            f"Nothing answers at {url}: start “make run” in another terminal, or name its PORT=."
        )
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        for scheme in ("light", "dark"):
            tour(browser, url, scheme)
            tour_of_two(browser, url, scheme)
        browser.close()


def is_answered(url: str) -> bool:
    """Return whether a server is there."""
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:  # noqa: S310  (our own)
            return bool(answer.status == 200)
    except OSError:
        return False


def tour(browser: Browser, url: str, scheme: str) -> None:
    """Log in, look around, take control, type, lose the link, go to the phone's width."""
    suffix = suffix_of(scheme)
    page = new_page(browser, url, scheme)
    save(page, f"login{suffix}")
    log_in(page, "operator")
    save(page, f"list{suffix}")
    open_desk(page)
    save(page, f"watching{suffix}")
    take_control(page)
    page.keyboard.type("echo “taken over in one click”\n", delay=5)
    page.wait_for_timeout(500)  # the desktop draws it
    save(page, f"control{suffix}")
    page.set_viewport_size(PHONE)
    save(page, f"phone{suffix}")
    page.set_viewport_size(SCREEN)
    page.route("**/display/control/acquire", lambda route: route.abort())
    page.evaluate("window.sockets.at(-1).close()")
    page.locator("#display[data-state=reconnecting]").wait_for()
    save(page, f"reconnecting{suffix}")
    page.unroute("**/display/control/acquire")
    page.locator("#display[data-state=live]").wait_for()
    page.get_by_role("button", name="Release control").click()
    page.locator("#display[data-mode=observe]").wait_for()
    page.context.close()


def tour_of_two(browser: Browser, url: str, scheme: str) -> None:
    """One asks the other for control and gets it; then it is closed to both, and opened again."""
    suffix = suffix_of(scheme)
    holder, asker = (new_page(browser, url, scheme) for _ in range(2))
    for page, name in ((holder, "operator"), (asker, "admin")):
        log_in(page, name)
        open_desk(page)
    take_control(holder)
    asker.get_by_role("button", name="Ask for control").click()
    dialog = asker.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("may I? It takes two minutes")
    dialog.get_by_role("button", name="Ask").click()
    holder.get_by_role("button", name="Hand over").wait_for()
    save(holder, f"asked{suffix}")
    holder.set_viewport_size(PHONE)
    save(holder, f"asked-phone{suffix}")
    asker.get_by_role("button", name="Withdraw").wait_for()
    save(asker, f"asking{suffix}")
    # A request that is not granted may be followed by the next one only after a while.
    holder.get_by_role("button", name="Hand over").click()
    asker.locator("#display[data-mode=control]").wait_for()
    asker.get_by_role("button", name="Release control").click()
    take_control(holder)
    asker.get_by_role("button", name="End control…").click()
    dialog.get_by_role("textbox").fill("repairs until noon")
    dialog.get_by_role("checkbox").check()
    dialog.get_by_role("button", name="End control").click()
    asker.get_by_role("button", name="Open to control again").wait_for()
    save(asker, f"closed{suffix}")
    asker.get_by_role("button", name="Open to control again").click()
    asker.get_by_role("button", name="Open to control again").wait_for(state="hidden")
    for page in (holder, asker):
        page.context.close()


def suffix_of(scheme: str) -> str:
    """Return what is added to a picture's name."""
    return "" if scheme == "light" else "-dark"


def new_page(browser: Browser, url: str, scheme: str) -> Page:
    """Open the login page in a browser of its own."""
    context = browser.new_context(
        base_url=url,
        viewport=SCREEN,
        color_scheme=scheme,  # type: ignore[arg-type]  # one of the two literals of main()
    )
    context.add_init_script(KEEP_SOCKETS)
    page = context.new_page()
    page.goto("/accounts/login/")
    return page


def log_in(page: Page, name: str) -> None:
    """Sign in as one of the demo's people."""
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(f"{name}-demo")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Desk 1").first.wait_for()


def open_desk(page: Page) -> None:
    """Open the first desktop and wait for its picture."""
    page.goto("/workspaces/desk-1/")
    page.locator("#display[data-state=live]").wait_for()


def take_control(page: Page) -> None:
    """Press the button and wait until the desktop is ours."""
    page.get_by_role("button", name="Take control").click()
    page.locator("#display[data-mode=control]").wait_for()


def save(page: Page, name: str) -> None:
    """Write a picture, once the page has settled."""
    page.wait_for_timeout(400)  # transitions
    page.screenshot(path=IMAGES / f"{name}.png")
    print(IMAGES.name, name)


if __name__ == "__main__":
    main()
