"""Uploaded bytes in, upright RGB pixels out; and the bytes of a picture that are fit to keep.

Only the formats of `FORMATS` are ever decoded, whatever a file is called. Everything that an upload can
do wrong ends in `InvalidImage`: limits are looked at before the work, metadata never fails a picture.
"""

from recognition.imaging.formats import ACCEPT, EXTENSIONS, FORMATS, FORMATS_TEXT
from recognition.imaging.reading import DecodedImage, opened_image, read_image
from recognition.imaging.storing import storable_bytes

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
