"""Fetching official archives, checksum first."""

import logging
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from ..errors import FaultsimError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """An official archive: its file name, the address of its folder, and its published MD5 sum."""

    file: str
    base: str
    md5: str


_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_BOCHUM = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"

# The binary CIFAR archives: the same images as the pickled ones, and nothing to unpickle.
CIFAR10 = Archive("cifar-10-binary.tar.gz", _TORONTO, "c32a1d4ab5d03f1284b67883e8d87530")
CIFAR100 = Archive("cifar-100-binary.tar.gz", _TORONTO, "03b5dce01913d631647c71ecec9e9cb8")
# "Final_Training" holds the 39,209 images of the paper; "GTSRB-Training_fixed.zip" is another, smaller set.
GTSRB_TRAIN = Archive("GTSRB_Final_Training_Images.zip", _BOCHUM, "f33fd80ac59bff73c82d25ab499e03a3")
GTSRB_TEST = Archive("GTSRB_Final_Test_Images.zip", _BOCHUM, "c7e4e6327067d32654124b0fe9e82185")
GTSRB_TEST_LABELS = Archive("GTSRB_Final_Test_GT.zip", _BOCHUM, "fe31e9c9270bbcd7b84b7f21a9d9d9e5")


class _Note:
    """Takes the place of pooch's progress bar: one line when the archive begins to arrive, none otherwise."""

    def __init__(self, url: str):
        self.url, self.total = url, 0

    def update(self, _bytes: int) -> None:
        if self.url:
            _log.info("fetching %s (%.0f MB)", self.url, self.total / 1e6)
            self.url = ""

    def reset(self) -> None:
        """Asked for by pooch."""

    def close(self) -> None:
        """Asked for by pooch."""


def fetch(archive: Archive, cache_dir: str | PathLike[str] | None = None) -> Path:
    """Download an archive, unless it is in the cache already.

    A file already there is used when its checksum is right. A new one gets its name only after its checksum was found
    right, so a broken download leaves nothing behind. The start of a download is logged.

    Parameters
    ----------
    archive
        What to download.
    cache_dir
        Default: the user's cache folder, under "faultsim".

    Raises
    ------
    FaultsimError
        When it cannot be downloaded.
    """
    url = archive.base + archive.file
    advice = "download it yourself and give its folder with --data-dir"
    try:
        import pooch
        import requests
    except ImportError as error:
        raise FaultsimError(
            f'fetching {url} needs the package {error.name}: pip install "faultsim[data]", or {advice}'
        ) from None
    pooch.get_logger().setLevel("ERROR")  # it reports attempts; _Note reports success, errors are raised
    try:
        path = pooch.retrieve(
            url,
            known_hash=f"md5:{archive.md5}",
            fname=archive.file,
            path=cache_dir or pooch.os_cache("faultsim"),
            downloader=pooch.HTTPDownloader(progressbar=_Note(url), chunk_size=1 << 20),
        )
    except requests.exceptions.ChunkedEncodingError:
        reason = "the connection broke off"
    except requests.exceptions.ConnectionError:
        reason = "no connection"
    except (OSError, ValueError) as error:  # HTTP status, time-out; disk; checksum
        reason = str(error).partition("\n")[0]
    else:
        return Path(path)
    raise FaultsimError(f"could not fetch {url}: {reason}; {advice}")
