"""Readers of Brazilian Portuguese see no English text of ours, on any page and in any error."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import cache

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from enrollment.models import Doubt, FaceImage, Person, SearchEntry
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from tests.enrollment.gallery import add_vectors, enroll
from tests.pictures import draw_picture, upload
from tests.test_translations import PORTUGUESE, read_po

pytestmark = pytest.mark.django_db

PREFERRED = {"accept-language": "pt-BR,pt;q=0.9,en;q=0.5", "host": "localhost"}
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[\d.]*[a-z]")
TOLD = re.compile(r'\b(?:alt|title|placeholder|value|aria-label|data-[\w-]+)="([^"]*)"')


@cache
def english_sentences() -> re.Pattern[str]:
    """Return every text of at least two words whose Portuguese translation differs."""
    patterns = []
    for key, translation in read_po(PORTUGUESE).items():
        english = key[0] if isinstance(key, tuple) else key
        literals = [part.replace("%%", "%") for part in PLACEHOLDER.split(english.strip())]
        if " " in "".join(literals).strip() and english != translation:
            patterns.append(".{1,80}?".join(map(re.escape, literals)))
    return re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)")


def shown(markup: str) -> str:
    """Return what a reader of the page sees or hears, one line for each element."""
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", markup, flags=re.DOTALL)
    return html.unescape("\n".join([re.sub(r"<[^>]*>", "\n", markup), *TOLD.findall(markup)]))


def assert_portuguese(response) -> None:
    for wrong in (
        english_sentences(),
        re.compile(r"\d de [A-Z]\w+ de \d"),
    ):  # months are written small
        found = wrong.search(shown(response.text))
        assert found is None, found[0][:200]


@pytest.fixture
def brazilian(admin_user) -> Client:
    client = Client(headers=PREFERRED)
    client.force_login(admin_user)
    return client


@pytest.fixture
def doubtful() -> FaceImage:
    """Bia's newest picture, which looks like Ana."""
    ana, _other, picture = add_vectors({"ana": 1, "bia": 2})
    Person.objects.filter(person_id="ana").update(name="Ana")
    Doubt.objects.create(
        face_image=picture, code="looks_like_someone_else", other=ana, given=0.9, expected=0.8
    )
    return picture


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/", 200, "Quem é?"),
        ("/inbox/", 200, "Está certo assim"),
        ("/inbox/?view=list", 200, "O mais provável para cada um"),
        ("/people/", 200, "2 pessoas"),
        ("/people/new", 200, "Adicionar uma pessoa"),
        ("/people/{person}/", 200, "O rosto parece o de outra pessoa cadastrada: Ana (ana)"),
        ("/people/{person}/details", 200, "Observações"),
        ("/people/{person}/merge", 200, "Com que outro cadastro"),
        ("/people/{person}/merge?with={other}", 200, "São a mesma pessoa?"),
        ("/people/{person}/delete", 200, "2 fotos saem na hora de todas as buscas e listas"),
        ("/people/{person}/move?picture={picture}", 200, "Quem esta foto mostra"),
        ("/people/{person}/remove?picture={picture}", 200, "Apagar 1 foto"),
        ("/nothing", 404, "Não há nada aqui"),
        ("/admin/", 200, "Exame da galeria"),
        ("/admin/enrollment/person/", 200, "1 duvidosa"),
        ("/admin/enrollment/person/", 200, "Apagar pessoas"),
        ("/admin/enrollment/person/{person}/delete/", 200, "quer apagar pessoa"),
        ("/admin/enrollment/person/add/", 200, "Como outros programas identificam"),
        ("/admin/enrollment/person/{person}/change/", 200, "Fotos mais recentes"),
        ("/admin/enrollment/person/{person}/delete/", 200, "2 fotos, os arquivos"),
        ("/admin/enrollment/person/import/", 200, "importar os seguintes campos"),
        ("/admin/enrollment/person/export/", 200, "Serão exportados os seguintes campos"),
        ("/admin/enrollment/faceimage/", 200, "encontrável"),
        ("/admin/enrollment/faceimage/{picture}/change/", 200, "impressão digital dos pesos"),
        ("{report}", 200, "A galeria ainda não foi examinada."),
        ("/admin/enrollment/searchentry/", 200, "página de busca"),
        ("/admin/enrollment/searchentry/{search}/change/", 200, "Quantas fotos cadastradas"),
        ("/api/docs", 200, "API de reconhecimento facial"),
        ("/api/persons", 200, "Quem está cadastrado."),
        ("/api/persons/bia", 200, "Sim, apagar."),
        ("/api/milvus/search", 405, "preencha o formulário abaixo"),
    ],
)
def test_pages_are_portuguese(brazilian, doubtful, path, status, sentence):
    names = {"person": doubtful.person_id, "other": Person.objects.get(person_id="ana").pk}
    names["search"] = SearchEntry.objects.create(
        channel="page", model="mobilenetv3_large", person=doubtful.person, similarity=0.9, answers=3,
        decision="match",
    ).pk  # fmt: skip
    url = path.format(picture=doubtful.pk, report=reverse("admin:enrollment_audit"), **names)
    accept = "text/html,application/xhtml+xml" if path.startswith("/api/") else "*/*"
    response = brazilian.get(url, headers={"accept": accept})
    assert response.status_code == status
    assert response.headers["Content-Language"] == "pt-br"
    assert sentence.lower() in html.unescape(response.text).lower()
    assert_portuguese(response)


def descriptions(document: object) -> Iterator[str]:
    """Return the descriptions in an OpenAPI document; its examples are in English."""
    if isinstance(document, list):
        for part in document:
            yield from descriptions(part)
    elif isinstance(document, dict):
        if isinstance(text := document.get("description"), str):
            yield text
        for name, part in document.items():
            if name != "examples":
                yield from descriptions(part)


def test_the_description_of_the_api_is_portuguese(brazilian):
    told = list(descriptions(brazilian.get("/api/schema?format=json").json()))
    assert "A similaridade de cosseno: quanto maior, mais parecidas." in told
    assert not [text for text in told if english_sentences().search(text)]


def test_a_search_is_portuguese(brazilian, weights):
    photo = as_jpeg(draw_face(PEOPLE[0]))
    enroll("ana", photo, use_face_detection=True)
    form = {"model": "mobilenetv3_large", "top_k": 5}
    response = brazilian.post("/", form | {"images": upload(photo)})
    assert "similaridade 1,000" in response.text
    assert_portuguese(response)


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({}, "Nenhuma foto foi escolhida."),
        ({"images": SimpleUploadedFile("a.jpg", b"no picture")}, "O arquivo não é uma foto"),
        ({"images": SimpleUploadedFile("a.jpg", draw_picture())}, "Nenhum rosto foi encontrado"),
    ],
    ids=["nothing chosen", "no picture", "no face"],
)
def test_a_failed_search_is_portuguese(brazilian, form, sentence):
    response = brazilian.post("/", {"model": "mobilenetv3_large", "top_k": 5} | form)
    assert sentence in response.text
    assert_portuguese(response)


def test_the_login_is_portuguese(client):
    answer = client.post("/login", {"username": "ana", "password": "x"}, headers=PREFERRED)
    assert '<html lang="pt-br">' in answer.text
    # Django's own sentence, and ours.
    assert "Note que ambos os campos diferenciam maiúsculas e minúsculas." in answer.text
    assert "só quem tem uma conta pode buscar nela" in answer.text
    assert_portuguese(answer)


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "sentence"),
    [
        ("post", "/api/milvus/insert", {}, 400, "person_id: Falta o id da pessoa."),
        ("get", "/api/models", {"host": "elsewhere.example"}, 400, "A requisição foi recusada"),
        ("get", "/api/models", {"authorization": "Token x"}, 401, "Nenhuma conta tem este token"),
        ("get", "/api/nothing", {}, 404, "Não há nada em /api/nothing."),
        ("post", "/api/embedding", {"content-length": "99999999"}, 413, "é maior que os 50 MB"),
        ("post", "/api/embedding", {"content-type": "text/csv"}, 415, "O tipo de conteúdo"),
    ],
)
def test_errors_are_portuguese(client, method, path, options, status, sentence):
    if "content-type" in options:
        response = client.generic("POST", path, b"a;b", "text/csv", headers=PREFERRED)
    else:
        response = client.generic(method.upper(), path, headers=PREFERRED | options)
    assert response.status_code == status
    assert sentence in response.json()["message"]
    assert_portuguese(response)


def test_missing_weights_are_told_in_portuguese(client, no_weights):
    form = {"image": upload(draw_picture())}
    response = client.post("/api/embedding", form, headers=PREFERRED)
    assert response.status_code == 503
    assert "não tem pesos neste servidor" in response.json()["message"]
    assert_portuguese(response)


def test_an_absent_vector_database_is_told_in_portuguese(client, weights, no_store):
    form = {"image": upload(draw_picture())}
    response = client.post("/api/milvus/search", form, headers=PREFERRED)
    assert response.status_code == 503
    assert "MILVUS_URI indica um arquivo" in response.json()["message"]
    assert_portuguese(response)
