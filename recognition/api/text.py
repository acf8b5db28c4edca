"""Accept only UTF-8 in every part of a request.

Django replaces undecodable text with U+FFFD and skips parts of a form with an undecodable header.
Here both are rejected, so that no person gets a damaged name and no picture is lost.
"""

from __future__ import annotations

import codecs
from contextlib import suppress
from typing import IO, Any, Final
from urllib.parse import unquote_to_bytes

from django.core.exceptions import BadRequest
from django.core.files.uploadhandler import FileUploadHandler
from django.core.handlers.wsgi import WSGIRequest
from django.http import QueryDict
from django.http.multipartparser import MAX_TOTAL_HEADER_SIZE, MultiPartParser, MultiPartParserError
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext

from recognition.exceptions import RecognitionError

STRICT: Final = "strict_utf_8"  # a codec that is strict whatever error handler is given
UNNAMED: Final = "unnamed"  # the name of a file without a usable name, such as '..'
_END_OF_HEAD: Final = b"\r\n\r\n"
_SAMPLES: Final = (b"a=1", bytes(range(256)))
# Encodings of host names, which from Python 3.13 on fail like a charset.
_OF_HOST_NAMES: Final = ("punycode", "idna")


class Request(WSGIRequest):
    """A request whose charset is one of text.

    Django takes every codec of Python's that a content type names, and fails at those of other
    things, such as `charset=base64`. Here they count as unknown, and the text is UTF-8.
    """

    @property
    def encoding(self) -> str | None:
        return self._encoding

    @encoding.setter
    def encoding(self, name: str | None) -> None:
        WSGIRequest.encoding.fset(self, name if name and is_charset(name) else None)


def is_charset(name: str) -> bool:
    """Return whether this is the name of a charset, which reads text or says which bytes are none."""
    try:
        if codecs.lookup(name).name in _OF_HOST_NAMES:
            return False
        for sample in _SAMPLES:
            with suppress(UnicodeDecodeError):
                sample.decode(name, "replace")
                sample.decode(name)
    except (LookupError, UnicodeError):
        return False
    return True


class NotUtf8(BadRequest, RecognitionError):
    """A field's name or value, or a file's name, is not UTF-8; 400 in the API and on pages."""

    code = "not_utf8"
    status = 400


def not_utf8(given: bytes) -> NotUtf8:
    """Return the error for these bytes. Its message shows them, unless they are a file's."""
    if b"\0" in given:  # no text: a file in a field, or in the place of a form
        return NotUtf8(
            gettext(
                "A file was sent where text is expected. Send it as a part of multipart/form-data with a "
                "file name (curl: -F image=@face.jpg)."
            )
        )
    shown = given.strip()[-100:].decode("utf-8", "backslashreplace")
    message = gettext("This text is not UTF-8: '%(given)s'. Send fields and file names in UTF-8.")
    return NotUtf8(message % {"given": shown})


def _find_codec(name: str) -> codecs.CodecInfo | None:
    if name != STRICT:
        return None
    utf8 = codecs.lookup("utf-8")

    def decode(given: bytes, errors: str = "strict") -> tuple[str, int]:
        return utf8.decode(given, "strict")

    return codecs.CodecInfo(utf8.encode, decode, utf8.streamreader, name=STRICT)


codecs.register(_find_codec)


class Utf8UploadHandler(FileUploadHandler):
    """Parse a multipart form strictly as UTF-8; the following handlers take the files."""

    def handle_raw_input(
        self,
        input_data: IO[bytes],
        META: dict[str, Any],
        content_length: int,
        boundary: bytes,
        encoding: str | None = None,
    ) -> tuple[QueryDict, MultiValueDict[str, Any]]:
        known = self.request.upload_handlers if self.request else []
        handlers = [each for each in known if each is not self]
        charset = "utf-8" if encoding is None else codecs.lookup(encoding).name
        strict = STRICT if charset in ("utf-8", STRICT) else charset
        body = _CheckedHeads(input_data, boundary)
        try:
            parsed = _Parser(META, body, handlers, strict).parse()
        except UnicodeDecodeError as error:
            raise not_utf8(error.object) from error
        if not body.is_whole:
            raise MultiPartParserError("The last boundary is missing.")
        return parsed

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None


class _Parser(MultiPartParser):
    def sanitize_file_name(self, file_name: str) -> str:
        # Django would skip a file without a name.
        return super().sanitize_file_name(file_name) or UNNAMED


class _CheckedHeads:
    """A multipart body that checks, while it is read, that the part headers are UTF-8.

    `is_whole` says afterwards whether it had its last boundary: Django drops the part before a missing
    one, which may be a picture.
    """

    def __init__(self, source: IO[bytes], boundary: bytes) -> None:
        self.source, self.mark = source, b"--" + boundary
        self.left = b""  # not checked yet
        self.in_head = self.is_whole = False

    def read(self, size: int = -1) -> bytes:
        data = self.source.read(size)
        self.left += data
        while self._advance():
            pass
        return data

    def _advance(self) -> bool:
        """Look for the next boundary or end of a header; return whether one was found."""
        if self.in_head and self.left.startswith(b"--"):  # the last boundary: no part follows
            self.in_head, self.left, self.is_whole = False, b"", True
        before, found, after = self.left.partition(_END_OF_HEAD if self.in_head else self.mark)
        if found:
            if self.in_head:
                _check_head(before)
            self.in_head, self.left = not self.in_head, after
        elif not self.in_head:
            self.left = self.left[-len(self.mark) :]
        elif len(self.left) > MAX_TOTAL_HEADER_SIZE:  # Django refuses it
            self.in_head = False
        return bool(found)


def _check_head(head: bytes) -> None:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(head) from error
    _before, found, name = head.lower().partition(b"filename*=utf-8''")
    if found:  # a percent-encoded file name
        check_encoded(name.partition(b";")[0])


def check_encoded(given: bytes) -> None:
    """Raise `NotUtf8` unless these percent-encoded bytes of a URL or a form are UTF-8."""
    text = unquote_to_bytes(given)
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(text[error.start :]) from error
