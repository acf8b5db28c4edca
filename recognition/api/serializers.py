"""Serializers of the endpoints for pictures and models."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.fields import SkipField

from recognition.api.answers import (
    AnswerSerializer,
    BoxField,
    LandmarksField,
    ScoreField,
    VectorField,
)
from recognition.api.errors import ErrorSerializer
from recognition.api.fields import (
    FlagField,
    ImageField,
    ImagesField,
    ModelField,
    NumberField,
    default_model,
)
from recognition.health import Health
from recognition.networks import FaceNetwork, has_weights, loaded_names, usable_names
from recognition.networks.registry import EMBEDDING_DIM


class _OptionsLast(serializers.Serializer):
    """A form whose own fields stand before the options that several forms share."""

    def get_fields(self) -> dict[str, serializers.Field]:
        options = ImageOptionsSerializer._declared_fields | FaceOptionsSerializer._declared_fields
        return dict(sorted(super().get_fields().items(), key=lambda item: item[0] in options))


class ImageOptionsSerializer(_OptionsLast):
    model = ModelField()
    use_face_detection = FlagField(
        default=True,
        help_text=_("False: the picture is already a crop of one face; none is looked for."),
    )
    require_face = FlagField(
        default=False, help_text=_("True: refuse a picture in which no face is found.")
    )


class FaceOptionsSerializer(_OptionsLast):
    """Which faces of a picture count, and what is measured. Omitted fields have the configured defaults."""

    min_score = NumberField(
        required=False,
        min_value=0,
        max_value=1,
        help_text=_("Faces of which the detector is less sure do not count."),
    )
    min_face_size = NumberField(
        required=False,
        min_value=0,
        help_text=_("Nor do those whose box has a shorter side, in pixels of the picture."),
    )
    check_liveness = FlagField(
        default=False,
        help_text=_(
            "True: `quality` of each face says by `liveness` whether it may be a picture of a picture. The "
            "networks for it are fetched by the administrator."
        ),
    )


class DetectFormSerializer(FaceOptionsSerializer):
    image = ImageField(help_text=_("One picture: JPEG, PNG, WebP, HEIC, AVIF, BMP or TIFF."))


class ProbeOptionsSerializer(ImageOptionsSerializer, FaceOptionsSerializer):
    """Options for reading a picture that is not stored."""

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["check_liveness"] and not attrs["use_face_detection"]:
            message = gettext(
                "The liveness of a face is seen by what is around it, and use_face_detection=false says that "
                "the picture is a crop of one. Leave out either."
            )
            raise serializers.ValidationError({"check_liveness": message})
        return attrs


class EmbeddingFormSerializer(ProbeOptionsSerializer):
    image = ImageField(help_text=_("One picture: JPEG, PNG, WebP, HEIC, AVIF, BMP or TIFF."))


class EmbeddingsBatchFormSerializer(ProbeOptionsSerializer):
    images = ImagesField(help_text=_("Pictures: JPEG, PNG, WebP, HEIC, AVIF, BMP or TIFF."))


# Answers


class QualityReasonSerializer(serializers.Serializer):
    code = serializers.CharField(help_text=_("Stays the same in every language."))
    message = serializers.CharField(
        help_text=_("What was measured, what was expected, what to do; in the client's language.")
    )


class QualitySerializer(serializers.Serializer):
    """How suitable a face is for recognition; null where there was no face to measure."""

    score = serializers.FloatField(
        allow_null=True, help_text=_("How sure the detector is, 0 to 1.")
    )
    width = serializers.FloatField(allow_null=True, help_text=_("Of the face's box, in pixels."))
    eye_distance = serializers.FloatField(allow_null=True, help_text=_("In pixels."))
    sharpness = serializers.FloatField(help_text=_("Variance of the Laplacian of the crop."))
    brightness = serializers.FloatField(help_text=_("Mean grey level of the crop, 0 to 255."))
    contrast = serializers.FloatField(help_text=_("Standard deviation of the crop's grey levels."))
    yaw = serializers.FloatField(
        allow_null=True,
        help_text=_("Degrees, about; positive when the face looks to the right of the picture."),
    )
    roll = serializers.FloatField(allow_null=True, help_text=_("Degrees, positive clockwise."))
    faces = serializers.IntegerField(
        allow_null=True,
        help_text=_("How many are in the picture; null where each face is answered for itself."),
    )
    share = serializers.FloatField(
        allow_null=True, help_text=_("The face's part of the area of all faces, 0 to 1.")
    )
    liveness = serializers.FloatField(
        allow_null=True,
        help_text=_(
            "How probable it is that the face stands before the camera, 0 to 1; null unless asked for by "
            "`check_liveness`, and where no face was found."
        ),
    )
    reasons = QualityReasonSerializer(many=True, help_text=_("To doubt it; none when it is good."))


def _crop_of(instance: Any) -> Any:
    """Return the crop of a result; None for a given vector. Skip the field for a rejected file."""
    if "crop" not in instance:
        raise SkipField
    return instance["crop"]


# Renders a `Crop` or a stored `FaceEmbedding`; null where it has no face.
class FaceSerializer(AnswerSerializer):
    box = BoxField(
        source="face.box", help_text=_("x, y, width, height in pixels of the upright picture")
    )
    score = ScoreField(source="face.score", help_text=_("How sure the detector is, 0 to 1"))
    landmarks = LandmarksField(
        source="face.landmarks",
        help_text=_("x, y of left eye, right eye, nose, left and right corner of the mouth"),
    )
    rotation = serializers.ChoiceField(
        source="face.rotation",
        choices=[0, 90, 180, 270],
        required=False,
        help_text=_(
            "By how many degrees the picture must be turned clockwise for the face to stand upright; box "
            "and landmarks are in the picture as it was sent."
        ),
    )
    quality = QualitySerializer(required=False)

    def get_attribute(self, instance: Any) -> Any:
        crop = _crop_of(instance)
        return crop if crop and crop.face else None


class FaceDetectedField(serializers.BooleanField):
    def get_attribute(self, instance: Any) -> bool:
        crop = _crop_of(instance)
        return bool(crop and crop.face)


class PictureQualitySerializer(QualitySerializer):
    """The quality of a picture without a face. With a face, the face has the quality."""

    def get_attribute(self, instance: Any) -> Any:
        crop = _crop_of(instance)
        if crop is None or crop.face:
            raise SkipField
        return crop.quality


# Renders the `crop` that an embedding was computed from.
class FaceDescriptionSerializer(AnswerSerializer):
    face_detected = FaceDetectedField(
        help_text=_("False: no face was found or looked for, and the whole picture was embedded.")
    )
    face = FaceSerializer(allow_null=True)
    quality = PictureQualitySerializer(
        required=False, help_text=_("Of the whole picture; only where there is no face.")
    )

    def get_fields(self) -> dict[str, serializers.Field]:
        """Put the fields of subclasses first."""
        last = FaceDescriptionSerializer._declared_fields
        return dict(sorted(super().get_fields().items(), key=lambda item: item[0] in last))


# Renders the uploaded `image` and the `crops` of its faces.
class DetectResponseSerializer(AnswerSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    faces = FaceSerializer(many=True, source="crops", help_text=_("Largest first."))
    total = serializers.SerializerMethodField()
    width = serializers.IntegerField(
        source="image.width", help_text=_("Of the upright picture, in pixels.")
    )
    height = serializers.IntegerField(source="image.height")

    def get_total(self, detection: dict[str, Any]) -> int:
        return len(detection["crops"])


class EmbeddingResponseSerializer(FaceDescriptionSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    model = serializers.CharField()
    embedding = VectorField()
    embedding_dim = serializers.IntegerField(read_only=True, default=EMBEDDING_DIM)


class FileResultSerializer(FaceDescriptionSerializer):
    """The result for one file. If it failed, `error` and `message` say why."""

    filename = serializers.CharField()
    success = serializers.SerializerMethodField()
    error = serializers.CharField(source="error.code", required=False)
    message = serializers.CharField(source="error.api_message", required=False)
    face_detected = FaceDetectedField(required=False)
    face = FaceSerializer(required=False, allow_null=True)

    def get_success(self, result: dict[str, Any]) -> bool:
        return not result.get("error")


class EmbeddingResultSerializer(FileResultSerializer):
    embedding = VectorField(required=False)


# Renders `results`, each with a file name and either its crop and vector or its error.
class _BatchSerializer(AnswerSerializer):
    model = serializers.CharField()
    results = EmbeddingResultSerializer(many=True, help_text=_("In the order of the upload."))
    total = serializers.SerializerMethodField()
    successful = serializers.SerializerMethodField()
    failed = serializers.SerializerMethodField()

    def get_total(self, batch: dict[str, Any]) -> int:
        return len(batch["results"])

    def get_successful(self, batch: dict[str, Any]) -> int:
        return self.get_total(batch) - self.get_failed(batch)

    def get_failed(self, batch: dict[str, Any]) -> int:
        return sum("error" in result for result in batch["results"])


class EmbeddingsBatchResponseSerializer(_BatchSerializer):
    success = serializers.BooleanField(read_only=True, default=True)


class EmbeddingsBatchFailureSerializer(ErrorSerializer, _BatchSerializer):
    """Every picture failed; `results` says why."""


# Renders a `LoadedNetwork`.
class RuntimeSerializer(serializers.Serializer):
    model = serializers.CharField(source="network.name")
    runtime = serializers.CharField(
        source="runtime.name",
        help_text=_("What runs it: openvino or torch, with the version; and int8 where it is."),
    )
    device = serializers.CharField()
    fallback = serializers.CharField(
        help_text=_("Why it is not the fastest runtime; empty where it is.")
    )


# Renders a `Health`.
class HealthResponseSerializer(AnswerSerializer):
    status = serializers.ChoiceField(choices=["healthy", "degraded"])
    version = serializers.CharField(help_text=_("Of this service."))
    models_loaded = serializers.SerializerMethodField()
    models_available = serializers.SerializerMethodField()
    milvus_connected = serializers.BooleanField()
    device = serializers.CharField(help_text=_("What the networks run on: cpu, cuda, unavailable."))
    runtimes = RuntimeSerializer(many=True, help_text=_("What runs each loaded network."))
    detector = serializers.CharField(
        source="detector.name",
        help_text=_("What finds faces: mtcnn, yunet, retinaface, none, or the path of another."),
    )
    detector_reason = serializers.CharField(
        source="detector.reason", help_text=_("Why it is this one.")
    )
    liveness_available = serializers.BooleanField(
        help_text=_(
            "The networks that check_liveness asks are on the server, and none failed to load."
        )
    )
    searched_in = serializers.CharField(
        help_text=_("What compares the vectors: memory (of the server), milvus_lite, milvus.")
    )
    problems = serializers.ListField(
        child=serializers.CharField(),
        help_text=_("Why the service is degraded, and what mends it."),
    )
    timestamp = serializers.DateTimeField(read_only=True, default=timezone.now, format=None)

    def get_models_loaded(self, health: Health) -> list[str]:
        return loaded_names()

    def get_models_available(self, health: Health) -> list[str]:
        return usable_names()


# Renders a `FaceNetwork`.
class ModelSerializer(serializers.Serializer):
    name = serializers.CharField()
    embedding_dim = serializers.IntegerField(read_only=True, default=EMBEDDING_DIM)
    description = serializers.CharField()
    loaded = serializers.SerializerMethodField(help_text=_("In the memory of the server."))
    weight_exists = serializers.SerializerMethodField(
        help_text=_("Its weights file is on the server.")
    )

    def get_loaded(self, network: FaceNetwork) -> bool:
        return network.name in loaded_names()

    def get_weight_exists(self, network: FaceNetwork) -> bool:
        return has_weights(network.name)


class ModelsResponseSerializer(AnswerSerializer):
    models = ModelSerializer(many=True)
    default = serializers.CharField(read_only=True, default=default_model)
