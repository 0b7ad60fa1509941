"""What goes wrong. Each fault returns the moment (monotonic) from which recovering is timed:

when it began, where one of two servers is enough to go on; else when it was over.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psycopg

from tests.chaos.world import World

SHORT, LONG = 1.0, 5.0  # LONG is beyond the fence and the time limit for desktops
SLEEP = 8.0  # long enough for somebody else to have taken control elsewhere, and typed


def a_server_is_killed(world: World) -> float:
    """SIGKILL; it is started again after a second."""
    world.servers[0].kill()
    return _start_again(world)


def a_server_is_restarted(world: World) -> float:
    """SIGTERM, as in an upgrade; it is started again after a second."""
    world.servers[0].stop()
    return _start_again(world)


def _start_again(world: World) -> float:
    began = time.monotonic()
    time.sleep(SHORT)
    world.servers[0].start_as_typed()
    return began


def a_server_stands_still(world: World) -> float:
    """SIGSTOP for longer than the fence: it wakes up with input that is not valid any more."""
    began = time.monotonic()
    os.kill(world.servers[0].pid, signal.SIGSTOP)
    time.sleep(SLEEP)
    os.kill(world.servers[0].pid, signal.SIGCONT)
    return began


def postgresql_is_restarted(world: World) -> float:
    """In order, and away for a second."""
    world.postgres.stop()
    time.sleep(SHORT)
    world.postgres.start()
    return time.monotonic()


def postgresql_crashes(world: World) -> float:
    """Without a word to anybody, and away for longer than the fence."""
    world.postgres.crash()
    time.sleep(LONG)
    world.postgres.start()
    return time.monotonic()


def postgresql_ends_all_connections(world: World) -> float:
    """pg_terminate_backend for everybody."""
    with psycopg.connect(world.postgres.url(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )
    return time.monotonic()


def redis_is_restarted(world: World) -> float:
    """Away for a second."""
    world.redis.stop()
    time.sleep(SHORT)
    world.redis.start()
    return time.monotonic()


def the_vnc_server_ends(world: World) -> float:
    """It is killed, and there again at once."""
    world.desk.hang_up()
    return time.monotonic()


def the_vnc_server_stands_still(world: World) -> float:
    """It reads nothing for a while."""
    world.desk.stop_reading()
    time.sleep(LONG)
    world.desk.read_on()
    return time.monotonic()


def the_desktop_is_behind_a_slow_link(world: World) -> float:
    """20 kB a second, each byte 0.2 s late."""
    world.desk_link.slow(20_000, latency=0.2)
    time.sleep(LONG)
    world.desk_link.heal()
    return time.monotonic()


def the_link_to_the_desktop_is_silent(world: World) -> float:
    """Nothing arrives, and nothing is closed."""
    world.desk_link.blackhole()
    time.sleep(LONG)
    world.desk_link.cut()
    world.desk_link.heal()
    return time.monotonic()


def browsers_lose_their_connections(world: World) -> float:
    """All of them are reset."""
    for front in world.fronts:
        front.cut()
    return time.monotonic()


def browsers_have_a_bad_network(world: World) -> float:
    """50 kB a second, each byte 0.2 s late."""
    for front in world.fronts:
        front.slow(50_000, latency=0.2)
    time.sleep(LONG)
    for front in world.fronts:
        front.heal()
    return time.monotonic()


def the_network_of_browsers_is_silent(world: World) -> float:
    """Nothing arrives, and nothing is closed; then all is reset."""
    for front in world.fronts:
        front.blackhole()
    time.sleep(LONG)
    for front in world.fronts:
        front.cut()
        front.heal()
    return time.monotonic()


FAULTS: tuple[Callable[[World], float], ...] = (
    a_server_is_killed,
    a_server_is_restarted,
    a_server_stands_still,
    postgresql_is_restarted,
    postgresql_crashes,
    postgresql_ends_all_connections,
    redis_is_restarted,
    the_vnc_server_ends,
    the_vnc_server_stands_still,
    the_desktop_is_behind_a_slow_link,
    the_link_to_the_desktop_is_silent,
    browsers_lose_their_connections,
    browsers_have_a_bad_network,
    the_network_of_browsers_is_silent,
)
