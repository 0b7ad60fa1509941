"""Pictures of desktops, each taken over a connection of our own.

However many ask, a desktop is dialled once a second at most by this process: callers within a
second of each other share one picture, and what was made of it. They share it only where the lease
is in the very state in which the first of them has read it: a picture that was taken while its
holder hid the desktop is nobody else's a moment later.

Pictures are taken in an event loop of their own. Callers wait in their requests' threads, without a
database connection; no stream waits for a picture, nor for its encoding.
"""

from __future__ import annotations

import asyncio
import io
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from django.conf import settings
from django.db import close_old_connections
from PIL import Image

from controlplane import desktops, upstream
from controlplane.dbthreads import DatabaseThreads
from controlplane.exceptions import UpstreamError, UpstreamTimeout
from controlplane.leaseviews import LeaseView
from controlplane.models import Workspace
from controlplane.rfb.framebuffer import FramebufferReader, encode_whole_picture_request
from controlplane.wakeup import Wakeup

FRESH_SECONDS = 1.0  # counted from when its taking began
# x11vnc, asked by a connection after a while without any, often answers with what it showed last.
# Asked again this much later, it has looked (docs/decisions.md).
LOOK_AGAIN_SECONDS = 0.6
MIN_WIDTH = 16
# Of nine levels: two thirds of the default's time, for files that are a tenth larger.
PNG_LEVEL = 3

Format = Literal["png", "jpeg"]


@dataclass(frozen=True, slots=True)
class State:
    """What decides who may see a picture. Each write of the lease makes it another one.

    Time alone ends a lease, and what it hides, without a write.
    """

    version: int
    epoch: int
    is_held: bool
    is_hidden: bool
    upstream_version: int

    @classmethod
    def of(cls, view: LeaseView, workspace: Workspace) -> State:
        """Return how things were when these were read."""
        return cls(
            view.lease.version,
            view.lease.epoch,
            view.is_held,
            view.is_hidden,
            workspace.upstream_version,
        )


@dataclass(frozen=True, slots=True)
class Encoding:
    """As what a picture is wanted; ``width`` None is its own, ``quality`` is JPEG's."""

    format: Format = "png"
    width: int | None = None
    quality: int = 80


class Picture:
    """What a desktop showed. It is encoded once for all who want it alike."""

    def __init__(self, width: int, height: int, pixels: bytearray) -> None:
        """Take over the pixels of a FramebufferReader."""
        self.width, self.height = width, height
        self._pixels = pixels
        self._lock = threading.Lock()
        self._encoded: dict[Encoding, bytes] = {}

    def encoded(self, wanted: Encoding) -> bytes:
        """Return it as a file; it takes a while, so from a thread that may wait."""
        with self._lock:
            if wanted not in self._encoded:
                self._encoded[wanted] = _encode(self._image(wanted.width), wanted)
            return self._encoded[wanted]

    def _image(self, width: int | None) -> Image.Image:
        size = (self.width, self.height)
        image = Image.frombuffer("RGB", size, self._pixels, "raw", "BGRX", 0, 1)
        if width is None or width >= self.width:
            return image
        height = max(1, round(self.height * width / self.width))
        return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)


def _encode(image: Image.Image, wanted: Encoding) -> bytes:
    file = io.BytesIO()
    if wanted.format == "png":
        image.save(file, "PNG", compress_level=PNG_LEVEL)
    else:
        image.save(file, "JPEG", quality=wanted.quality)
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class _Taking:
    """A picture that is being taken, or has just been; or why there is none."""

    state: State
    began: float
    picture: Future[Picture]

    @property
    def age(self) -> float:
        return time.monotonic() - self.began

    def serves(self, state: State) -> bool:
        is_fresh = not self.picture.done() or self.age < FRESH_SECONDS
        return self.state == state and is_fresh


class _Camera:
    """Takes this process's pictures."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._takings: dict[int, _Taking] = {}  # by workspace
        self._threads = DatabaseThreads("screenshots", 1)
        self._loop: asyncio.AbstractEventLoop | None = None

    def picture(self, workspace: Workspace, state: State) -> Future[Picture]:
        """Return a picture taken in this state, by now or soon. From any thread."""
        with self._lock:
            taking = self._takings.get(workspace.pk)
            if taking is None or not taking.serves(state):
                taking = self._begin(workspace, state)
            return taking.picture

    def forget(self) -> None:
        """Begin as if nobody had asked before."""
        with self._lock:
            self._takings.clear()

    def _begin(self, workspace: Workspace, state: State) -> _Taking:
        loop = self._running_loop()
        began = time.monotonic()
        work = asyncio.run_coroutine_threadsafe(_take(workspace, self._threads), loop)
        taking = self._takings[workspace.pk] = _Taking(state, began, work)
        work.add_done_callback(
            lambda _: loop.call_soon_threadsafe(self._forget_later, loop, workspace.pk, taking)
        )
        return taking

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            # A daemon: what it does at the end of the process is nobody's loss.
            run = self._loop.run_forever
            threading.Thread(target=run, name="screenshots", daemon=True).start()
        return self._loop

    def _forget_later(self, loop: asyncio.AbstractEventLoop, key: int, taking: _Taking) -> None:
        """Let go of its memory once nobody will be given it any more."""
        loop.call_later(max(0.0, FRESH_SECONDS - taking.age), self._forget, key, taking)

    def _forget(self, key: int, taking: _Taking) -> None:
        with self._lock:
            if self._takings.get(key) is taking:
                del self._takings[key]


_camera = _Camera()


def take(workspace: Workspace, state: State) -> Picture:
    """Return a picture of the workspace's desktop that is a second old at most.

    ``state`` is how its lease was read to be, before. Blocks for DISPLAY_CONNECT_SECONDS at most.
    Raises UpstreamError and its kin. Whether the caller may see it is for the caller to decide,
    before and after: only who finds the same state again knows that it was so all the time.
    """
    picture = _camera.picture(workspace, state)
    close_old_connections()  # others need it while we wait
    return picture.result()


def forget() -> None:
    """Share no picture that was asked for before; for tests."""
    _camera.forget()


async def _take(workspace: Workspace, threads: DatabaseThreads) -> Picture:
    seconds = settings.DISPLAY.connect_seconds
    deadline = asyncio.get_running_loop().time() + seconds
    connection, found = await desktops.dial(workspace, threads)
    try:
        sitting = _Sitting(connection, found.width, found.height)
        async with asyncio.timeout_at(deadline):
            await sitting.picture()  # perhaps an old one
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            pixels = await sitting.picture()
    except TimeoutError:
        raise UpstreamTimeout("stream", f"no whole picture within {seconds:g} s") from None
    finally:
        await upstream.discard(connection)
    return Picture(found.width, found.height, pixels)


class _Sitting:
    """One connection, and the pictures that it brings, one after the other.

    All that comes is fed to the reader, and at once: what waits to be read would be too much, and
    what is lost between two pictures may be the beginning of a message.
    """

    def __init__(self, connection: upstream.Upstream, width: int, height: int) -> None:
        self._connection = connection
        self._reader = FramebufferReader(width, height)
        self._request = encode_whole_picture_request(width, height)
        self._lost: UpstreamError | None = None
        self._arrived = Wakeup()
        connection.attach(self)

    async def picture(self) -> bytearray:
        """Ask for a whole picture, and return its pixels, which the next one is put into."""
        self._reader.begin_again()
        self._connection.write(self._request)
        while not self._reader.is_complete:
            if self._lost:
                raise self._lost
            self._arrived.clear()
            await self._arrived.wait()
        return self._reader.pixels

    def upstream_data(self, data: bytes) -> None:
        if self._lost:
            return
        try:
            self._reader.feed(data)
        except UpstreamError as error:
            self._lost = error
        self._arrived.set()

    def upstream_writable(self) -> None:
        """Nothing waits to be written."""

    def upstream_lost(self, error: UpstreamError) -> None:
        self._lost = self._lost or error
        self._arrived.set()
