"""A stock noVNC, without our page around it, works against the display websocket."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.conftest import SLUGS, MakePerson, StartServer
from tests.e2e.rig import file_appears
from tests.support.timing import wait_until

CLIENT_ID = "stock-novnc-1"

# What a page would do that knows noVNC and nothing of us: the address with the token in its query.
START = """
async ([module, url, protocols]) => {
  const { default: RFB } = await import(module);
  document.body.innerHTML = '<div id="stock"></div>';
  Object.assign(document.getElementById("stock").style, { width: "800px", height: "600px" });
  const options = protocols.length ? { wsProtocols: protocols } : {};
  const rfb = new RFB(document.getElementById("stock"), url, options);
  window.stock = rfb;
  await new Promise((resolve, reject) => {
    rfb.addEventListener("connect", resolve);
    rfb.addEventListener("disconnect", () => reject(new Error("disconnected")));
  });
  rfb.focus();
}
"""

# A copy is read: Chromium warns of reading a canvas again and again.
COLOURS = """
() => {
  const copy = new OffscreenCanvas(800, 600).getContext("2d", { willReadFrequently: true });
  copy.drawImage(document.querySelector("#stock canvas"), 0, 0);
  return new Set(new Uint32Array(copy.getImageData(0, 0, 800, 600).data.buffer)).size;
}
"""

ACQUIRE = """
async ([path, client_id]) => {
  const csrf = /csrftoken=([^;]+)/.exec(document.cookie)[1];
  const headers = { "Content-Type": "application/json", "X-CSRFToken": csrf };
  const body = JSON.stringify({ client_id });
  const answer = await fetch(path, { method: "POST", headers, body });
  return (await answer.json()).session_url;
}
"""


@pytest.mark.parametrize("protocols", [["binary"], []], ids=["binary", "none"])
@pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
def test_a_stock_novnc_shows_and_controls_the_desktop(
    kind: str, protocols: list[str], start_server: StartServer, person: MakePerson, tmp_path: Path
) -> None:
    server = start_server(kind)
    page = person("operator", server).log_in()
    slug = SLUGS["tcp"]
    page.goto(f"/workspaces/{slug}/")
    module = page.locator("#display").get_attribute("data-novnc")
    page.goto("/")
    path = f"/api/workspaces/{slug}/display/control/acquire"
    url = page.evaluate(ACQUIRE, [path, CLIENT_ID]).replace("#token=", "?token=")

    page.evaluate(START, [module, url, protocols])
    wait_until(lambda: page.evaluate(COLOURS) > 2, "the desktop is drawn", expected=2)
    page.keyboard.type(f"echo stock > {tmp_path}/typed\n", delay=5)
    wait_until(file_appears(tmp_path / "typed"), "the file is typed into being")
    assert [each["protocols"] for each in page.evaluate("window.dialled")] == [protocols]
    token = re.search(r"token=([\w-]+)", url)
    assert token is not None
    assert token[1] not in server.log
    page.evaluate("stock.disconnect()")
    wait_until(lambda: " closed: " in server.log, "the stream has ended")
