"""What a person at a browser waits for: our page beside noVNC's own on websockify.

Both show the same real desktop (x11vnc) in a real Chromium, with the same noVNC. The times are
taken in the page, by ``watch.js``; both pages run it.
"""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import BrowserContext, Page, sync_playwright

from bench import bars
from bench.bars import Measure, percentile
from bench.contenders import Desktopctl
from bench.rounds import Round
from tests.e2e.rig import CHROMIUM_OPTIONS
from tests.support.desktop import PASSWORD, LiveDesktop
from tests.support.processes import ROOT, program
from tests.support.tcp_proxy import TcpProxy
from tests.support.websockify import Websockify

NOVNC = ROOT / "node_modules/@novnc/novnc"
HERE = Path(__file__).parent
TERMINAL = (
    f"exec xterm -fn fixed -geometry 240x70+0+0 -e '{HERE / 'desktop.sh'}'"  # fills all of it
)
PATIENCE_MS = 20_000
KEY_RHYTHM = (
    0.15  # seconds over which keys are spread evenly: looks of x11vnc, frames of the browser
)
IDLE_RHYTHM = 0.2  # x11vnc without a viewer looks so often whether there is one
DROPS_A_PAGE = 5  # after ten dials without 10 s of a picture between them, a page stops trying


def browser(this: Round) -> None:
    """Open pages, press keys, cut links."""
    with ExitStack() as opened:
        stage = Stage(this, opened)
        for name in this.turn(bars.UVICORN, bars.STOCK):
            with closing(_VISITORS[name](stage)) as visitor:
                _time_visits(this, visitor)
                _time_keys(this, visitor)
        link = opened.enter_context(TcpProxy(stage.server.port))
        operator = opened.enter_context(closing(Operator(stage, link.port)))
        _time_drops(this, operator, link)


class Stage:
    """A desktop, websockify with noVNC's page, and Chromium, for one round."""

    def __init__(self, this: Round, opened: ExitStack) -> None:
        contender = this.standing[bars.UVICORN]
        assert isinstance(contender, Desktopctl)
        self.server = contender.server
        directory = this.site.new_directory()
        options = ("--geometry", "1280x800", "--command", TERMINAL)
        desktop = LiveDesktop(directory, "Bench", *options)
        opened.callback(desktop.stop)
        desktop.wait()
        upstream = f"127.0.0.1:{desktop.vnc_port}"
        self.websockify = Websockify(directory, upstream, "--web", _novnc(directory / "web"))
        opened.callback(self.websockify.stop)
        self.websockify.wait()
        self.slug = f"real-{this.number}"
        facts = (self.slug, f"tcp://{upstream}", PASSWORD)
        self.session_key = str(this.site.backstage.ask("add_desktop", facts))
        chromium = opened.enter_context(sync_playwright()).chromium
        self.chromium = opened.enter_context(
            closing(
                chromium.launch(
                    executable_path=program("chromium", "chromium"), args=CHROMIUM_OPTIONS
                )
            )
        )


def _novnc(directory: Path) -> Path:
    """Return a directory for websockify to serve: noVNC and its page, of the same age.

    For Chromium goes by the age: what has not changed for years it takes from its cache unasked.
    """
    directory.mkdir()
    for part in ("core", "vendor"):
        (directory / part).symlink_to(NOVNC / part)
    shutil.copyfile(HERE / "stock.html", directory / "vnc_lite.html")
    shutil.copystat(NOVNC / "core/rfb.js", directory / "vnc_lite.html")
    return directory


class Visitor(ABC):
    """Somebody who opens the page, with a browser that is kept, or a new one for a first visit."""

    name: str

    def __init__(self, stage: Stage, port: int) -> None:
        self._stage = stage
        self.origin = f"http://localhost:{port}"
        self._browser = self._new_browser()

    @property
    @abstractmethod
    def path(self) -> str:
        """The page's."""

    @abstractmethod
    def prepare(self, context: BrowserContext) -> None:
        """Let the page open without questions."""

    @abstractmethod
    def take_keyboard(self, page: Page) -> None:
        """Do what a person does before typing."""

    @abstractmethod
    def let_go(self, page: Page) -> None:
        """Leave the desktop to the next one."""

    def _new_browser(self) -> BrowserContext:
        # Larger than the desktop, so that neither page shrinks it.
        context = self._stage.chromium.new_context(viewport={"width": 1440, "height": 1000})
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(path=HERE / "watch.js")
        self.prepare(context)
        return context

    def first_visit(self) -> float:
        """Return the seconds to a picture, in a browser that has never seen the page."""
        with closing(self._new_browser()) as context:
            return self.open(context.new_page())

    def visit(self) -> float:
        """Return the seconds to a picture, in a new tab."""
        with self.tab() as page:
            return self.open(page)

    @contextmanager
    def tab(self) -> Iterator[Page]:
        """Yield a new tab of the browser that is kept."""
        with closing(self._browser.new_page()) as page:
            yield page

    def open(self, page: Page) -> float:
        """Return the seconds to a picture."""
        page.goto(f"{self.origin}{self.path}", wait_until="commit")
        return float(page.evaluate("watch.opened")) / 1e3

    def close(self) -> None:
        """Close the browser."""
        self._browser.close()


class Operator(Visitor):
    """Somebody with our page, logged in."""

    name = bars.UVICORN

    def __init__(self, stage: Stage, port: int = 0) -> None:
        super().__init__(stage, port or stage.server.port)

    @property
    def path(self) -> str:
        return f"/workspaces/{self._stage.slug}/"

    def prepare(self, context: BrowserContext) -> None:
        key = self._stage.session_key
        context.add_cookies([{"name": "sessionid", "value": key, "url": self.origin}])

    def take_keyboard(self, page: Page) -> None:
        page.get_by_role("button", name="Take control", exact=True).click()
        page.locator("#display[data-mode=control]").wait_for()

    def let_go(self, page: Page) -> None:
        page.get_by_role("button", name="Release control", exact=True).click()
        page.locator("#display[data-mode=observe]").wait_for()


class Stock(Visitor):
    """Somebody with noVNC's page."""

    name = bars.STOCK

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage, stage.websockify.port)

    @property
    def path(self) -> str:
        return f"/vnc_lite.html?{urlencode({'password': PASSWORD, 'scale': 'true'})}"

    def prepare(self, context: BrowserContext) -> None:
        """Nothing is asked."""

    def take_keyboard(self, page: Page) -> None:
        page.locator("#screen canvas").click()

    def let_go(self, page: Page) -> None:
        """It never was anybody's."""


_VISITORS = {bars.UVICORN: Operator, bars.STOCK: Stock}


def _time_visits(this: Round, visitor: Visitor) -> None:
    """First visits, then those that find in the browser's cache what may be kept there."""
    count = this.sizes.visits
    firsts = [visitor.first_visit() for _ in _spread(count, IDLE_RHYTHM)]
    visitor.visit()
    others = [visitor.visit() for _ in _spread(count, IDLE_RHYTHM)]
    _add(this, visitor, {bars.OPEN_FIRST: 0.5}, firsts)
    _add(this, visitor, {bars.OPEN: 0.5}, others)


def _time_keys(this: Round, visitor: Visitor) -> None:
    with visitor.tab() as page:
        visitor.open(page)
        visitor.take_keyboard(page)
        _press(page)
        times = [_press(page) for _ in _spread(this.sizes.keys, KEY_RHYTHM)]
        visitor.let_go(page)
    _add(this, visitor, {bars.KEY: 0.5, bars.KEY_P95: 0.95}, times)


def _spread(count: int, rhythm: float) -> Iterator[None]:
    """Yield so many times, with pauses that hit every moment of somebody else's rhythm alike.

    Otherwise it would decide, by when the one before has ended, who has to wait for it.
    """
    for number in range(count):
        time.sleep(rhythm * number / count)
        yield


def _press(page: Page) -> float:
    """Press a key; return the seconds until the picture shows it."""
    page.evaluate("watch.arm()")
    page.keyboard.press("a")
    return float(page.evaluate("watch.changed")) / 1e3


def _time_drops(this: Round, visitor: Operator, link: TcpProxy) -> None:
    """Cut the link of a page that is in control, again and again."""
    times: list[float] = []
    with visitor.tab() as page:
        visitor.open(page)
        visitor.take_keyboard(page)
        while len(times) < this.sizes.drops:
            times += [_drop(page, link) for _ in range(DROPS_A_PAGE)]
            visitor.open(page)
            page.locator("#display[data-mode=control]").wait_for()
    _add(this, visitor, {bars.BACK: 0.5, bars.BACK_P95: 0.95}, times)


def _drop(page: Page, link: TcpProxy) -> float:
    """Cut the link; return the seconds until the page is live again."""
    page.evaluate("watch.expectDrop()")
    began = time.time()
    link.cut()
    return float(page.evaluate("watch.returned")) / 1e3 - began


def _add(
    this: Round, visitor: Visitor, shares: dict[Measure, float], seconds: Sequence[float]
) -> None:
    for measure, share in shares.items():
        this.results.add(visitor.name, measure, percentile(seconds, share) * 1e3)
