"""What Prometheus gets to see, as numbers by name and labels."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.timing import limit
from tests.support.trust import trusted


@dataclass(frozen=True)
class Scrape:
    """The samples of one answer of ``/metrics``."""

    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    @classmethod
    def of(cls, text: str) -> Scrape:
        """Read what was answered."""
        return cls(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
        )

    def value(self, name: str, **labels: str) -> float:
        """Return one number; 0 where nothing has been counted yet, as after a start."""
        return self.samples.get((f"desktopctl_{name}", frozenset(labels.items())), 0.0)

    def has(self, name: str) -> bool:
        """Whether there is a sample of this name."""
        return any(each == f"desktopctl_{name}" for each, _ in self.samples)


def ask(url: str, token: str = "", **headers: str) -> httpx.Response:
    """Ask for metrics, over a connection of its own."""
    shown = {"Authorization": f"Bearer {token}"} if token else {}
    headers = shown | headers
    return httpx.get(f"{url}/metrics", headers=headers, timeout=limit(1), verify=trusted())
