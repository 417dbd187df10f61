"""Files from the net: several mirrors, checksums, whole or absent."""

from collections.abc import Sequence
from pathlib import Path

import pooch
import requests
from filelock import FileLock
from tqdm import tqdm

pooch.get_logger().setLevel("ERROR")

SECONDS = 3, 10  # to connect, and between two pieces


class OfflineError(Exception):
    """No mirror gave the file; the message is the last one's reason."""


def download(urls: Sequence[str], path: Path, md5: str | None) -> Path:
    """Fetch `path` from the first of `urls` that has it; pooch writes beside and renames once `md5` agrees.

    Of several processes one fetches, the others wait for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock):
        try:
            if not _is_there(path, md5):
                _fetch(urls, path, md5)
        finally:
            lock.unlink(missing_ok=True)
    return path


def _is_there(path: Path, md5: str | None) -> bool:
    return path.exists() and (md5 is None or pooch.file_hash(str(path), "md5") == md5)


def _fetch(urls: Sequence[str], path: Path, md5: str | None) -> None:
    reason = "no mirror is named"
    for url in urls:
        bar = tqdm(total=0, desc=path.name, unit="B", unit_scale=True, leave=False, delay=0.5, disable=None)
        try:
            pooch.retrieve(
                url,
                known_hash=f"md5:{md5}" if md5 else None,
                fname=path.name,
                path=path.parent,
                downloader=pooch.HTTPDownloader(progressbar=bar, timeout=SECONDS),
            )
            return
        except requests.exceptions.ChunkedEncodingError:
            reason = f"{url} breaks off"
        except (requests.ConnectionError, requests.Timeout) as error:  # their texts are the whole chain of calls
            stalled = isinstance(error, requests.ReadTimeout) or "Read timed out" in str(error)
            reason = f"{url} stalls" if stalled else f"no network to {url.split('/')[2]}"
        except (requests.RequestException, ValueError) as error:  # ValueError: a wrong checksum
            reason = str(error).partition(". ")[0]
        finally:
            bar.close()
    raise OfflineError(reason)
