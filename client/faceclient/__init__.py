"""Typed client of the face recognition API."""

from faceclient.answers import (
    BatchResult,
    Detection,
    Embedding,
    Embeddings,
    Face,
    Health,
    Hit,
    Insertion,
    InsertResult,
    Model,
    Models,
    Person,
    Picture,
    SearchResult,
    Stats,
    Verification,
)
from faceclient.client import FaceApiError, FaceClient, Image

__all__ = [
    "BatchResult",
    "Detection",
    "Embedding",
    "Embeddings",
    "Face",
    "FaceApiError",
    "FaceClient",
    "Health",
    "Hit",
    "Image",
    "InsertResult",
    "Insertion",
    "Model",
    "Models",
    "Person",
    "Picture",
    "SearchResult",
    "Stats",
    "Verification",
]
