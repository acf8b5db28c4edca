"""What the calls about pictures and models read, and what they answer."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from recognition.api.fields import FlagField, ImageField, ImagesField, ModelField, NumberField
from recognition.networks.registry import EMBEDDING_DIM


class _OptionsLast(serializers.Serializer):
    """A form in which what the call is about stands before the options that many calls share."""

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
    """Which faces of a picture count; what is left out is as the settings say."""

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


class DetectFormSerializer(FaceOptionsSerializer):
    image = ImageField(help_text=_("One picture: JPEG, PNG, WebP, HEIC, AVIF, BMP or TIFF."))


class ProbeOptionsSerializer(ImageOptionsSerializer, FaceOptionsSerializer):
    """How a picture is read that is asked about and not kept."""


class EmbeddingFormSerializer(ProbeOptionsSerializer):
    image = ImageField(help_text=_("One picture: JPEG, PNG, WebP, HEIC, AVIF, BMP or TIFF."))


class EmbeddingsBatchFormSerializer(ProbeOptionsSerializer):
    images = ImagesField(help_text=_("Pictures: JPEG, PNG, WebP, HEIC, AVIF, BMP or TIFF."))


class ErrorSerializer(serializers.Serializer):
    """The body of every error."""

    success = serializers.BooleanField(help_text="false")
    error = serializers.CharField(help_text=_("A code that stays the same in every language."))
    message = serializers.CharField(
        help_text=_("What was given, what was expected, what to do; in the client's language.")
    )
    fields = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text=_("What is wrong with each field of the request."),
    )


class QualityReasonSerializer(serializers.Serializer):
    code = serializers.CharField(help_text=_("Stays the same in every language."))
    message = serializers.CharField(
        help_text=_("What was measured, what was expected, what to do; in the client's language.")
    )


class QualitySerializer(serializers.Serializer):
    """How fit a face is to be recognised; null where there was no face to measure."""

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
    reasons = QualityReasonSerializer(many=True, help_text=_("To doubt it; none when it is good."))


class FaceSerializer(serializers.Serializer):
    box = serializers.ListField(
        child=serializers.FloatField(),
        min_length=4,
        max_length=4,
        help_text=_("x, y, width, height in pixels of the upright picture"),
    )
    score = serializers.FloatField(help_text=_("How sure the detector is, 0 to 1"))
    landmarks = serializers.ListField(
        child=serializers.ListField(child=serializers.FloatField(), min_length=2, max_length=2),
        min_length=5,
        max_length=5,
        help_text=_("x, y of left eye, right eye, nose, left and right corner of the mouth"),
    )
    rotation = serializers.ChoiceField(
        choices=[0, 90, 180, 270],
        required=False,
        help_text=_(
            "By how many degrees the picture must be turned clockwise for the face to stand upright; box "
            "and landmarks are in the picture as it was sent."
        ),
    )
    quality = QualitySerializer()


class FaceDescriptionSerializer(serializers.Serializer):
    face_detected = serializers.BooleanField(
        help_text=_("False: no face was found or looked for, and the whole picture was embedded.")
    )
    face = FaceSerializer(allow_null=True)
    quality = QualitySerializer(
        required=False, help_text=_("Of the whole picture; only where there is no face.")
    )


class DetectResponseSerializer(serializers.Serializer):
    success = serializers.BooleanField()
    faces = FaceSerializer(many=True, help_text=_("Largest first."))
    total = serializers.IntegerField()
    width = serializers.IntegerField(help_text=_("Of the upright picture, in pixels."))
    height = serializers.IntegerField()


class VectorField(serializers.ListField):
    """512 numbers, together of length 1."""

    child = serializers.FloatField()

    def __init__(self, **kwargs: object) -> None:
        super().__init__(min_length=EMBEDDING_DIM, max_length=EMBEDDING_DIM, **kwargs)


class EmbeddingResponseSerializer(FaceDescriptionSerializer):
    success = serializers.BooleanField()
    model = serializers.CharField()
    embedding = VectorField()
    embedding_dim = serializers.IntegerField()


class FileResultSerializer(FaceDescriptionSerializer):
    """What became of one file; `error` and `message` say why it failed."""

    filename = serializers.CharField()
    success = serializers.BooleanField()
    error = serializers.CharField(required=False)
    message = serializers.CharField(required=False)
    face_detected = serializers.BooleanField(required=False)
    face = FaceSerializer(required=False, allow_null=True)


class EmbeddingResultSerializer(FileResultSerializer):
    embedding = VectorField(required=False)


class EmbeddingsBatchResponseSerializer(serializers.Serializer):
    success = serializers.BooleanField()
    model = serializers.CharField()
    results = EmbeddingResultSerializer(many=True, help_text=_("In the order of the upload."))
    total = serializers.IntegerField()
    successful = serializers.IntegerField()
    failed = serializers.IntegerField()


class EmbeddingsBatchFailureSerializer(ErrorSerializer):
    """Every picture failed; `results` tells why."""

    model = serializers.CharField()
    results = EmbeddingResultSerializer(many=True)
    total = serializers.IntegerField()
    successful = serializers.IntegerField()
    failed = serializers.IntegerField()


class HealthResponseSerializer(serializers.Serializer):
    status = serializers.ChoiceField(choices=["healthy", "degraded"])
    models_loaded = serializers.ListField(child=serializers.CharField())
    models_available = serializers.ListField(child=serializers.CharField())
    milvus_connected = serializers.BooleanField()
    device = serializers.CharField(help_text=_("What the networks run on: cpu, cuda, unavailable."))
    problems = serializers.ListField(
        child=serializers.CharField(),
        help_text=_("Why the service is degraded, and what mends it."),
    )
    timestamp = serializers.DateTimeField()


class ModelSerializer(serializers.Serializer):
    name = serializers.CharField()
    embedding_dim = serializers.IntegerField()
    description = serializers.CharField()
    loaded = serializers.BooleanField(help_text=_("In the memory of the server."))
    weight_exists = serializers.BooleanField(help_text=_("Its weights file is on the server."))


class ModelsResponseSerializer(serializers.Serializer):
    models = ModelSerializer(many=True)
    default = serializers.CharField()
