"""Files from the net: several mirrors, checksums, whole or absent."""

from collections.abc import Sequence
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

pooch.get_logger().setLevel("ERROR")


class OfflineError(Exception):
    """No mirror gave the file; the message is the last one's reason."""


def download(urls: Sequence[str], path: Path, md5: str | None) -> Path:
    """Fetch `path` from the first of `urls` that has it; pooch writes beside and renames once `md5` agrees."""
    reason = "no mirror is named"
    for url in urls:
        bar = tqdm(total=0, desc=path.name, unit="B", unit_scale=True, leave=False, delay=0.5, disable=None)
        try:
            pooch.retrieve(
                url,
                known_hash=f"md5:{md5}" if md5 else None,
                fname=path.name,
                path=path.parent,
                downloader=pooch.HTTPDownloader(progressbar=bar, timeout=10),
            )
            return path
        except requests.ConnectionError:  # its text is the whole chain of calls
            reason = f"no network to {url.split('/')[2]}"
        except (requests.RequestException, ValueError) as error:  # ValueError: a wrong checksum
            reason = str(error).partition(". ")[0]
        finally:
            bar.close()
    raise OfflineError(reason)
