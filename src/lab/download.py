"""Files from the net: several mirrors, checksums, whole or absent."""

from collections.abc import Sequence
from pathlib import Path

import pooch
import requests


class Offline(Exception):
    """No mirror gave the file: the last one's reason."""


def download(urls: Sequence[str], path: Path, md5: str | None) -> Path:
    """Fetch `path` from the first of `urls` that has it; pooch writes beside and renames once `md5` agrees."""
    for url in urls:
        try:
            pooch.retrieve(
                url,
                known_hash=f"md5:{md5}" if md5 else None,
                fname=path.name,
                path=path.parent,
                downloader=pooch.HTTPDownloader(progressbar=True, timeout=10),
            )
            return path
        except (requests.RequestException, ValueError) as error:  # ValueError: a wrong checksum
            reason = _short(error)
    raise Offline(reason)


def _short(error: Exception) -> str:
    """requests wraps the reason in its whole call chain; pooch tells a wrong checksum in a paragraph."""
    if isinstance(error, requests.ConnectionError):
        return "no network"
    return str(error).partition(". ")[0]
