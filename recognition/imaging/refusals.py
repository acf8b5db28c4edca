"""The errors for rejected pictures: what was given, what was expected, what to do."""

from __future__ import annotations

from typing import Final

from recognition.conf import get_settings
from recognition.exceptions import InvalidImage
from recognition.imaging.formats import FORMATS_TEXT
from recognition.sentences import gettext as _

MIN_SIDE: Final = 16  # pixels; faces in smaller pictures cannot be recognised


def empty() -> InvalidImage:
    return InvalidImage(_("The file is empty. Send the bytes of a picture."))


def unrecognised(kind: str | None) -> InvalidImage:
    """Return the error for bytes that are no supported picture; `kind` is their type, if known."""
    if kind:
        message = _(
            "The file is of type %(given)s; a picture in one of these formats was expected: "
            "%(formats)s. Convert it to JPEG or PNG and send it again."
        )
        return InvalidImage(message % {"given": kind, "formats": FORMATS_TEXT})
    message = _(
        "The file is not a picture that can be read; one of these formats was expected: "
        "%(formats)s. Check that the file opens in a picture viewer and send it again."
    )
    return InvalidImage(message % {"formats": FORMATS_TEXT})


def damaged() -> InvalidImage:
    return InvalidImage(
        _(
            "The picture is damaged or incomplete and could not be decoded; a whole picture was "
            "expected. Send the original file again."
        )
    )


def unsupported(kind: str) -> InvalidImage:
    """Return the error for a valid picture in an unsupported variant of its format."""
    message = _(
        "The picture is of a rare kind of %(given)s that is not supported. Convert it to an ordinary "
        "JPEG or PNG and send it again."
    )
    return InvalidImage(message % {"given": kind})


def too_complex() -> InvalidImage:
    return InvalidImage(
        _(
            "The picture is built of more parts (scans, tiles or blocks) than a picture of its size "
            "needs. Save it anew as an ordinary JPEG or PNG and send it again."
        )
    )


def too_many_pixels() -> InvalidImage:
    message = _(
        "The picture has too many pixels; at most %(limit)d are accepted. "
        "Scale it down and send it again."
    )
    return InvalidImage(message % {"limit": get_settings().max_image_pixels})


def check_size(width: int, height: int) -> None:
    """Raise `InvalidImage` for a picture with too many pixels, or too small to show a face."""
    most = get_settings().max_image_pixels
    size = {"width": width, "height": height}
    if width * height > most:
        message = _(
            "The picture has %(width)d×%(height)d pixels; at most %(limit)d in all are accepted. "
            "Scale it down and send it again."
        )
        raise InvalidImage(message % (size | {"limit": most}))
    if min(width, height) < MIN_SIDE:
        message = _(
            "The picture has %(width)d×%(height)d pixels; each side must have at least "
            "%(limit)d. Send a larger picture."
        )
        raise InvalidImage(message % (size | {"limit": MIN_SIDE}))
