"""Types of the API's answers. Answers may contain further fields."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

Decision = str | None  # match, review, unknown; None: no face, or weights without thresholds


class Health(TypedDict):
    status: str  # healthy or degraded
    version: str  # of the service
    models_loaded: list[str]
    models_available: list[str]
    milvus_connected: bool
    device: str
    liveness_available: bool
    searched_in: str  # memory, milvus_lite or milvus
    problems: list[str]
    timestamp: str


class Model(TypedDict):
    name: str
    embedding_dim: int
    description: str
    loaded: bool
    weight_exists: bool


class Models(TypedDict):
    models: list[Model]
    default: str


class Face(TypedDict):
    """A detected face, in pixels.

    `box` is x, y, width, height; `landmarks` are both eyes, the nose and both mouth corners as x,
    y. `rotation` (0, 90, 180 or 270 degrees) is how far the picture must be turned clockwise for
    the face to be upright.
    """

    box: list[float]
    score: float
    landmarks: list[list[float]]
    rotation: NotRequired[int]
    quality: dict[str, Any]


class Detection(TypedDict):
    success: bool
    total: int
    width: int
    height: int
    faces: list[Face]


class Embedding(TypedDict):
    """`embedding` has 512 numbers and length 1."""

    success: bool
    model: str
    embedding: list[float]
    embedding_dim: int
    face_detected: bool
    face: Face | None


class BatchResult(TypedDict):
    filename: str
    success: bool
    embedding: NotRequired[list[float]]
    error: NotRequired[str]
    message: NotRequired[str]
    face_detected: NotRequired[bool]
    face: NotRequired[Face | None]


class Embeddings(TypedDict):
    success: bool
    model: str
    results: list[BatchResult]
    total: int
    successful: int
    failed: int


class InsertResult(TypedDict):
    filename: str
    success: bool
    stored: bool
    searchable: bool
    id: NotRequired[int]
    error: NotRequired[str]
    message: NotRequired[str]
    warnings: NotRequired[list[dict[str, Any]]]


class Insertion(TypedDict):
    success: bool
    message: str
    inserted_count: int
    collection: str
    model: str
    person_id: str
    merged_into: NotRequired[str]  # who got the pictures, because the id was merged
    results: list[InsertResult]


class Hit(TypedDict):
    """`distance` is the cosine similarity, like `similarity`: higher is more similar."""

    id: int
    person_id: str
    person_name: str
    image_path: str
    image_url: str
    created_at: str
    distance: float
    similarity: float
    decision: Decision


class SearchResult(TypedDict):
    """The result for the largest face; `faces` has every face if all were requested."""

    success: bool
    model: str
    results: list[Hit]
    total: int
    decision: Decision
    face_detected: bool
    face: Face | None
    faces: NotRequired[list[dict[str, Any]]]
    answer_number: NotRequired[str]  # where searched faces are kept; for feedback


class Verification(TypedDict):
    """`threshold` and `verified` are None for weights without measured thresholds.

    `similarity` is None for an account that may not browse, unless the face resembles the person.
    """

    success: bool
    similarity: float | None
    threshold: float | None
    verified: bool | None
    decision: Decision
    message: str
    model: str
    source: dict[str, Any]
    target: dict[str, Any]


class Stats(TypedDict):
    success: bool
    collection: str
    row_count: int


class Person(TypedDict):
    person_id: str
    name: str
    notes: str
    legal_basis: str
    keep_until: str | None  # the last day, as 2027-12-31
    picture_count: int
    cover: int | None
    cover_url: str | None
    created_at: str
    updated_at: str
    url: str
    undo: NotRequired[int | None]  # of a merge
    undo_until: NotRequired[str | None]


class Job(TypedDict):
    """An import; `state` is checking, ready, running, paused, failed, done or cancelled."""

    id: int
    state: str
    source: str  # zip, watched or folder
    label: str
    who: str
    error: str  # why it has stopped
    counts: dict[str, int]  # enrolled, skipped, refused, ignored, left
    seconds_left: float | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    undo: int | None
    undo_until: str | None
    undone_at: str | None


class JobFile(TypedDict):
    path: str
    person_id: str
    status: str  # enrolled, skipped, refused, ignored
    is_done: bool  # False: it is what will become of it
    code: str
    reason: str
    warnings: list[str]
    face_detected: bool | None
    searchable: bool
    candidates: list[dict[str, Any]]
    inbox: str | None  # key of its card


class JournalPerson(TypedDict):
    person: int  # stays when the person is erased
    role: str  # "": acted on; from, merged or shown
    person_id: str | None  # None: erased
    name: str | None
    before: dict[str, Any]
    after: dict[str, Any]


class JournalLine(TypedDict):
    chain: str
    number: int
    at: str
    action: str
    in_words: str
    who: str
    kind: str
    via: str
    address: str
    channel: str
    request_id: str
    facts: dict[str, Any]
    persons: list[JournalPerson]
    hash: str


class Picture(TypedDict):
    id: int
    person_id: str
    url: str
    original_path: str
    source: str
    width: int
    height: int
    is_cover: bool
    created_at: str
    quality: dict[str, Any] | None
    embeddings: list[dict[str, Any]]
    warnings: list[dict[str, Any]]
    undo: NotRequired[int | None]  # of a move
    undo_until: NotRequired[str | None]


class Consent(TypedDict):
    id: int
    day: str  # as 2026-11-27
    expires: str | None
    purposes: list[str]
    document: str  # its file name; empty without one
    is_in_force: bool
    created_at: str


class TrashItem(TypedDict):
    """An act that can be undone; `kind` is person, pictures, move, merge, import or settled."""

    id: int
    kind: str
    label: str
    person_ids: list[str]
    pictures: int
    created_at: str
    undo_until: str


class Undone(TypedDict):
    success: bool
    person_ids: list[str]
    pictures: int


class Receipt(TypedDict):
    """The signed receipt of an erasure: keep it, nobody else has it."""

    receipt: dict[str, Any]
    public_key: str
    signature: str


class Candidate(TypedDict):
    """Who it may be, with their most similar picture."""

    person_id: str
    person_name: str
    image_url: str | None
    similarity: float
    decision: Decision


class Card(TypedDict):
    """One thing in the inbox; `kind` is probe, doubt, pair or file."""

    key: str
    kind: str
    why: str
    at: str
    who: str
    actions: list[str]
    likeliest: str | None
    size: int  # faces that look like the same stranger
    person_id: NotRequired[str]  # whose the doubted picture is
    image_url: str | None
    candidates: list[Candidate]
    problem: str  # why the face could not be compared: nobody is named then


class Settled(TypedDict):
    success: bool
    settled: int
    pictures: int
    person_id: str | None
    undo: int | None
    undo_until: str | None


class Feedback(TypedDict):
    success: bool
    person_id: str
    verdict: str
    similarity: float
    decision: Decision
