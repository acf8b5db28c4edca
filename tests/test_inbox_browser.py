"""An operator's day in a real browser: import, search, settle the whole inbox by keyboard, without a
script, and by touch."""

from __future__ import annotations

import io
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from django.core.cache import cache
from django.db.models import QuerySet
from PIL import Image

from enrollment import inbox
from enrollment.corrections import undo
from enrollment.exceptions import NotUndoable
from enrollment.models import Doubt, JournalEntry, Person, Probe, TrashItem
from tests import browsing
from tests.browsing import IN_A_BROWSER, expect, look_at, playwright
from tests.conftest import FACES_DIR
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from tests.enrollment.gallery import add_vectors, set_thresholds

browser, open_page = browsing.browser, browsing.open_page  # fixtures
pytestmark = IN_A_BROWSER

PHOTOS = FACES_DIR / "photos"  # a folder a person, of real people: they may not be committed
ENROLLED, SEARCHED, STRANGERS = 30, 14, 5
PHONE = {"width": 390, "height": 844}
OF_ACTS = (
    *("settled", "discarded", "doubts_dismissed", "kept_apart"),
    *("pictures_moved", "pictures_deleted", "merged"),
)
MOST_ACTS = 150  # what a day may take at most, so that it ends
# The key of the card in front, once for each time it comes there, or "" once nothing waits here or on the
# way; null while something is on the way.
NEXT = """() => {
    const card = document.querySelector("#deck > .card:not([hidden])");
    if (!card) return document.querySelector("#nothing").hidden ? null : [""];
    if (card.dataset.seen) return null;
    card.dataset.seen = "1";
    return [card.dataset.key];
}"""

# The median and the longest time of the acts' answers.
ANSWERED = """() => {
    const all = performance.getEntriesByType("resource").filter((each) => each.initiatorType === "fetch");
    const times = all.filter(({ name }) => name.includes("/inbox/")).map(({ duration }) => duration);
    times.sort((one, other) => one - other);
    return [times[times.length >> 1], times.at(-1), times.length].map(Math.round).join(", ");
}"""


def photos_of_people() -> list[list[bytes]]:
    """Return two photos of each of 35 real people, or of the three drawn ones."""
    if not PHOTOS.is_dir():
        return [[as_jpeg(draw_face(seed, shot)) for shot in range(2)] for seed in PEOPLE]
    folders = sorted(folder for folder in PHOTOS.iterdir() if folder.is_dir())
    shots = [sorted(folder.glob("*.jpg"))[:2] for folder in folders]
    chosen = [each for each in shots if len(each) == 2][: ENROLLED + STRANGERS]
    return [[path.read_bytes() for path in each] for each in chosen]


def in_a_row(pictures: list[bytes]) -> bytes:
    images = [Image.open(io.BytesIO(each)).convert("RGB") for each in pictures]
    whole = Image.new("RGB", (sum(each.width for each in images), images[0].height))
    for at, image in enumerate(images):
        whole.paste(image, (at * image.width, 0))
    return as_jpeg(whole)


@pytest.fixture(scope="module")
def day(tmp_path_factory) -> tuple[Path, list[Path]]:
    """The ZIP of the day, with three errors in it, and the photos that are searched."""
    folder = tmp_path_factory.mktemp("day")
    people = photos_of_people()
    strangers = people[-min(STRANGERS, len(people) // 3) :]
    known = people[: -len(strangers)]
    with zipfile.ZipFile(folder / "people.zip", "w") as archive:
        for number, (first, _second) in enumerate(known):
            archive.writestr(f"p{number:02}/1.jpg", first)
        archive.writestr("again/1.jpg", known[0][1])  # enrolled twice
        archive.writestr("p01/2.jpg", known[0][0])  # somebody else's: and the very same file
        archive.writestr("p00/empty.jpg", as_jpeg(Image.new("RGB", (300, 300), "grey")))
    searched = [second for _first, second in known[:SEARCHED]]
    searched += [first for first, _second in strangers]
    searched.append(in_a_row([known[-1][1], strangers[0][1], known[0][1]]))
    paths = [folder / f"{number:02}.jpg" for number in range(len(searched))]
    for path, content in zip(paths, searched, strict=True):
        path.write_bytes(content)
    return folder / "people.zip", paths


class Operator:
    """Somebody who believes what is likeliest, and names strangers."""

    named = 0

    def __init__(self, page: playwright.Page) -> None:
        self.page, self.acts = page, 0
        self.card = page.locator("#deck > .card:not([hidden])")

    def next_one(self) -> str:
        """Wait for the next card, which may be the same again if it was refused; return its key, or ""
        when nothing waits any more."""
        try:
            return self.page.wait_for_function(NEXT).json_value()[0]
        except playwright.TimeoutError:
            inbox = self.page.locator("#inbox").inner_text()
            pytest.fail(f"After act {self.acts} no card came. {self.page.faults} {inbox}")

    def sees(self, key: str) -> None:
        expect(self.card).to_have_attribute("data-key", key)

    def settle_all(self, *, by_touch: bool = False) -> float:
        """Settle until nothing waits; return how many were settled a second."""
        began, before = time.monotonic(), self.acts
        key = self.next_one()
        while key and self.acts - before < MOST_ACTS:
            self.touch() if by_touch else self.press()
            self.acts += 1
            key = self.next_one()
        assert not key, self.page.locator("#said").inner_text()
        return (self.acts - before) / (time.monotonic() - began)

    def press(self) -> None:
        press = self.page.keyboard.press
        if self.card.locator(".likeliest:is(summary)").count():
            press("n")
            self.page.keyboard.type(self.name())
        press("Enter")

    def touch(self) -> None:
        # So soon after the last one a tap in its place is the second half of a double one.
        self.page.touchscreen.tap(1, 1)
        likeliest = self.card.locator(".likeliest")
        names_somebody = likeliest.evaluate("each => each.matches('summary')")
        likeliest.tap()
        if names_somebody:
            self.card.locator("[name=person_id]").fill(self.name())
            self.card.locator(".newcomer [value=new]").tap()

    def name(self) -> str:
        Operator.named += 1
        return f"stranger-{self.named}"

    def undo(self, *, by_touch: bool = False) -> None:
        self.page.evaluate("document.querySelector('#said').replaceChildren()")
        if by_touch:
            self.page.locator("#undo-last button").tap()
        else:
            self.page.keyboard.press("z")
        expect(self.page.locator("#said .success")).to_be_visible()


def log_in(page: playwright.Page) -> None:
    page.locator("#id_username").fill("admin")
    page.locator("#id_password").fill("password")
    page.keyboard.press("Enter")
    page.wait_for_url("**/people/import")


def waiting() -> set[str]:
    return {card.key for card in inbox.cards(limit=99)}


def undo_all(items: QuerySet[TrashItem]) -> None:
    """Undo these acts, the newest first.

    A doubt is deleted with the other picture that it names, which a later act may have put away: of the
    act on that doubt nothing is left, and it comes back when its picture is judged again.
    """
    for item in items.order_by("-pk"):
        with suppress(NotUndoable):
            undo(item)
    cache.clear()  # of the number of cards


def requests_of(lines: QuerySet[JournalEntry]) -> int:
    """Return how many acts these lines of the journal tell of: each was one request."""
    return lines.filter(action__in=OF_ACTS).values("request_id").distinct().count()


def settle_without_a_script(page: playwright.Page) -> None:
    """Settle all that have a likely answer together, and undo that."""
    success = page.locator("#said .success")
    first = page.locator("input[name=key]").first.get_attribute("value")
    page.locator("[value=likeliest]").click()
    expect(success.first).to_be_visible()
    assert first not in waiting()
    page.locator("#undo-last button").click()
    expect(success).to_have_count(1)
    assert page.faults == []


def test_a_day(
    open_page, admin_user, settings, day, monkeypatch, record_testsuite_property
) -> None:
    settings.KEEP_PROBES_DAYS = 3
    if not PHOTOS.is_dir():
        set_thresholds(0.9999, 0.99)  # drawn people are much alike
    settled = []  # a card may vanish by an act on another: then it is refused, and no act
    settle_each = inbox.settle_each

    def settle(*given, **more):
        done = settle_each(*given, **more)
        settled.extend(each for each in done if not isinstance(each, Exception))
        return done

    monkeypatch.setattr("enrollment.inbox.settle_each", settle)
    archive, searched = day
    page = open_page("/login?next=/people/import")
    log_in(page)

    page.locator("input[type=file]").set_input_files(archive)
    page.locator(".importer .button").click()
    page.locator("input[name=start]").click()
    expect(page.locator("table.report")).to_contain_text("waits in the inbox")
    page.goto("/people/audit")
    page.locator(".report [type=submit]").click()
    expect(page.locator(".report .module").first).to_be_visible()

    page.goto("/")
    page.locator("#id_images").set_input_files(searched)
    page.locator("#search-button").click()
    answered = page.locator("#results article, #results .problem")
    expect(answered).to_have_count(len(searched))
    expect(page.locator("#progress")).to_be_hidden()
    assert Probe.objects.waiting().exclude(channel="import").exists()

    signed_in = {"storage_state": page.context.storage_state()}
    hand = {"has_touch": True, "viewport": PHONE, "color_scheme": "dark", "locale": "pt-BR"}
    phone = open_page("/inbox/", **hand, **signed_in)
    for shown, kind in ((page, "light-en"), (phone, "dark-pt-br")):
        shown.goto("/inbox/")
        shown.keyboard.press("n")
        look_at(shown, "inbox", kind=kind)
        shown.goto("/inbox/?view=list&tick=all&who=admin")
        look_at(shown, "inbox-list", kind=kind)
    all_cards = waiting()
    assert len(all_cards) > 4
    before = {row.pk for row in TrashItem.objects.all()}
    lines = JournalEntry.objects.filter(pk__gt=JournalEntry.objects.latest("pk").pk)

    page.goto("/inbox/")
    operator = Operator(page)
    pace = operator.settle_all()
    record_testsuite_property("decisions a minute by keyboard", round(60 * pace))
    record_testsuite_property("milliseconds until an act is answered", page.evaluate(ANSWERED))
    assert pace > 20 / 60 and waiting() == set()
    assert not Probe.objects.waiting().exists()
    assert requests_of(lines) == len(settled) > len(all_cards) / 2
    acts = {item.pk for item in TrashItem.objects.all()} - before
    operator.undo()
    operator.undo()
    assert len(waiting()) >= 2
    undo_all(TrashItem.objects.filter(pk__in=acts))
    back = waiting()
    assert back <= all_cards and {key.partition("-")[0] for key in all_cards - back} <= {"doubt"}

    plain = {"java_script_enabled": False, "viewport": PHONE, **signed_in}
    settle_without_a_script(open_page("/inbox/?view=list&tick=all", **plain))
    assert back <= waiting() <= all_cards
    undone = lines.filter(action="undone").count()

    phone.set_viewport_size(PHONE)
    phone.goto("/inbox/")
    assert phone.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    operator = Operator(phone)
    pace = operator.settle_all(by_touch=True)
    record_testsuite_property("decisions a minute by touch", round(60 * pace))
    assert pace > 20 / 60 and waiting() == set()
    operator.undo(by_touch=True)
    operator.undo(by_touch=True)
    assert len(waiting()) >= 2
    operator.settle_all(by_touch=True)
    assert waiting() == set()
    assert lines.filter(action="undone").count() == undone + 2
    # The browser says of a drawn photo in which no face is found that its answer was 422.
    assert [fault for fault in (*page.faults, *phone.faults) if "422" not in fault] == []


# The page's requests wait until `release()`.
HOLD = """() => {
    const held = new Promise((resolve) => (window.release = resolve));
    const send = window.fetch;
    window.fetch = async (...given) => held.then(() => send(...given));
}"""


def test_no_key_settles_a_card_that_nobody_saw(open_page) -> None:
    pictures = add_vectors({"ana": 4})
    for picture in pictures:
        Doubt.objects.create(face_image=picture, code="blurred", given=3, expected=10)
    first, second, third, fourth = (f"doubt-{each.pk}" for each in reversed(pictures))
    page = open_page("/inbox/")
    operator = Operator(page)
    press = page.keyboard.press

    press("c")
    operator.sees(second)
    page.evaluate(HOLD)
    press("z")
    press("c")  # whoever takes back waits for what comes back
    page.evaluate("release()")
    operator.sees(first)

    page.evaluate(HOLD)
    press("n")
    page.keyboard.type("ana")
    press("Enter")  # somebody has this id
    operator.sees(second)
    page.evaluate("release()")
    expect(page.locator("#said .problem")).to_contain_text("ana")
    operator.sees(second)
    page.locator("[value=skip]:visible").dblclick()
    operator.sees(first)
    expect(operator.card.locator(".card-text .problem")).to_contain_text("ana")
    typed = operator.card.locator("[name=person_id]")
    expect(typed).to_have_value("ana")

    typed.press("Escape")
    page.keyboard.down("Enter")
    page.keyboard.down("Enter")  # held down
    page.keyboard.up("Enter")
    operator.sees(third)
    expect(page.locator("#left")).to_contain_text("3 cards wait")
    assert waiting() == {second, third, fourth}

    press("n")
    page.keyboard.type("new")
    page.wait_for_timeout(600)  # longer than any double click
    # A quick tap after another one nearby counts as its second, but both were meant for this card.
    operator.card.locator("[value=new]").dispatch_event("click", {"detail": 2})
    operator.sees(fourth)


# How often each word of the names is broken, and by how much the buttons cover who is likeliest.
BROKEN_AND_COVERED = """() => {
    const card = document.querySelector("#deck > .card:not([hidden])");
    const lines = [];
    for (const { firstChild: text } of card.querySelectorAll(".person-name")) {
        for (const { index, 0: word } of text.data.matchAll(/\\S+/g)) {
            const range = document.createRange();
            range.setStart(text, index);
            range.setEnd(text, index + word.length);
            lines.push(range.getClientRects().length);
        }
    }
    const likeliest = card.querySelector(".candidate").getBoundingClientRect();
    const buttons = card.querySelector(".row").getBoundingClientRect();
    return [Math.max(...lines), Math.max(0, likeliest.bottom - buttons.top)];
}"""


@pytest.mark.parametrize(
    ("size", "surname"),
    [
        ((390, 844), "Wolfeschlegelsteinhausen"),
        ((320, 568), "Vasconcelos"),
        ((844, 390), "Vasconcelos"),
    ],
)
def test_on_a_phone_no_name_is_broken_and_who_is_likeliest_is_seen(
    open_page, size, surname
) -> None:
    pictures = add_vectors({"ana": 1, "123.456.789-09": 1})
    Person.objects.update(name=f"Maria das Graças Albuquerque {surname}")
    Doubt.objects.create(
        face_image=pictures[0],
        code="looks_like_someone_else",
        given=0.9,
        expected=0.4,
        other=pictures[1],
    )
    viewport = dict(zip(("width", "height"), size, strict=True))
    page = open_page("/inbox/", viewport=viewport, has_touch=True, is_mobile=True)
    expect(page.locator(".candidate:visible")).to_have_count(1)
    assert page.evaluate(BROKEN_AND_COVERED) == [1, 0]
    expect(page.locator(".candidate:visible")).to_be_in_viewport(ratio=1)


def test_the_next_card_is_seen_from_its_top(open_page) -> None:
    """On a small phone one scrolls down to the answers."""
    pictures = add_vectors({"ana": 1, "bia": 1, "caio": 1, "davi": 1})
    for picture in pictures:
        other = next(each for each in pictures if each != picture)
        code = "looks_like_someone_else"
        Doubt.objects.create(face_image=picture, code=code, given=0.9, expected=0.4, other=other)
    viewport = {"width": 320, "height": 300}
    page = open_page("/inbox/", viewport=viewport, has_touch=True, is_mobile=True)
    card = page.locator("#deck > .card:not([hidden])")
    key = card.get_attribute("data-key")
    card.locator("[value=skip]").tap()
    expect(card).not_to_have_attribute("data-key", key)
    expect(card.locator("h2")).to_be_in_viewport()
    expect(page.locator("#said li")).to_be_in_viewport(ratio=1)  # above the card
    assert card.evaluate("card => card.getBoundingClientRect().top") >= 0
