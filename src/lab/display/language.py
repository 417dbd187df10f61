"""The language of a page and its figures. English stands in the code, another language in a file beside this one."""

import functools
import re
import string
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import yaml

FILES = {path.stem: path for path in sorted(Path(__file__).parent.glob("??.yaml"))}  # fr.yaml: English to French
LANGUAGES = ("en", *FILES)
THIN = "\u202f"  # a narrow space that does not break
MOST_RETOLD = 500  # letters

_spoken = ContextVar("spoken", default="en")


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Let `say` and `number` speak one of LANGUAGES meanwhile."""
    token = _spoken.set(language)
    try:
        yield
    finally:
        _spoken.reset(token)


def spoken() -> str:
    """The language of the moment, "en" or "fr"."""
    return _spoken.get()


def say(text: str, **values: Any) -> str:
    """`text` in the language of the moment, its {fields} filled as str.format fills them; numbers as `number`."""
    return _Filler().format(translate(text), **values)


def translate(text: str) -> str:
    """A word of the program's in the language of the moment; one that the language's file lacks, as it is."""
    return _words(spoken()).get(text, text)


def retell(text: str) -> str:
    """What a file has kept in English, in the language of the moment, by the texts that its file calls `told`.

    Figures, and what is none of these, as `localise` and as it is; a longer text, which may be a stranger's, too.
    """
    if len(text) > MOST_RETOLD:
        return text
    for english, other in _words(spoken()).get("told", {}).items():
        pieces = string.Formatter().parse(english)
        pattern = "".join(re.escape(words) + (f"(?P<{name}>.+?)" if name else "") for words, name, *_ in pieces)
        if found := re.fullmatch(pattern, text):
            return other.format(**{name: retell(value) for name, value in found.groupdict().items()})
    return localise(text) if re.fullmatch(r"[-+±\d., %]+", text) else text


def number(value: float | None, form: str = ",") -> str:
    """98.86% in English, 98,86 % in French; "-" of None."""
    return "-" if value is None else localise(format(value, form))


def localise(figures: str) -> str:
    """Figures as English writes them, in the language of the moment: 1,234.5 becomes 1 234,5."""
    if spoken() == "en":
        return figures
    return figures.translate({ord(","): THIN, ord("."): ","}).replace("%", f"{THIN}%")


class _Filler(string.Formatter):
    def format_field(self, value: Any, form: str) -> str:
        filled = super().format_field(value, form)
        return localise(filled) if isinstance(value, int | float) else filled


@functools.cache
def _words(language: str) -> dict[str, Any]:
    return yaml.safe_load(FILES[language].read_text(encoding="utf-8")) if language in FILES else {}
