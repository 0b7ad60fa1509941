"""Control ends by a limit, by closing, by force; and no page takes it back by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Request, expect

from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.rig import Tab, file_appears
from tests.e2e.test_handing_over import bar_of
from tests.e2e.test_reconnecting import forgive_broken_links
from tests.support.desktop import LiveDesktop
from tests.support.server import LiveServer
from tests.support.tcp_proxy import TcpProxy
from tests.support.timing import limit, wait_until

NOTHING = {"keys": [], "buttons": []}
RENEW_SECONDS = 0.5
# Thirty of these seconds are the warning; who sets the limit in the admin sets at least a minute.
LIMIT = "from controlplane.models import Workspace; Workspace.objects.update({column}=33)"


def end_control(tab: Tab, note: str, *, close: bool = False) -> None:
    tab.button("End control…").click()
    dialog = tab.page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill(note)
    if close:
        dialog.get_by_role("checkbox", name="and let nobody take control").check()
    dialog.get_by_role("button", name="End control").click()


def drag_with_shift(tab: Tab, desktop: LiveDesktop) -> None:
    box = tab.page.locator("#screen canvas").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.page.mouse.move(x, y)
    tab.page.keyboard.down("Shift")
    tab.page.mouse.down()
    tab.page.mouse.move(x + 40, y + 20, steps=5)
    wait_until(
        lambda: desktop.held() == {"keys": ["Shift_L"], "buttons": [1]}, "Shift and button are down"
    )


def test_idle_control_is_warned_and_kept_by_the_button(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server()
    server.manage("shell", "-c", LIMIT.format(column="idle_seconds"))
    tab = person("operator", server).open("desk-1").take_control()
    expect(bar_of(tab)).to_contain_text("for lack of input.")
    expect(bar_of(tab)).to_contain_text("Control ends in")
    expect(tab.status).to_have_text("You have control.")
    first_end = tab.control["ends"]["at"]
    tab.button("Keep control").click()
    expect(bar_of(tab)).to_be_hidden()
    expect(tab.page.locator("#screen canvas")).to_be_focused()
    assert tab.control["ends"]["at"] > first_end
    assert tab.epoch == 1


def test_a_key_is_as_good_as_the_button_against_idleness(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server()
    server.manage("shell", "-c", LIMIT.format(column="idle_seconds"))
    tab = person("operator", server).open("desk-1").take_control()
    expect(bar_of(tab)).to_be_visible()
    tab.page.keyboard.press("Shift")
    expect(bar_of(tab)).to_be_hidden()


def test_control_that_nobody_keeps_ends_with_the_reason(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server()
    server.manage("shell", "-c", LIMIT.format(column="max_hold_seconds"))
    tab = person("operator", server).open("desk-1").take_control()
    expect(bar_of(tab)).to_contain_text("because it has lasted as long as this desktop allows.")
    sooner = LIMIT.format(column="max_hold_seconds").replace("33", "1")
    server.manage("shell", "-c", sooner)
    expect(tab.status).to_have_text(
        "Your control had lasted as long as allowed. You are watching.", timeout=limit(1) * 1000
    )
    expect(bar_of(tab)).to_be_hidden()


def test_a_closed_desktop_is_nobodys_until_it_is_opened_again(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server()
    holder = person("operator", server).open("desk-1").take_control()
    observer = person("observer", server).open("desk-1")
    admin = person("admin", server).open("desk-1")
    end_control(admin, "repairs", close=True)
    closed = "admin has closed this desktop to control: “repairs”. You are watching."
    expect(holder.status).to_have_text("admin ended your control: “repairs”. You are watching.")
    holder.button("Dismiss").click()
    for tab in (holder, observer, admin):
        expect(tab.status).to_have_text(closed)
    take: Locator = holder.button("Take control")
    expect(take).to_be_disabled()
    expect(take).to_have_accessible_description(closed.removesuffix(" You are watching."))
    expect(holder.button("Open to control again")).to_be_hidden()

    admin.button("Open to control again").click()
    expect(observer.status).to_have_text("You are watching. Nobody has control.")
    holder.take_control()


def test_a_note_of_spaces_ends_nothing_nor_does_one_for_a_control_that_is_over(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server()
    holder = person("operator", server).open("desk-1").take_control()
    admin = person("admin", server).open("desk-1")
    end_control(admin, "  ")
    dialog = admin.page.get_by_role("dialog", name="End operator’s control?")
    expect(dialog).to_be_visible()
    holder.button("Release control").click()
    expect(admin.status).to_have_text("You are watching. Nobody has control.")
    holder.take_control()
    expect(admin.status).to_have_text("You are watching. operator has control.")
    dialog.get_by_role("textbox").fill("maintenance")
    with admin.page.expect_response("**/control/release"):
        dialog.get_by_role("button", name="End control").click()
    expect(dialog).to_be_hidden()
    assert (holder.control["controller"], holder.epoch) == ("user", 2)


def test_what_the_page_says_is_never_cut_off_beside_its_buttons(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server()
    holder = person("operator", server).open("desk-1").take_control()
    admin = person("admin", server).open("desk-1")

    def assert_whole(*tabs: Tab) -> None:
        for width in (720, 800, 900, 1024, 1100, 1152, 1160, 1280):
            for tab in tabs:
                tab.page.set_viewport_size({"width": width, "height": 720})
                assert tab.is_status_whole, f"“{tab.status.text_content()}”, {width} px"

    assert_whole(holder, admin)
    end_control(admin, "maintenance until noon")
    expect(holder.status).to_have_text(
        "admin ended your control: “maintenance until noon”. You are watching."
    )
    assert_whole(holder, admin)


def test_who_is_forced_out_in_mid_drag_lets_go_learns_why_and_never_comes_back_by_itself(
    start_server: StartServer,
    behind_proxy: Callable[[LiveServer], TcpProxy],
    person: MakePerson,
    desktop: LiveDesktop,
    tmp_path: Path,
) -> None:
    server = start_server(DISPLAY_RENEW_SECONDS=RENEW_SECONDS)
    proxy = behind_proxy(server)
    someone = person("operator", server, proxy.port)
    holder = someone.open("desk-1").take_control()
    admin = person("admin", server).open("desk-1")
    acquires: list[str] = []

    def note(request: Request) -> None:
        if request.url.endswith("/control/acquire"):
            acquires.append(request.post_data or "")

    drag_with_shift(holder, desktop)
    end_control(admin, "maintenance")
    wait_until(lambda: desktop.held() == NOTHING, "nothing is held down any more")
    expect(holder.status).to_have_text("admin ended your control: “maintenance”. You are watching.")
    holder.page.on("request", note)

    holder.page.mouse.move(200, 300, steps=5)
    holder.page.mouse.up()
    holder.page.keyboard.up("Shift")
    holder.type(f"echo evicted > {tmp_path}/evicted\n")
    assert desktop.held() == NOTHING

    holder.page.wait_for_timeout(10 * RENEW_SECONDS * 1000)
    for drop in range(1, 6):
        proxy.cut()
        wait_until(
            lambda dials=drop + 1: len(holder.dialled_tokens) >= dials,
            f"dial {drop + 1}",
            expected=3,
        )
        holder.until_live()
        expect(holder.display).to_have_attribute("data-mode", "observe")
        expect(holder.status).to_have_text(
            "admin ended your control: “maintenance”. You are watching."
        )
    assert acquires == []
    assert admin.control["controller"] == "none"

    admin.take_control().type(f"echo typed > {tmp_path}/typed\n")
    wait_until(file_appears(tmp_path / "typed"), "what comes after it is there")
    assert not (tmp_path / "evicted").exists()
    forgive_broken_links(someone)
