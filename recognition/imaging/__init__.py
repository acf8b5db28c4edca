"""Decode uploaded bytes to upright RGB pixels, and prepare the bytes to store.

Only the formats of `FORMATS` are decoded, whatever the file name. Every problem of an upload raises
`InvalidImage`. Limits are checked before the work, and metadata never makes a picture fail.
"""

from recognition.imaging.decoding import DecodedImage, opened_image, read_image
from recognition.imaging.encoding import storable_bytes
from recognition.imaging.formats import ACCEPT, EXTENSIONS, FORMATS, FORMATS_TEXT

__all__ = [
    "ACCEPT",
    "EXTENSIONS",
    "FORMATS",
    "FORMATS_TEXT",
    "DecodedImage",
    "opened_image",
    "read_image",
    "storable_bytes",
]
