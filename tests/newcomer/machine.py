"""A machine of one's own: this one, as it is, of which nothing stays.

Made of Linux' namespaces and overlayfs. Its files are those of this machine, but what is written
goes to memory; its processes see no others, and its first one takes all along when it ends; its
network leads nowhere. It has just been installed: Debian's services are there, and hold nothing.

Or one whose files are a directory of their own, in which they stay: clean.py makes a bare one.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import ROOT, Process, program
from tests.support.timing import limit

# Of util-linux; its child is the first process of the machine, and is killed with it.
_UNSHARE = ("--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")

# Root's on Debian.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# $place is a directory, $tree is ours, $files the machine's own, or "". Over /dev, /run and others
# lies nothing of this machine, or a server that runs on it would be in the way.
_BOOT = """
set -euo pipefail
mount -t tmpfs machine "$place"
mkdir "$place/written" "$place/work" "$place/root"
if [ "$files" ]; then
    mount --bind "$files" "$place/root"
else
    overlay="lowerdir=/,upperdir=$place/written,workdir=$place/work"
    mount -t overlay machine -o "$overlay" "$place/root"
fi
cd "$place/root"
mount -t proc proc proc
mount --rbind /dev dev
for fresh in dev/shm run tmp var/lib/postgresql var/lib/redis; do
    [ -d "$fresh" ] || continue
    mode=$(stat --format=%a "$fresh") owner=$(stat --format=%U:%G "$fresh")
    mount -t tmpfs -o "mode=$mode" machine "$fresh"
    chown "$owner" "$fresh"
done
rm -rf etc/postgresql/*
mkdir -p ".$tree"
mount -o bind,ro "$tree" ".$tree"
ip link set lo up
exec chroot . /usr/bin/env -i --chdir="$tree" PATH="$path" HOME=/root LANG=C.UTF-8 TERM=dumb "$@"
"""


def why_not() -> str:
    """Return why the kernel lets us make none, if so: in many containers not even root may."""
    if os.geteuid() != 0:
        return "only root may make a machine of its own"
    tried = subprocess.run(
        [program("unshare", "util-linux"), "--net", *_UNSHARE, "true"],
        capture_output=True,
        text=True,
        timeout=limit(1),
        check=False,
    )
    return tried.stderr.strip()


@contextmanager
def running(
    argv: Sequence[str | Path], log: Path, *, online: bool = False, files: Path | None = None
) -> Iterator[Process]:
    """Run a command on a new machine, in our tree, which is read-only there.

    It ends with the block. ``online`` leaves it the network of this machine. ``files`` is the root
    of its file system, where what it writes stays; without it, it has the files of this machine.
    """
    unshare = [program("unshare", "util-linux"), *_UNSHARE, *([] if online else ["--net"])]
    with tempfile.TemporaryDirectory(prefix="desktopctl-machine-") as place:
        process = Process(
            [*unshare, "bash", "-c", _BOOT, "boot", *argv],
            log=log,
            env={
                "PATH": _PATH,
                "path": _PATH,
                "place": place,
                "tree": str(ROOT),
                "files": str(files or ""),
            },
            death_signal="KILL",  # unshare ignores all others
        )
        try:
            yield process
        finally:
            process.kill()
