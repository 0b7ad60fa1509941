"""``manage.py deliver_webhooks``: the worker that tells webhooks what has happened."""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import suppress
from typing import Any

from django.core.management import BaseCommand

from controlplane.management.commands import _starting
from controlplane.webhooks import worker


class Command(BaseCommand):
    """Runs until it is stopped; there may be several, on several machines."""

    help = "Deliver to webhooks, for as long as it runs."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options of the contract."""
        parser.add_argument("--once", action="store_true", help="deliver what is due now, and end")

    def handle(self, *args: Any, **options: Any) -> None:
        """Deliver; SIGTERM and Ctrl+C end it."""
        _starting.check_secret_key()
        _starting.check_migrations()
        with suppress(asyncio.CancelledError):
            asyncio.run(_until_told(options["once"]))


async def _until_told(once: bool) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await worker.run(once=once)
