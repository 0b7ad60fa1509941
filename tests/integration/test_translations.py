"""All that pages say can be said in another language: templates, and what scripts are given."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client, override_settings

from tests.support.processes import ROOT, program

WORDS = {
    "django": {"Sign in": "Anmelden", "Desktops": "Rechner"},
    "djangojs": {"You have control.": "Du steuerst."},
}
HEADER = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'


@pytest.fixture
def german(tmp_path: Path) -> Iterator[Client]:
    """A browser of somebody who reads German, which the pages speak a little."""
    directory = tmp_path / "de/LC_MESSAGES"
    directory.mkdir(parents=True)
    for domain, words in WORDS.items():
        entries = [f'msgid "{one}"\nmsgstr "{other}"\n' for one, other in words.items()]
        source = directory / f"{domain}.po"
        source.write_text(HEADER + "\n".join(entries))
        target = source.with_suffix(".mo")
        subprocess.run([program("msgfmt", "gettext"), "-o", target, source], check=True)
    languages = [("en", "English"), ("de", "Deutsch")]
    with override_settings(LOCALE_PATHS=[tmp_path], LANGUAGES=languages):
        yield Client(headers={"accept-language": "de, en;q=0.5"})


def test_templates_speak_the_readers_language(german: Client, observer: User) -> None:
    page = german.get("/accounts/login/").content.decode()
    assert '<html lang="de">' in page
    assert "<h1>Anmelden</h1>" in page
    german.force_login(observer)
    assert "<h1>Rechner</h1>" in german.get("/").content.decode()


def test_scripts_are_given_their_sentences_and_only_where_there_are_others(
    german: Client, db: None
) -> None:
    assert '<script src="/words.js"></script>' in german.get("/accounts/login/").content.decode()
    answer = german.get("/words.js")
    assert answer["Content-Type"].startswith("text/javascript")
    assert "Du steuerst." in answer.content.decode()
    assert "words.js" not in Client().get("/accounts/login/").content.decode()


SPOKEN = re.compile(r'(?:aria-label|title|placeholder|data-hint)="([^"]*)"')
MARKS = re.compile(
    r"{% block body_class %}\w* ?\w*{% endblock %}"
    r"|{% blocktranslate.*?{% endblocktranslate %}|{% translate .*?%}|{#.*?#}|{%.*?%}|{{.*?}}"
    r"|<(code|kbd)>.*?</\1>|<button [^>]*data-(?:keys|hold)[^>]*>.*?</button>",
    re.DOTALL,
)
TAGS = re.compile(r'<[^>]*>|[a-z-]+="[^"]*"')


def words_left(text: str) -> list[str]:
    bare = MARKS.sub("", text).replace("desktopctl", "")
    spoken = [*SPOKEN.findall(bare), *TAGS.sub("\n", bare).splitlines()]
    return [each.strip() for each in spoken if re.search(r"[a-zA-Z]{2}", each)]


def test_each_sentence_of_a_template_is_marked_for_translation() -> None:
    """What is left over once tags and marks are taken away has no words in it."""
    for path in sorted(settings.BASE_DIR.glob("templates/**/*.html")):
        if "admin" in path.parts:
            continue
        left = words_left(path.read_text())
        assert not left, f"{path.relative_to(ROOT)}: {left}"
