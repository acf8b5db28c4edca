"""The OpenAPI document is valid, works offline, and describes the real answers."""

from __future__ import annotations

import io
import re
import zipfile
from contextlib import nullcontext

import jsonschema
import pytest
import yaml
from django.contrib.staticfiles import finders
from django.core.management import call_command

from tests.pictures import draw_picture, upload

pytestmark = pytest.mark.django_db

OPERATIONS = {
    "get /api/health": "health",
    "get /api/models": "models",
    "post /api/detect": "detect",
    "post /api/embedding": "embedding",
    "post /api/embeddings/batch": "embeddings_batch",
    "post /api/milvus/insert": "milvus_insert",
    "post /api/milvus/search": "milvus_search",
    "get /api/milvus/stats": "milvus_stats",
    "post /api/verify": "verify",
}


@pytest.fixture(scope="module")
def document() -> dict:
    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    return yaml.safe_load(out.getvalue())


def operations(document: dict) -> dict[str, dict]:
    return {
        f"{method} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_every_call_is_described_once_and_keeps_its_name(document):
    names = {call: op["operationId"] for call, op in operations(document).items()}
    assert names | OPERATIONS == names
    assert not [path for path in document["paths"] if path.endswith("/")]


def test_a_token_is_given_alone(document):
    """It had to be typed behind the word Token, of which no generated client knew."""
    scheme = document["components"]["securitySchemes"]["tokenAuth"]
    assert scheme == {"type": "http", "scheme": "bearer"}


def test_pictures_are_binary_parts_of_a_form(document):
    for call in ("post /api/embedding", "post /api/milvus/insert"):
        content = operations(document)[call]["requestBody"]["content"]
        assert list(content) == ["multipart/form-data"]
        assert content["multipart/form-data"]["examples"]
    forms = document["components"]["schemas"]
    binary = {"type": "string", "format": "binary"}
    image = forms["EmbeddingFormRequest"]["properties"]["image"]
    images = forms["InsertFormRequest"]["properties"]["images"]
    assert image.items() >= binary.items()
    assert images["type"] == "array" and images["items"].items() >= binary.items()
    assert set(forms["InsertFormRequest"]["required"]) == {"images", "person_id"}


def test_every_call_says_in_one_line_what_it_does(document):
    for call, operation in operations(document).items():
        assert operation["summary"] and not operation["summary"].endswith("."), call
    batch = operations(document)["post /api/embeddings/batch"]
    assert batch["summary"] == "The embeddings of many pictures"
    assert batch["description"] == "A picture that fails does not stop the others."


@pytest.mark.parametrize(
    ("form", "first"),
    [
        ("EmbeddingFormRequest", ["image"]),
        ("EmbeddingsBatchFormRequest", ["images"]),
        ("InsertFormRequest", ["images", "person_id"]),
        ("PicturesFormRequest", ["images"]),
        ("SearchFormRequest", ["image", "embedding"]),
        ("DetectFormRequest", ["image"]),
    ],
)
def test_forms_ask_for_the_picture_before_the_options(document, form, first):
    fields = list(document["components"]["schemas"][form]["properties"])
    assert fields[: len(first)] == first


def test_every_call_shows_an_answer_and_its_errors(document):
    for call, operation in operations(document).items():
        if call not in OPERATIONS:
            continue
        answer = operation["responses"]["200"]["content"]["application/json"]
        assert answer["examples"], call
        if call.startswith("post"):
            expected = {"400", "401", "413", "415", "422", "503"}
            if call == "post /api/detect":  # a picture without a face is no error
                expected.remove("422")
            assert expected <= set(operation["responses"]), call


def test_examples_fit_their_schemas(document):
    for operation in operations(document).values():
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                for example in content.get("examples", {}).values():
                    check(document, content["schema"], shortened_vectors_filled(example["value"]))


def test_defaults_fit_their_schemas(document):
    """Generators of clients leave out calls of which a default is not among the known words."""
    for schema in schemas_with_defaults(document):
        check(document, schema, schema["default"])


def schemas_with_defaults(node):
    if isinstance(node, list):
        node = dict(enumerate(node))
    if isinstance(node, dict):
        if "default" in node:
            yield node
        for item in node.values():
            yield from schemas_with_defaults(item)


def shortened_vectors_filled(value):
    """Return the example with 512 numbers in place of the few shown."""
    if isinstance(value, dict):
        return {
            key: item[:1] * 512 if key == "embedding" else shortened_vectors_filled(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [shortened_vectors_filled(item) for item in value]
    return value


def check(document: dict, schema: dict, value: object) -> None:
    """Validate against the JSON Schema; OpenAPI 3.0's `nullable` becomes `anyOf`."""
    whole = resolve_nullable({**schema, "components": document["components"]})
    jsonschema.validate(value, whole)


def resolve_nullable(node):
    if isinstance(node, list):
        return [resolve_nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: resolve_nullable(item) for key, item in node.items()}
    if node.pop("nullable", False):
        return {"anyOf": [node, {"type": "null"}]}
    return node


def call_all(api, photo: bytes) -> dict[str, object]:
    """Return one real answer of each endpoint."""
    files = [upload(photo), upload(b"", "empty.jpg"), upload(draw_picture(), "wall.jpg")]
    return {
        "post /api/milvus/insert": api.post(
            "/api/milvus/insert", {"images": files, "person_id": "ana"}
        ),
        "post /api/milvus/search": api.post(
            "/api/milvus/search", {"image": upload(photo), "all_faces": "true"}
        ),
        "post /api/detect": api.post("/api/detect", {"image": upload(photo)}),
        "post /api/verify": api.post(
            "/api/verify", {"source_image": upload(photo), "person_id": "ana"}
        ),
        "post /api/embedding": api.post("/api/embedding", {"image": upload(photo)}),
        "post /api/embeddings/batch": api.post(
            "/api/embeddings/batch", {"images": [upload(photo), upload(b"", "empty.jpg")]}
        ),
        "get /api/health": api.get("/api/health"),
        "get /api/models": api.get("/api/models"),
        "get /api/milvus/stats": api.get("/api/milvus/stats"),
    }


def test_real_answers_fit_the_document(api, document, faces):
    photo = next((faces / "Ann_Veneman").iterdir()).read_bytes()
    for call, response in call_all(api, photo).items():
        assert response.status_code == 200, response.content
        described = operations(document)[call]["responses"]["200"]["content"]["application/json"]
        check(document, described["schema"], response.json())
        name = described["schema"]["$ref"].rpartition("/")[2]
        undescribed = set(response.json()) - set(
            document["components"]["schemas"][name]["properties"]
        )
        assert not undescribed, call


def test_real_failures_fit_the_document(api, document):
    for path in ("/api/embeddings/batch", "/api/milvus/insert"):
        for form, status in (({}, "400"), ({"images": upload(b""), "person_id": "x"}, "422")):
            response = api.post(path, form)
            assert response.status_code == int(status)
            described = operations(document)[f"post {path}"]["responses"][status]
            check(document, described["content"]["application/json"]["schema"], response.json())


@pytest.mark.parametrize("address", ["/api", "/api/"])
def test_a_browser_at_the_root_is_shown_the_calls(api, address):
    page = api.get(
        address, headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}, follow=True
    )
    assert page.request["PATH_INFO"] == "/api/docs"


@pytest.mark.parametrize("address", ["/api", "/api/"])
def test_a_program_at_the_root_is_told_the_calls(api, address, document):
    response = api.get(address, REMOTE_ADDR="10.0.0.7")  # as open as the document

    body = response.json()
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")
    calls = {f"{call['method'].lower()} {call['path']}" for call in body["calls"]}
    assert calls == set(operations(document))
    assert all(call["summary"] for call in body["calls"])
    assert (body["docs"], body["schema"]) == (
        "http://localhost/api/docs",
        "http://localhost/api/schema",
    )


def test_what_stands_in_warnings_is_described(api, document, faces):
    """Answers used to have `warnings` that their schemas did not describe."""
    photo = next((faces / "Ann_Veneman").iterdir()).read_bytes()
    calls = operations(document)
    for call in [name for name, operation in calls.items() if "requestBody" in operation]:
        for response in calls[call]["responses"].values():
            name = response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            assert "warnings" in document["components"]["schemas"][name]["properties"], (call, name)
    for path, form in {
        "/api/embedding": {"image": upload(photo)},
        "/api/detect": {"image": upload(photo)},
        "/api/milvus/insert": {"images": [upload(photo)], "person_id": "ana"},
        "/api/milvus/search": {},
    }.items():
        response = api.post(path, form | {"topk": 3})
        described = calls[f"post {path}"]["responses"][str(response.status_code)]
        schema = described["content"]["application/json"]["schema"]
        assert "topk" in response.json()["warnings"][0]
        check(document, schema, response.json())
        name = schema["$ref"].rpartition("/")[2]
        fields = document["components"]["schemas"][name]["properties"]
        assert fields["warnings"]["items"] == {"type": "string"}
        assert set(response.json()) <= set(fields)


def test_a_change_of_nothing_is_refused_as_described(api, document):
    api.post("/api/persons", {"person_id": "ana"}, format="json")
    schema = {"$ref": "#/components/schemas/PersonChangeRequest"}
    for change, status in (({"name": "Ana"}, 200), ({"cover": None}, 200), ({}, 400)):
        assert api.patch("/api/persons/ana", change, format="json").status_code == status
        with pytest.raises(jsonschema.ValidationError) if status == 400 else nullcontext():
            check(document, schema, change)


def test_what_every_quality_has_is_promised(document):
    quality = document["components"]["schemas"]["Quality"]
    assert set(quality["required"]) == set(quality["properties"])


def test_the_document_is_served(api):
    response = api.get("/api/schema")
    assert response.status_code == 200
    assert yaml.safe_load(response.content)["openapi"].startswith("3.")


def test_the_page_of_the_document_loads_nothing_from_elsewhere(api):
    page = api.get("/api/docs", headers={"accept": "text/html"})
    html = page.content.decode()
    assert page.status_code == 200
    assert "swagger-ui-bundle.js" in html
    assert not re.findall(r"(?:src|href)=[\"'](?:https?:)?//", html)
    for asset in re.findall(r"/static/([^\"'?]+)", html):
        assert finders.find(asset), asset


def test_every_call_describes_the_errors_that_any_call_may_answer(document):
    for call, operation in operations(document).items():
        expected = {"400", "500"} | ({"503"} if "401" in operation["responses"] else set())
        expected |= {"413", "415"} if "requestBody" in operation else set()
        assert expected <= set(operation["responses"]), call
    for call in ("post /api/feedback", "post /api/inbox/{key}", "get /api/inbox/{key}/face"):
        assert "410" in operations(document)[call]["responses"]


def test_every_list_is_described_as_the_page_that_it_is(api, document):
    """The imports and the journal were described as a page of pages, without `success`."""
    api.post("/api/persons", {"person_id": "ana"}, format="json")
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
        archive.writestr("ana/1.jpg", draw_picture())
    api.post("/api/jobs", {"archive": upload(packed.getvalue(), "faces.zip")})
    for path in ("persons", "jobs", "journal", "trash", "inbox"):
        answer = api.get(f"/api/{path}")
        operation = operations(document)[f"get /api/{path}"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        check(document, schema, answer.json())
        page = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        assert set(answer.json()) == set(page["properties"]), path
    assert api.get("/api/jobs").json()["count"] and api.get("/api/journal").json()["count"]
