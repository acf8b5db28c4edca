"""How serializers answer."""

from __future__ import annotations

import gc
import weakref

import numpy as np
from django.test import RequestFactory
from rest_framework import serializers

from recognition.api.answers import AnswerSerializer, LandmarksField, VectorField


class Answer(AnswerSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    vector = VectorField(required=False)
    landmarks = LandmarksField(required=False)
    name = serializers.CharField(required=False)
    day = serializers.DateField(allow_null=True)


def test_what_is_none_is_left_out_unless_it_may_be_null():
    assert Answer.answer({"name": None, "day": None}) == {"success": True, "day": None}


def test_arrays_become_numbers_of_json():
    answer = Answer.answer(
        {
            "day": None,
            "vector": np.float32([0.5, 0.25]),
            "landmarks": np.float32([[1.234, 2], [3, 4]]),
        }
    )
    assert answer["vector"] == [0.5, 0.25]
    assert answer["landmarks"] == [[1.23, 2.0], [3.0, 4.0]]


def test_the_request_is_not_kept_with_its_files():
    request = RequestFactory().get("/")
    kept = weakref.ref(request)
    Answer.answer({"day": None}, request)
    del request
    gc.collect()
    assert kept() is None
