"""A cache that is built slowly, for processes that build the same one or are killed."""

import time
from dataclasses import dataclass
from pathlib import Path

from corpus import listed

from selftaught.data.cache import decode_cached
from selftaught.data.reader import Listed, Reader


@dataclass(frozen=True, eq=False)
class Slow(Reader):
    """Pauses before each image, and logs each build."""

    inner: Listed
    log: Path
    pause: float

    def __len__(self):
        return len(self.inner)

    def title(self, index):
        return self.inner.title(index)

    def fingerprint(self):
        return self.inner.fingerprint()

    def stream(self, indices):
        with self.log.open("a") as log:
            log.write("build\n")
        for raw in self.inner.stream(indices):
            time.sleep(self.pause)
            yield raw


def build(folder: Path, log: Path, pause: float) -> None:
    """Print the number of images and the sum of their pixels."""
    toys = listed(200)
    cached = decode_cached(Slow(toys.name, toys.labels, toys.classes, toys, log, pause), 8, folder=folder)
    print(len(cached.images), int(cached.images.sum()))
