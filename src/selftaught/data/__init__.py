"""Sources of images: open them by name or path, decode them once, and load batches onto the device."""

from selftaught.data.decode import decode, decode_whole
from selftaught.data.named import Row, list_sources
from selftaught.data.photos import Photo, Spec, is_photos, photos
from selftaught.data.sources import open_source, open_splits
from selftaught.data.splits import Split
from selftaught.data.stored import Stored, StoredBatch

__all__ = [
    "Photo",
    "Row",
    "Spec",
    "Split",
    "Stored",
    "StoredBatch",
    "decode",
    "decode_whole",
    "is_photos",
    "list_sources",
    "open_source",
    "open_splits",
    "photos",
]
