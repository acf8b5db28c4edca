"""The pages in a real browser: with and without JavaScript, by keyboard, on a phone, in dark mode."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.contrib.sessions.models import Session

from enrollment import imports
from enrollment.corrections import create_person, delete_person, merge_persons
from enrollment.enrolling.inspection import Upload
from enrollment.enrolling.services import enroll_pictures
from enrollment.imports import stage_import
from enrollment.models import FaceImage, Person, SearchEntry
from tests import browsing
from tests.browsing import (
    IN_A_BROWSER,
    expect,
    in_both_looks,
    look_at,
    playwright,
    serious_barriers,
)
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face, draw_group
from tests.pictures import packed

browser, open_page = browsing.browser, browsing.open_page  # fixtures
pytestmark = IN_A_BROWSER


@pytest.fixture
def ana(transactional_db, weights: str) -> None:
    """Enrol the first of the drawn people."""
    enroll("ana", draw_face(PEOPLE[0]))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """The enrolled picture, as a file to choose."""
    path = tmp_path / "who.jpg"
    path.write_bytes(as_jpeg(draw_face(PEOPLE[0])))
    return path


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """Three people, one of whom is Ana."""
    path = tmp_path / "group.jpg"
    path.write_bytes(as_jpeg(draw_group()))
    return path


def enroll(person_id: str, image, name: str = "") -> None:
    upload = Upload(person_id, "picture.jpg", as_jpeg(image), name=name)
    enroll_pictures([upload], source="api")


def search(page: playwright.Page, *files: Path) -> None:
    page.get_by_label("Pictures", exact=True).set_input_files(files)
    page.locator("#search-button").click()
    expect(page.locator("#results article, #results .problem")).to_have_count(len(files))
    expect(page.locator("#progress")).to_be_hidden()


def expect_ana(page: playwright.Page) -> None:
    heading = page.get_by_role("heading", name="ana", level=4).first
    expect(heading).to_be_visible()
    expect(page.locator(".hit .similarity").first).to_contain_text("Similarity 1.000")
    stored = page.locator(".hit .pair a img").first
    stored.scroll_into_view_if_needed()
    expect(stored).to_have_js_property("complete", True)
    assert stored.evaluate("image => image.naturalWidth") > 0


def give(page: playwright.Page, photo: Path, event: str) -> None:
    """Give the page a picture by drop or by paste."""
    script = f"""(content) => {{
        const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
        const files = new DataTransfer();
        files.items.add(new File([bytes], "given.jpg", {{ type: "image/jpeg" }}));
        document.querySelector(".drop-zone").dispatchEvent({event});
    }}"""
    page.evaluate(script, base64.b64encode(photo.read_bytes()).decode())


# Asking


def test_everything_works_without_a_script(open_page, ana, photo: Path, group: Path) -> None:
    page = open_page(java_script_enabled=False)
    page.get_by_label("Pictures", exact=True).set_input_files([photo, group])
    page.get_by_role("button", name="Search").click()
    expect(page.locator("article")).to_have_count(2)
    expect(page.locator("article").last.locator("rect.box")).to_have_count(3)
    expect(page.get_by_role("heading", name="ana", level=4).first).to_be_visible()
    page.get_by_role("link", name="Compare").click()
    page.get_by_label("First picture").set_input_files(photo)
    page.get_by_label("Second picture").set_input_files(photo)
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="The same person", exact=True)).to_be_visible()
    page.goto("/api/docs")
    expect(page.locator("noscript p")).to_contain_text("needs JavaScript")
    page.goto("/api/persons/ana")
    expect(page.locator("noscript p")).to_contain_text("PATCH or DELETE")


def test_several_pictures_are_searched_one_by_one(open_page, ana, photo, group, tmp_path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("<html>")
    page = open_page()
    page.evaluate("window.stays = true")
    search(page, photo, bad, group)
    expect_ana(page)
    expect(page.locator("#results .problem")).to_contain_text("bad.jpg")
    expect(page.locator("article").last.locator("svg text.box-number")).to_have_count(3)
    expect(page.get_by_role("status")).to_contain_text("Done. who.jpg: ana, similarity 1.000.")
    page.get_by_role("button", name="Remove: bad.jpg").click()
    expect(page.locator("#chosen li")).to_have_count(2)
    assert page.evaluate("window.stays")
    # The browser says of the bad picture that its answer was 400; it has nothing else to say.
    assert [fault for fault in page.faults if "400" not in fault] == []


def test_no_chosen_file_is_dropped_in_silence(open_page, photo: Path) -> None:
    """Some browsers know no type of a HEIC, and left it out beside other pictures."""
    page = open_page()
    files = {"who.jpg": "image/jpeg", "from-the-phone.heic": "", "list.txt": "text/plain"}
    page.get_by_label("Pictures", exact=True).set_input_files(
        [
            {"name": name, "mimeType": kind, "buffer": photo.read_bytes()}
            for name, kind in files.items()
        ]
    )
    expect(page.locator("#chosen .file-name")).to_have_text(list(files))


def test_keyboard_alone_is_enough(open_page, ana, photo: Path) -> None:
    page = open_page()
    page.get_by_label("Pictures", exact=True).set_input_files(photo)  # the chooser is the system's
    expect(page.locator("#search-button")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # opens the options
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Number of results")).to_be_focused()
    page.keyboard.press("Enter")
    expect_ana(page)
    page.get_by_role("link", name="Enrolled picture of ana").focus()
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement !== document.body")


def test_picture_can_be_dropped_and_pasted(open_page, ana, photo: Path) -> None:
    page = open_page()
    files = "{ %s: files, bubbles: true }"
    give(page, photo, f'new DragEvent("drop", {files % "dataTransfer"})')
    give(page, photo, f'new ClipboardEvent("paste", {files % "clipboardData"})')
    expect(page.locator("#chosen .file-name")).to_have_text(["given.jpg", "given.jpg"])
    page.keyboard.press("Enter")  # the search button has the focus
    expect(page.locator("article")).to_have_count(2)
    expect_ana(page)
    expect(page.locator("#progress")).to_be_hidden()
    page.get_by_role("button", name=re.compile("Not this person")).first.click()
    expect(page.locator(".messages")).to_contain_text("this is not ana")
    expect(page.locator("article")).to_have_count(2)  # the page of both answers, at its address
    assert re.search(r"/answers/\w+,\w+#", page.url)
    assert page.faults == []


def test_photo_comes_from_the_camera(open_page, ana) -> None:
    page = open_page()
    page.set_viewport_size({"width": 320, "height": 256})  # 1280 by 1024 at four times the size
    page.get_by_role("button", name="Use the camera").press("Enter")
    take = page.get_by_role("button", name="Take the photo")
    expect(take).to_be_focused()  # once the camera runs
    for part in (take, page.locator("#camera-video")):
        expect(part).to_be_in_viewport(ratio=1)
    take.press("Enter")
    expect(page.locator("#camera")).to_be_hidden()
    expect(page.locator("#chosen .file-name")).to_have_text("camera-1.jpg")
    page.keyboard.press("Enter")  # the search button has the focus
    expect(page.locator("article")).to_contain_text("camera-1.jpg")
    assert page.faults == []


def test_phone_without_leave_for_the_camera_uses_its_own(open_page) -> None:
    page = open_page("/login", viewport={"width": 390, "height": 844}, has_touch=True)
    page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.goto("/")
    expect(page.get_by_role("button", name="Use the camera")).to_be_hidden()
    assert page.locator("input[capture]").count() == 1


def test_bad_file_and_no_file_are_told_in_place(open_page, ana, tmp_path: Path) -> None:
    page = open_page()
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#results")).to_contain_text("No picture was chosen.")
    bad = tmp_path / "who.jpg"
    bad.write_text("<html>")
    search(page, bad)
    expect(page.locator("#results")).to_contain_text("This picture cannot be used")
    expect(page.get_by_role("status")).to_contain_text("The file is of type HTML")


def test_two_pictures_are_compared_in_place(open_page, photo: Path, group: Path) -> None:
    page = open_page("/compare")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("status")).to_contain_text("The first picture is missing.")
    page.get_by_label("First picture").set_input_files(group)
    files = "{ clipboardData: files, bubbles: true }"
    give(page, photo, f'new ClipboardEvent("paste", {files})')
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("table tbody tr")).to_have_count(3)
    expect(page.locator("table")).to_contain_text("Match")
    assert page.faults == []


# Enrolling


def test_pictures_are_enrolled_by_drop_and_camera_and_many_at_once(
    open_page, ana, tmp_path
) -> None:
    """In several requests, so that their total may exceed the limit of one request."""
    person = Person.objects.get()
    page = open_page(f"/people/{person.pk}/")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("No picture was chosen.")
    files = []
    for shot in range(12):
        files.append(tmp_path / f"{shot}.jpg")
        files[-1].write_bytes(as_jpeg(draw_face(PEOPLE[0], shot, side=200 + shot)))
    give(page, files[0], 'new DragEvent("drop", { dataTransfer: files, bubbles: true })')
    page.get_by_label("Pictures", exact=True).set_input_files(files[1:])
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("button", name="Take the photo").click()
    expect(page.locator("#chosen li")).to_have_count(13)
    page.get_by_role("button", name="Remove: 11.jpg").click()
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".picture-card")).to_have_count(13)
    expect(page.locator(".messages")).to_contain_text("10 pictures were added.")
    expect(page.locator(".messages")).to_contain_text("2 pictures were added.")
    expect(page.locator(".picture-card").last).to_contain_text("good face: ")
    assert page.faults == []


def test_what_the_server_did_not_take_stays_chosen(open_page, ana, photo: Path) -> None:
    page = open_page(f"/people/{Person.objects.get().pk}/")
    page.get_by_label("Pictures", exact=True).set_input_files([photo])
    page.context.set_offline(True)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    expect(page.locator("#chosen li")).to_have_count(1)
    page.context.set_offline(False)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".picture-card")).to_have_count(2)


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_a_person_is_made_together_with_pictures(open_page, weights, photo, script: bool) -> None:
    page = open_page("/people/new", java_script_enabled=script)
    expect(page.get_by_label("Person id")).to_be_focused()
    page.keyboard.type("bia")
    page.get_by_label("Pictures", exact=True).set_input_files([photo])
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("h1")).to_have_text("bia")
    expect(page.locator(".picture-card")).to_have_count(1)


def test_people_are_ticked_and_changed_by_keys(open_page, weights) -> None:
    Person.objects.bulk_create(Person(person_id=f"p{number:02}") for number in range(40))
    page = open_page("/people/")
    box = page.get_by_label("Tick p00")
    before = box.bounding_box()
    box.check()
    expect(page.locator(".many details")).to_have_attribute("open", "")
    assert box.bounding_box() == before, "The list jumps from under the finger."
    page.get_by_role("link", name="p39").focus()
    page.keyboard.press("x")
    expect(page.locator("#ticked")).to_have_text("(2 ticked)")
    button = page.get_by_role("button", name="Legal basis…")
    expect(button).to_be_in_viewport()
    page.keyboard.press("m")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_contain_text("2 people")
    page.goto(f"/people/{Person.objects.get(person_id='p01').pk}/details")
    page.get_by_label("Name", exact=True).fill("Bia")
    page.get_by_label("Person id").fill("p02")
    page.keyboard.press("Enter")
    expect(page.locator(".field-error")).to_contain_text("already a person")
    expect(page.get_by_label("Person id")).to_be_focused()


def test_what_is_done_with_ticked_ones_stays_in_sight_on_a_phone(open_page, weights) -> None:
    """On phones the buttons stayed at the top, pages above who was ticked."""
    Person.objects.bulk_create(Person(person_id=f"p{number:02}") for number in range(40))
    ana = Person.objects.get(person_id="p00")
    FaceImage.objects.bulk_create(
        FaceImage(person=ana, image=f"{n}.jpg", content_hash=str(n), width=9, height=9)
        for n in range(12)
    )
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
    page = open_page("/people/", **phone)
    page.get_by_label("Tick p39").check()
    button = page.get_by_role("button", name="Legal basis…")
    expect(button).to_be_in_viewport()
    assert page.locator(".many").bounding_box()["height"] < 160
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    button.tap()
    expect(page.locator("main")).to_contain_text("1 person")
    page.goto(f"/people/{ana.pk}/")
    page.locator(".picture-card input[type=checkbox]").last.check()
    expect(page.get_by_role("button", name="Not this person…")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_what_is_printed_is_what_is_known_in_dark_letters(open_page, ana) -> None:
    address = f"/people/{Person.objects.get().pk}/"
    page = open_page(address, color_scheme="dark")
    page.evaluate("localStorage.setItem('theme', 'dark')")
    page.emulate_media(media="print")
    for shown in (address, f"{address}consents"):
        page.goto(shown)
        expect(page.locator("h1")).to_have_css("color", "rgb(23, 32, 43)")
        expect(page.get_by_text("ana").first).to_be_visible()
        for control in page.locator(
            "header, footer, button, input, main .button, .adder, .unprinted"
        ).all():
            expect(control).to_be_hidden()


def test_nobody_leaves_a_receipt_unsaved_by_accident(open_page, ana) -> None:
    page = open_page(f"/people/{Person.objects.get().pk}/erasure")
    network = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 500, "downloadThroughput": -1, "uploadThroughput": -1}
    network.send("Network.emulateNetworkConditions", slow)  # the text may come before its script
    page.get_by_role("button", name="Erase now").click()
    expect(page.locator("h1")).to_contain_text("Erased")
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.locator(".brand").click()
    with page.expect_download():
        page.get_by_role("link", name="Save as JSON").click()
    page.locator(".brand").click()
    expect(page.locator("#search-form")).to_be_visible()
    assert asked == ["beforeunload"]


def test_the_figures_of_an_import_go_on_with_its_bar(
    open_page, weights, data_folder, monkeypatch
) -> None:
    monkeypatch.setattr("enrollment.imports.execution.BATCH", 1)
    files = {f"ana/{shot}.jpg": as_jpeg(draw_face(PEOPLE[0], shot)) for shot in range(3)}
    job = stage_import(io.BytesIO(packed(files)), "faces.zip", 0, is_confirmed=True)
    page = open_page(f"/imports/{job.pk}")
    for added in ("1 picture was added", "2 pictures were added"):
        imports.carry_out_imports(lambda: True)  # one batch
        expect(page.locator("#import-counts")).to_contain_text(added)


def log_in(page: playwright.Page) -> None:
    page.locator("#id_username").fill("admin")
    page.locator("#id_password").fill("password")
    page.keyboard.press("Enter")


# Whether a form is sent: by its first button, the same again, its second button, with a file, with another, again.
PRESS_AGAIN = """() => {
    const form = document.createElement("form");
    form.method = "post";
    form.innerHTML = "<input type=file name=file><button></button><button formaction='/other'></button>";
    document.body.append(form);
    const [first, second] = form.querySelectorAll("button");
    const sent = [];
    addEventListener("submit", (event) => {
        sent.push(!event.defaultPrevented);
        event.preventDefault();
    });
    const choose = (name) => {
        const files = new DataTransfer();
        files.items.add(new File(["x"], name));
        form.elements.file.files = files.files;
    };
    form.requestSubmit(first);
    form.requestSubmit(first);
    form.requestSubmit(second);
    for (const name of ["one.jpg", "other.jpg"]) {
        choose(name);
        form.requestSubmit(second);
    }
    form.requestSubmit(second);
    return sent;
}"""


def log_in_again(page: playwright.Page) -> None:
    """Follow the link of the page that says that the session has ended, which opens another tab."""
    with page.expect_popup() as opened:
        page.locator(".problem:visible a").click()
    log_in(opened.value)
    expect(opened.value.locator("#search-form")).to_be_visible()


def test_what_was_typed_and_chosen_outlives_the_session_and_is_sent_once(
    open_page, admin_user, settings, weights, photo: Path
) -> None:
    settings.API_AUTH_REQUIRED = True
    page = open_page("/login?next=/people/new")
    page.clock.install()
    log_in(page)
    page.locator("#id_person_id").fill("ana")
    save = page.locator("#enroll-button")
    page.context.set_offline(True)
    page.clock.fast_forward("00:05")
    save.click()
    expect(page.locator(".problem:visible")).to_contain_text("The server cannot be reached.")
    page.context.set_offline(False)
    Session.objects.all().delete()
    page.locator("[name=another]").click()
    log_in_again(page)
    expect(page.locator(".busy")).to_have_count(0)
    save.dblclick()
    page.wait_for_url("**/people/*/")
    expect(page.locator(".problem:visible")).to_have_count(0)
    ana = Person.objects.get(person_id="ana")
    assert page.evaluate(PRESS_AGAIN) == [True, False, True, True, True, False]
    page.reload()
    page.get_by_label("Pictures", exact=True).set_input_files(photo)
    merge_persons(create_person("cal"), ana)
    save.click()
    expect(page.locator(".problem:visible")).to_contain_text("ana was merged into cal")
    expect(page.locator("#chosen li")).to_have_count(1)

    page.goto("/")
    page.get_by_label("Pictures", exact=True).set_input_files([photo, photo])
    posts = []
    page.on("request", lambda each: each.method == "POST" and posts.append(urlsplit(each.url).path))
    Session.objects.all().delete()
    page.locator("#search-button").click()
    log_in_again(page)
    page.locator("#search-button").click()
    expect(page.locator("#results article")).to_have_count(2)
    expect(page.locator("#results .problem")).to_have_count(0)
    # One while logged out, the first again with the new form's token, and the second.
    assert posts == ["/"] * 4

    for address, button in (("/", "#search-button"), ("/people/new", "#enroll-button")):
        page.goto(address)
        page.evaluate("document.querySelector('form.panel').dataset.limit = '21000'")
        page.get_by_label("Pictures", exact=True).set_input_files(photo)
        if button == "#enroll-button":
            page.locator("#id_person_id").fill("bia")
        page.locator(button).click()
        expect(page.locator(".problem:visible")).to_contain_text("more than the 50 MB")
    assert not Person.objects.filter(person_id="bia").exists()


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_whose_face_is_meant_is_chosen_by_keyboard_on_a_phone(
    open_page, ana, photo, group, tmp_path, script: bool
) -> None:
    pair = tmp_path / "pair.jpg"
    pair.write_bytes(as_jpeg(draw_group(PEOPLE[1:])))
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
    page = open_page(f"/people/{Person.objects.get().pk}/", java_script_enabled=script, **phone)
    page.get_by_label("Pictures", exact=True).set_input_files([photo, group, pair])
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("h1")).to_have_text("Which face is ana’s?")
    expect(page.locator(".messages")).to_contain_text("1 picture was added.")
    first, second = page.locator("fieldset").all()
    expect(first.get_by_role("radio")).to_have_count(4)
    expect(second.get_by_role("radio")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    expect(first.get_by_label("Most like this person’s pictures")).to_be_checked()
    first.get_by_role("radio").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    expect(first.get_by_label("Face 2")).to_be_checked()
    page.keyboard.press("Tab")
    expect(second.get_by_label("Most like this person’s pictures")).to_be_focused()
    second.get_by_role("radio").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowUp")  # from the first to the last
    expect(second.get_by_label("None of them: leave this picture out")).to_be_checked()
    first.locator("img").last.tap()
    expect(first.get_by_label("Face 3")).to_be_checked()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("ana")
    expect(page.locator(".messages")).to_contain_text("1 picture was added.")
    expect(page.locator(".messages")).to_contain_text("1 picture was left out.")
    expect(page.locator(".picture-card")).to_have_count(3)
    chosen = FaceImage.objects.exclude(chosen_face=None).get()
    assert chosen.original_path == "group.jpg"
    assert page.faults == []


# The API by hand


def test_a_person_is_changed_and_deleted_on_the_pages_of_the_api(open_page, ana) -> None:
    page = open_page("/api/persons/ana")
    page.get_by_label("JSON").fill('{"name": "Ana Lima"}')
    page.get_by_role("button", name="PATCH").click()
    expect(page.locator("#answer")).to_contain_text('"name": "Ana Lima"')
    expect(page.locator("#answer")).to_be_focused()
    page.get_by_label("JSON").fill("{")
    page.get_by_role("button", name="PATCH").click()
    expect(page.locator("#answer .status-4")).to_contain_text("400")
    expect(page.locator("#answer")).to_contain_text("Send a JSON object")
    expect(page.get_by_label("JSON")).to_have_value("{")
    page.get_by_label("Yes, delete it.").check()
    page.get_by_role("button", name="DELETE").click()
    expect(page.locator("#answer")).to_contain_text('"deleted_pictures": 1')
    assert not Person.objects.exists()


def test_a_search_is_made_on_the_page_of_the_api(open_page, ana, photo: Path) -> None:
    page = open_page("/api/milvus/search", java_script_enabled=False)
    page.get_by_label("image", exact=True).set_input_files(photo)
    page.get_by_role("button", name="POST").click()
    expect(page.locator("#answer")).to_contain_text('"decision": "match"')
    expect(page.locator("#answer")).to_contain_text('"face_detected": true')


def test_a_search_is_tried_where_all_calls_are_listed(open_page, ana, photo: Path) -> None:
    """Optional fields are empty there, not filled with samples that find nothing."""
    page = open_page("/api/docs")
    page.locator(".opblock-summary-control", has_text="/api/milvus/search").click()
    page.locator(".try-out__btn").click()
    page.locator("[data-property-name=image] input[type=file]").set_input_files(photo)
    with page.expect_response("**/api/milvus/search") as answer:
        page.locator(".execute").click()
    assert answer.value.status == 200
    assert [hit["person_id"] for hit in answer.value.json()["results"]] == ["ana"]


# Looks


def test_colours_are_chosen_and_kept(open_page) -> None:
    page = open_page(color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(244, 246, 249)"
    button = page.locator("#theme")
    button.click()
    button.click()
    expect(button).to_have_text("Colours: dark")
    page.goto("/compare")
    assert page.evaluate(background) == "rgb(15, 20, 26)"


def test_language_is_chosen_in_the_menu(open_page) -> None:
    page = open_page("/compare")
    page.locator("summary", has_text="EN").click()
    page.get_by_role("button", name="Português brasileiro").click()
    expect(page.locator("html")).to_have_attribute("lang", "pt-br")
    assert page.url.endswith("/compare")


@in_both_looks
def test_pages_fit_and_keep_nobody_out(
    open_page, photo, group, tmp_path, scheme: str, locale: str
) -> None:
    """At three widths, no page scrolls sideways or is inaccessible; with SCREENSHOTS=1, pictures of
    all are kept in artifacts/."""
    enroll("111.444.777-35", draw_face(PEOPLE[0]), "Ana Lima")
    enroll("x" * 200, draw_face(PEOPLE[0]))
    enroll("group", draw_group())
    several = FaceImage.objects.get(person__person_id="group")
    delete_person(create_person("gone"))
    create_person("gone")  # so that restoring asks for another id
    folder = tmp_path / "pictures.zip"
    with zipfile.ZipFile(folder, "w") as archive:
        archive.write(photo, "bia/picture.jpg")
        archive.writestr(f"{'y' * 90}/notes.txt", "no picture")
    page = open_page(color_scheme=scheme, locale=locale)

    look = partial(look_at, page, kind=f"{scheme}-{locale.lower()}")
    look("search")
    page.locator("#id_images").set_input_files([group])
    page.locator("#search-button").click()
    expect(page.locator("article")).to_have_count(1)
    look("results")
    page.locator("article details").evaluate_all("all => all.forEach(each => each.open = true)")
    page.set_viewport_size({"width": 390, "height": 900})
    heads = page.locator(".hit-head > div")
    narrowest = heads.evaluate_all("all => Math.min(...all.map(each => each.offsetWidth))")
    assert narrowest > 130, "A name is squeezed by the decision beside it."
    page.goto("/compare")
    page.locator("#id_source").set_input_files(group)
    page.locator("#id_target").set_input_files(photo)
    page.locator("#compare-button").click()
    expect(page.locator("table")).to_be_visible()
    look("compare")
    for address in ("login", "people/"):
        page.goto(f"/{address}")
        look(address.strip("/"))
    page.get_by_role("link", name="Ana Lima").click()
    expect(page.locator("h1")).to_have_text("Ana Lima")
    look("person")
    page.goto(f"{page.url}details")
    look("person-details")
    for name in ("access", "correction", "consents", "erasure"):
        page.goto(f"/people/{several.person_id}/{name}")
        look(f"person-{name}")
    page.goto(f"/people/{several.person_id}/face?picture={several.pk}")
    expect(page.get_by_role("radio")).to_have_count(3)
    look("face")
    page.goto(f"/people/{several.person_id}/")
    page.locator("#enroll-form input[multiple]").set_input_files([group])
    page.locator("#enroll-button").click()
    expect(page.get_by_role("radio")).to_have_count(4)
    look("face-choice")
    page.goto(f"/people/{several.person_id}/")
    expect(page.locator(".notice.warning a")).to_have_attribute("href", re.compile("/faces$"))
    page.goto("/people/doubts")
    expect(page.locator(".doubts").first).to_be_visible()
    look("doubts")
    page.goto("/people/audit")
    page.locator(".report [type=submit]").click()
    expect(page.locator(".report table").first).to_be_visible()
    look("audit")
    page.goto("/people/trash")
    page.locator(".trash summary").click()
    look("trash")
    page.goto("/people/import")
    look("import")
    page.locator("input[type=file]").set_input_files(folder)
    page.locator(".importer .button").click()
    expect(page.locator("table.report tbody tr")).to_have_count(2)
    look("import-run")
    page.goto(f"/people/{several.person_id}/erasure")
    page.locator("form.sheet button.danger").click()
    with page.expect_download() as saved:
        page.locator("a[download$=json]").click()
    assert '"signature"' in Path(saved.value.path()).read_text()
    look("receipt")
    assert page.faults == []
    page.goto("/nowhere")
    look("not-found")


ADMIN_PAGES = {
    "admin": "/admin/",
    "admin-persons": "/admin/enrollment/person/",
    "admin-person": "/admin/enrollment/person/{person}/change/",
    "admin-pictures": "/admin/enrollment/faceimage/",
    "admin-picture": "/admin/enrollment/faceimage/{picture}/change/",
    "admin-searches": "/admin/enrollment/searchentry/",
    "admin-trash": "/admin/enrollment/trashitem/",
    "admin-journal": "/admin/enrollment/journalentry/",
    "admin-import": "/admin/enrollment/person/import-pictures/",
    "admin-import-persons": "/admin/enrollment/person/import/",
    "admin-export-persons": "/admin/enrollment/person/export/",
    "admin-add-person": "/admin/enrollment/person/add/",
    "admin-audit": "/admin/enrollment/person/audit/",
    "admin-purposes": "/admin/enrollment/purpose/add/",
    "admin-backups": "/admin/enrollment/backuprecord/",
    "admin-tokens": "/admin/enrollment/accesstoken/",
    "admin-add-token": "/admin/enrollment/accesstoken/add/",
    "admin-account": "/admin/auth/user/{account}/change/",
    "admin-group": "/admin/auth/group/add/",
    "password": "/password",
}
API_PAGES = {
    "api-models": "/api/models",
    "api-search": "/api/milvus/search",
    "api-person": "/api/persons/ana",
    "api-picture": "/api/persons/ana/images/{picture}?format=api",
}


@in_both_looks
def test_the_admin_and_the_api_keep_nobody_out(
    open_page, admin_user, ana, group, scheme: str, locale: str
) -> None:
    """Like the pages above, except that tables may scroll within an admin page."""
    picture = FaceImage.objects.get()
    SearchEntry.objects.create(
        username="maria", channel="api", model="mobilenetv3_large", person=picture.person,
        similarity=0.97, decision="match", answers=1,
    )  # fmt: skip
    delete_person(create_person("gone"))
    page = open_page("/admin/login/?next=/admin/", color_scheme=scheme, locale=locale)
    page.locator("#id_username").fill("admin")
    page.locator("#id_password").fill("password")
    page.locator("input[type=submit]").click()
    for name, address in (ADMIN_PAGES | API_PAGES).items():
        page.goto(
            address.format(person=picture.person_id, picture=picture.pk, account=admin_user.pk)
        )
        look_at(page, name, kind=f"{scheme}-{locale.lower()}")
    page.goto(f"/admin/enrollment/person/{picture.person_id}/change/")
    page.locator("#id_pictures").set_input_files([group])
    page.locator("input[name=_save]").click()
    expect(page.get_by_role("radio")).to_have_count(4)
    look_at(page, "admin-face-choice", kind=f"{scheme}-{locale.lower()}")
    page.goto("/api/docs")
    page.locator(".opblock-summary-control", has_text="/api/milvus/insert").click()
    page.locator(".try-out__btn").click()
    expect(page.locator(".execute")).to_be_visible()
    assert serious_barriers(page) == []


def test_the_policy_breaks_no_page(open_page, admin_user) -> None:
    page = open_page("/admin/login/?next=/admin/")
    page.locator("#id_username").fill("admin")
    page.locator("#id_password").fill("password")
    page.locator("input[type=submit]").click()
    for address in ("", "enrollment/person/", "enrollment/person/add/", "enrollment/faceimage/"):
        page.goto(f"/admin/{address}")
        assert page.locator("#content").is_visible()
    page.goto("/api/models")
    expect(page.locator("h1")).to_have_text("/api/models")
    page.goto("/api/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    assert page.faults == []
