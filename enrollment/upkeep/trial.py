"""A test of the installation with one picture, from its file to a search."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from enrollment.gallery import read_picture, search_gallery
from enrollment.models import FaceEmbedding, FaceImage
from recognition.conf import get_settings
from recognition.detection import looks_for_faces
from recognition.embedding import embed_uploads
from recognition.exceptions import NoFaceDetected, RecognitionError
from recognition.inference import Embeddings
from recognition.networks import find_weights, has_weights, load_network
from recognition.networks.runtime import trial_crops


@dataclass(slots=True)
class Trial:
    """The steps, to be called in this order.

    Each returns a sentence about what it found, or raises `RecognitionError`. Nothing is changed.
    """

    picture: FaceImage | None = None
    face: dict[str, Any] | None = None  # of the picture, where detection would not find the same
    embeddings: Embeddings | None = None

    def read_picture(self) -> str:
        """Read an enrolled picture that searches should find; in an empty gallery there is none."""
        model = get_settings().default_model
        if not has_weights(model):
            return _("none that can be searched")
        rows = FaceEmbedding.objects.filter(
            model=model,
            fingerprint=find_weights(model).fingerprint,
            status=FaceEmbedding.Status.INDEXED,
        )
        row = rows.select_related("face_image").order_by("pk").last()
        if row is None:
            return _("none that can be searched")
        content = read_picture(row.face_image)
        self.picture = row.face_image
        self.face = self.picture.chosen_face or (None if looks_for_faces() else row.face)
        return _("read picture %(pk)d, %(size)d bytes") % {
            "pk": row.face_image_id,
            "size": len(content),
        }

    def load_model(self) -> str:
        """Load the default model."""
        loaded = load_network(get_settings().default_model)
        return _("%(name)s, weights %(file)s (%(fingerprint)s), on %(device)s") % {
            "name": loaded.network.name,
            "file": loaded.weights.path.name,
            "fingerprint": loaded.weights.fingerprint,
            "device": loaded.device,
        }

    def embed(self) -> str:
        """Embed the picture that was read, or a drawn one."""
        content = read_picture(self.picture) if self.picture else _drawn_picture()
        look = self.picture.use_face_detection if self.picture else True
        model = get_settings().default_model
        (crop,), embeddings = embed_uploads(
            [content], model, face=self.face, use_face_detection=look
        )
        if isinstance(crop, NoFaceDetected) and not self.picture:  # so NO_FACE_POLICY=error has it
            (crop,), embeddings = embed_uploads([content], model, use_face_detection=False)
        if isinstance(crop, RecognitionError):
            raise crop
        self.embeddings = embeddings
        what = _("picture %d") % self.picture.pk if self.picture else _("a drawn picture")
        found = _("face found") if crop.face else _("no face found")
        return f"{what}, {found}"

    def search(self) -> str:
        """Search with that embedding; the picture that was read, or the same file, must be among the nearest."""
        if self.embeddings is None:
            return _("not tried: there is no embedding to search with")
        (hits,) = search_gallery(self.embeddings, 5)
        found = {hit.face_image.content_hash for hit in hits}  # a file may be enrolled many times
        if self.picture and self.picture.content_hash not in found:
            raise RecognitionError(
                _(
                    "picture %d is enrolled and is not among the 5 most similar to itself. Run "
                    "'manage.py reindex --check'."
                )
                % self.picture.pk
            )
        similarity = f"{hits[0].similarity:.4f}" if hits else _("nobody")
        return _("%(count)d found, first: %(similarity)s") % {
            "count": len(hits),
            "similarity": similarity,
        }


def _drawn_picture() -> bytes:
    """Return a picture of squares, in which no face is found and which is taken for a crop of one."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(trial_crops()[-1]).save(buffer, "PNG")
    return buffer.getvalue()
