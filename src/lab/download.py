"""Downloads: from several mirrors, checked by checksums, whole or not at all."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pooch
import requests
from filelock import FileLock
from tqdm import tqdm

from lab.errors import UserError

pooch.get_logger().setLevel("ERROR")

SECONDS = 3, 10  # to connect, and between two pieces
MOST_TRIES = 1000  # to lock a file whose folder others remove


class OfflineError(Exception):
    """No mirror gave the file; the message is the last one's reason."""


def download(urls: Sequence[str], path: Path, known_hash: str | None) -> Path:
    """Fetch `path` from the first of `urls` that has it; pooch writes beside and renames once `known_hash` agrees.

    `known_hash` is md5:... or sha256:... One of several processes fetches, the others wait for it.
    """
    if _is_there(path, known_hash):  # perhaps in a folder where nothing can be written
        return path
    if not urls:
        raise OfflineError("no mirror is named")
    made, lock = [folder for folder in path.parents if not folder.exists()], path.with_name(f".{path.name}.lock")
    with _acquire(lock):
        try:
            if not _is_there(path, known_hash):
                _fetch(urls, path, known_hash)
        except OfflineError:
            with contextlib.suppress(OSError):  # another process is at it
                lock.unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()
            raise
        finally:
            with contextlib.suppress(OSError):  # Windows removes no file that is open
                lock.unlink()
    return path


def _acquire(lock: Path) -> FileLock:
    """The file `lock`, locked. Its folder is made, again where a process that had no network removes it meanwhile."""
    for _ in range(MOST_TRIES):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            return FileLock(lock).acquire().lock
    raise UserError(f"{lock.parent}: cannot be made: choose another folder for the data")


def _is_there(path: Path, known_hash: str | None) -> bool:
    algorithm, _, known = (known_hash or "").partition(":")
    return path.exists() and (not known or pooch.file_hash(str(path), algorithm) == known)


def _fetch(urls: Sequence[str], path: Path, known_hash: str | None) -> None:
    for url in urls:
        bar = tqdm(total=0, desc=path.name, unit="B", unit_scale=True, leave=False, delay=0.5, disable=None)
        try:
            pooch.retrieve(
                url,
                known_hash=known_hash,
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
