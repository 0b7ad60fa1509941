// Runs in every page that is measured, before the page's own scripts: when does its picture show what?
// The middle of the picture is looked at once a frame, as often as a person could see it change.

/** @typedef {{opened: Promise<number>, changed?: Promise<number>, returned?: Promise<number>, arm: () => void, expectDrop: () => void}} Watch */

{
  const PATIENCE_MS = 20_000;
  // A copy is read: Chromium warns of reading a canvas again and again.
  const copy = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

  /** @returns {string} "red" or "blue"; nothing where there is no picture of the desktop */
  const colour = () => {
    const picture = /** @type {HTMLCanvasElement | null} */ (document.querySelector("#screen canvas"));
    if (!picture?.width || !copy) return "";
    copy.clearRect(0, 0, 1, 1);
    copy.drawImage(picture, picture.width / 2, picture.height / 2, 1, 1, 0, 0, 1, 1);
    const [red, , blue] = copy.getImageData(0, 0, 1, 1).data;
    if (red > 2 * blue) return "red";
    return blue > 2 * red ? "blue" : "";
  };

  const state = () => document.getElementById("display")?.dataset.state;

  /** @param {() => unknown} condition @returns {Promise<number>} ms since the page was asked for */
  const until = (condition) =>
    new Promise((resolve, reject) => {
      const look = () => {
        if (condition()) resolve(performance.now());
        else if (performance.now() < deadline) requestAnimationFrame(look);
        else reject(new Error(`waited in vain; the picture is "${colour()}", the page "${state()}"`));
      };
      const deadline = performance.now() + PATIENCE_MS;
      look();
    });

  let pressedAt = 0;
  addEventListener("keydown", (event) => (pressedAt = event.timeStamp), true);

  /** @type {Watch} */
  const watch = {
    opened: until(colour),
    /** `changed` is to be the ms from the next key to a changed picture. */
    arm() {
      const before = colour();
      watch.changed = until(() => colour() && colour() !== before).then((at) => at - pressedAt);
    },
    /** `returned` is to be the time of day, in ms, at which the page is live again after a drop. */
    expectDrop() {
      const gone = until(() => state() !== "live");
      const back = () => until(() => state() === "live" && colour());
      watch.returned = gone.then(back).then((at) => performance.timeOrigin + at);
    },
  };
  Object.assign(globalThis, { watch });
}
