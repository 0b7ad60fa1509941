"""How the picture is shown, saved and reported about."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.rig import Tab
from tests.support.timing import wait_until

DESKTOP = (800, 600)
TICKS = 2_500  # two of the page's clock, and more; ms


@pytest.fixture
def tab(start_server: StartServer, person: MakePerson) -> Tab:
    """A tab in a window that is smaller than the desktop."""
    somebody = person("operator", start_server(), permissions=["clipboard-read", "clipboard-write"])
    tab = somebody.open("desk-1")
    tab.page.set_viewport_size({"width": 600, "height": 500})
    return tab


def canvas(tab: Tab) -> Locator:
    return tab.page.locator("#screen canvas")


def size_on_screen(tab: Tab) -> tuple[float, float]:
    box = canvas(tab).bounding_box()
    assert box
    return box["width"], box["height"]


def place(tab: Tab) -> tuple[float, float]:
    """Where the upper left corner of the picture is."""
    box = canvas(tab).bounding_box()
    assert box
    return box["x"], box["y"]


def show_actual_size(tab: Tab) -> None:
    tab.button("View").click()
    tab.button("Actual size").click()
    wait_until(lambda: size_on_screen(tab) == DESKTOP, "the picture in its actual size")


def close_view(tab: Tab) -> None:
    tab.page.keyboard.press("Escape")
    expect(tab.page.get_by_role("complementary", name="View")).to_be_hidden()


def drag(tab: Tab, dx: int, dy: int) -> None:
    box = tab.page.locator("#screen").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    tab.page.mouse.move(x + dx, y + dy, steps=4)
    tab.page.mouse.up()


def test_it_is_fitted_or_shown_in_its_actual_size_and_that_is_remembered(tab: Tab) -> None:
    wait_until(lambda: size_on_screen(tab)[0] < DESKTOP[0], "a picture that fits")
    show_actual_size(tab)
    tab.page.reload()
    tab.until_live()
    wait_until(lambda: size_on_screen(tab) == DESKTOP, "its actual size, as before")
    tab.button("View").click()
    expect(tab.button("Actual size")).to_have_attribute("aria-pressed", "true")
    tab.button("Fit").click()
    wait_until(lambda: size_on_screen(tab)[0] < DESKTOP[0], "a picture that fits again")


def test_a_large_picture_is_dragged_and_scrolled_by_who_watches(tab: Tab) -> None:
    show_actual_size(tab)
    close_view(tab)
    x, y = place(tab)
    drag(tab, -60, -40)
    wait_until(lambda: place(tab) == (x - 60, y - 40), "the picture moved with the hand")
    tab.page.mouse.wheel(30, 20)
    wait_until(lambda: place(tab) == (x - 90, y - 60), "the picture was scrolled")


def test_in_control_a_drag_is_the_desktops_unless_it_is_to_move_the_picture(
    tab: Tab, tmp_path: Path
) -> None:
    show_actual_size(tab)
    close_view(tab)
    tab.take_control()
    before = place(tab)
    drag(tab, -60, -40)
    assert place(tab) == before

    tab.button("View").click()
    tab.button("Drag to scroll").click()
    close_view(tab)
    drag(tab, -60, -40)
    wait_until(lambda: place(tab) == (before[0] - 60, before[1] - 40), "the picture moved")
    tab.page.locator("#screen canvas").focus()
    tab.type(f"echo typed > {tmp_path}/typed\n")
    wait_until((tmp_path / "typed").exists, "what is typed goes to the desktop all the same")


def test_quality_and_compression_are_asked_of_the_desktop(tab: Tab) -> None:
    asked = sent_encodings(tab)
    tab.button("View").click()
    tab.page.get_by_label("Quality").fill("1")
    tab.page.get_by_label("Compression").fill("9")
    wait_until(lambda: {-32 + 1, -256 + 9} <= set(asked()[-1:][0]), "it asks for both")


def sent_encodings(tab: Tab) -> Callable[[], list[tuple[int, ...]]]:
    """Record the SetEncodings messages (RFC 6143, 7.5.2) that the page sends."""
    tab.page.evaluate("""() => {
      window.asked = [];
      const socket = window.sockets.at(-1);
      const send = socket.send.bind(socket);
      socket.send = (data) => {
        if (typeof data !== 'string') {
          const bytes = new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength);
          if (bytes[0] === 2) window.asked.push(Array.from(bytes));
        }
        send(data);
      };
    }""")

    def asked() -> list[tuple[int, ...]]:
        messages = [bytes(each) for each in tab.page.evaluate("window.asked")] or [bytes(4)]
        return [struct.unpack_from(f">{int.from_bytes(m[2:4])}i", m, 4) for m in messages]

    return asked


def test_a_screenshot_is_saved_as_a_file_of_the_desktops_size(tab: Tab) -> None:
    tab.button("View").click()
    with tab.page.expect_download() as download:
        tab.button("Save a screenshot").click()
    assert download.value.suggested_filename.startswith("Desk 1 20")
    png = Path(download.value.path()).read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack_from(">II", png, 16) == DESKTOP  # IHDR


def test_what_a_bug_report_needs_is_shown_and_copied(tab: Tab) -> None:
    tab.button("View").click()
    panel = tab.page.get_by_role("complementary", name="View")
    expect(panel).to_contain_text("Round trip: ")
    expect(panel).to_contain_text("Desktop: 800 × 600")
    tab.button("Copy for a bug report").click()
    expect(panel).to_contain_text("Copied.")
    copied = tab.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("Desk 1: live, observe\n")
    for words in ("Received: ", "Stream ", "Epoch 0", "Dials in a row: ", "Mozilla/"):
        assert words in copied
    assert "token" not in copied

    # Where copying is not allowed, one selects the lines, which stand still meanwhile.
    report = panel.locator("#report")
    report.evaluate("it => getSelection().selectAllChildren(it)")
    chosen = report.text_content()
    tab.page.wait_for_timeout(TICKS)
    assert report.evaluate("it => [it.textContent, getSelection().toString()]") == [chosen, chosen]
    report.evaluate("() => getSelection().removeAllRanges()")
    expect(report).not_to_have_text(str(chosen))


def test_a_tool_whose_script_does_not_come_says_so_and_is_asked_for_again(
    start_server: StartServer, person: MakePerson
) -> None:
    somebody = person("operator", start_server())
    tab = somebody.open("desk-1")
    tab.page.route("**/tools.*.js", lambda route: route.abort())
    tab.button("View").click()
    expect(tab.status).to_have_text("Could not show size and quality: the server did not answer.")
    tab.page.unroute("**/tools.*.js")
    tab.button("View").click()
    expect(tab.page.get_by_role("complementary", name="View")).to_be_visible()
    assert [each for each in somebody.complaints if "ERR_FAILED" not in each] == []
    somebody.complaints.clear()
