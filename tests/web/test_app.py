"""The built web app in a real browser, used as a person would: every page, search, keyboard, links, notes, errors, hostile text.

Against made-up runs (made_up.py), so that what is seen is known. Screenshots of every page are kept in the test's folder.
"""

import re

import pytest
from tests.web.conftest import NEEDS_APP, STATIC, faults
from tests.web.made_up import TOKEN, UNEDITED_LATENT, serving
from tests.web.made_up_runs import DEAD_LATENT, HOSTILE_LATENT

expect = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser; install mohole[dev]").expect
pytestmark = NEEDS_APP

HERE = "#/demo/resid_post.1"
PAGES = {
    "runs": ("#/", "resid_post.1"),
    "run": ("#/demo", "Where everything came from"),
    "atlas": (f"{HERE}/atlas?q=bridge", "found"),
    "features": (f"{HERE}/features", "1,0"),
    "feature": (f"{HERE}/28?test=The Golden Gate", "Strongest"),
    "xray": (f"{HERE}/xray?text=The Golden Gate Bridge&token=2", "In the whole text"),
    "xray-rows": (f"{HERE}/xray?text=The Golden Gate Bridge&view=rows&follow=5", "strongest features"),
    "chat": (f"{HERE}/chat", "Nobody can talk to a model here"),
    "dead": (f"{HERE}/{DEAD_LATENT}", "fires nowhere"),
    "lists": ("#/demo/lists", "None yet"),
    "lost": ("#/demo/nowhere/features", "no such hookpoint"),
}


@pytest.fixture(scope="module")
def address():
    with serving(STATIC) as found:
        yield found


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_drawn_and_can_be_read_by_everyone(tab, name, tmp_path):
    where, said = PAGES[name]
    for width, height, scheme in ((1440, 900, "light"), (390, 844, "dark")):
        tab.set_viewport_size({"width": width, "height": height})
        tab.emulate_media(color_scheme=scheme)
        tab.goto("about:blank")
        tab.goto(where)
        expect(tab.locator("main")).to_contain_text(said)
        expect(tab.locator(".waiting")).to_have_count(0)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
        tab.screenshot(path=tmp_path / f"{name}-{width}-{scheme}.png", full_page=name != "atlas")
        assert faults(tab) == []


def test_search_and_filters_narrow_the_list_and_are_in_the_address(tab):
    tab.goto(f"{HERE}/features")
    found = tab.locator(".found")
    expect(found).to_have_text("1,007 features")
    tab.get_by_label("Search labels").fill("bridge")
    expect(found).to_have_text(re.compile(r"^\d+ found$"))
    for label in tab.locator(".rows .label").all_inner_texts():
        assert "bridge" in label
    tab.get_by_label("F1 at least").select_option("0.9")
    expect(found).not_to_have_text("62 found")
    for f1 in tab.locator(".rows .f1").all_inner_texts():
        assert float(f1) >= 0.9
    header = tab.get_by_role("columnheader", name="maximum")
    header.get_by_role("button").click()
    expect(header).to_have_attribute("aria-sort", "descending")
    expect(tab.locator(".grid-table")).to_have_attribute("aria-busy", "false")
    seen = tab.locator(".rows .maximum").all_inner_texts()
    assert [float(each) for each in seen] == sorted((float(each) for each in seen), reverse=True)
    link = tab.url
    tab.goto("about:blank")
    tab.goto(link)
    expect(tab.get_by_label("Search labels")).to_have_value("bridge")
    expect(tab.locator(".rows .maximum").first).to_have_text(seen[0])
    tab.get_by_label("Search labels").fill("no feature is called this")
    expect(tab.locator(".grid-table")).to_contain_text("No feature passes")


def test_a_million_rows_are_walked_by_keyboard(tab):
    tab.goto("#/million/resid_post.11/features?sort=latent&which=all")
    expect(tab.locator(".found")).to_have_text("1,000,000 found")
    for key in ("j", "j", "k", "ArrowDown"):
        tab.keyboard.press(key)
    expect(tab.locator("[aria-selected=true] .latent")).to_have_text("2")
    for _ in range(30):
        tab.keyboard.press("j")
    row, table = (tab.locator(each).bounding_box() for each in ("[aria-selected=true]", ".grid-table"))
    assert row["y"] + row["height"] <= table["y"] + table["height"] + 1, "a row that is walked to is seen whole"
    tab.keyboard.press("End")
    expect(tab.locator("[aria-selected=true] .latent")).to_have_text("999999")
    row = tab.locator("[aria-selected=true]").bounding_box()
    assert row["y"] + row["height"] <= table["y"] + table["height"] + 1
    assert tab.locator(".rows .row").count() < 60
    tab.keyboard.press("k")
    tab.keyboard.press("Enter")
    expect(tab).to_have_url(re.compile(r"#/million/resid_post\.11/999998$"))
    tab.go_back()
    expect(tab.locator("[aria-selected=true] .latent")).to_have_text("999998")


def test_a_feature_shows_activations_context_and_a_link_to_a_place(tab):
    tab.goto(f"{HERE}/28")
    expect(tab.locator("h1")).to_have_text("the end of a sentence")
    example = tab.locator(".example").first
    example.locator("mark").first.hover()
    expect(tab.locator(".tip")).to_have_text(re.compile(r"^[\d.]+ · \d+ % of maximum$"))
    example.locator("p").focus()
    tab.keyboard.press("ArrowRight")
    expect(example.locator("mark.walked")).to_have_count(1)
    before = len(example.inner_text())
    example.get_by_role("button", name="Show more").click()
    expect(example.locator("p")).not_to_contain_text("…Мост")
    assert len(example.inner_text()) > before + 60
    example.locator(".strength").click()
    expect(tab.locator(".linked")).to_contain_text("token 50")
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Export JSON").click()
    assert '"latent":28' in download.value.path().read_text()
    tab.evaluate("scrollTo(0, 1e6)")
    tab.locator(".others a").first.click()
    expect(tab.locator("h1")).to_be_in_viewport()
    expect(tab.locator("main")).to_be_focused()
    tab.go_back()
    tab.get_by_role("link", name="Next latent").click()
    expect(tab.locator(".path")).to_contain_text("latent 29")


def test_a_text_of_ones_own(tab):
    tab.goto(f"{HERE}/28")
    tab.get_by_label("Try it").fill("The Golden Gate opened")
    expect(tab.locator(".test [role=status]")).to_contain_text("fires at 1 of 5 tokens")
    expect(tab.locator(".fired mark")).to_have_text(" Golden")
    tab.get_by_role("link", name="x-ray this text").click()
    expect(tab.locator("h2").first).to_contain_text("Following")
    expect(tab.locator(".fired .lit")).to_have_text([" Golden"])
    tab.get_by_role("button", name="stop following").click()
    expect(tab.locator(".fired .lit")).to_have_count(4)
    tab.locator("#t3").click()
    expect(tab.locator("aside .card").first).to_contain_text("At ·Gate")
    tab.locator("#t3").press("ArrowRight")
    expect(tab.locator("aside .card").first).to_contain_text("At ·opened")
    tab.locator("aside .pin").first.click()
    expect(tab.locator(".over h2")).to_contain_text("Following")
    tab.get_by_label("Text to look at").fill("36 + 59 = 95")
    tab.get_by_role("button", name="Look", exact=True).click()
    expect(tab.locator(".fired")).to_contain_text("36 + 59 = 95")
    assert "text=36" in tab.url


def test_the_map_finds_points_and_opens(tab):
    tab.goto(f"{HERE}/atlas")
    sea = tab.locator(".sea")
    expect(sea).to_have_attribute("data-drawn", re.compile("webgl|canvas"))
    canvas = "document.querySelector('.points canvas').getContext('2d').getImageData(0, 0, 1280, 800)"
    assert tab.evaluate(f"[...{canvas}.data].filter(Boolean).length") > 20_000, "points are drawn"
    tab.get_by_label("Search", exact=True).fill("bridge")
    hits = tab.locator(".hits li")
    expect(hits.first).to_contain_text("bridge")
    hits.first.get_by_role("button").click()
    expect(tab).to_have_url(re.compile(r"at=.*latent=\d+|latent=\d+.*at="))
    latent = re.search(r"latent=(\d+)", tab.url)[1]
    box = sea.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(tab.locator(".aim")).to_contain_text("bridge")
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(tab).to_have_url(re.compile(rf"{re.escape(HERE)}/{latent}$"))
    tab.go_back()
    tab.get_by_role("button", name="family").click()
    expect(tab).to_have_url(re.compile("colour=family"))
    sea.focus()
    before = tab.url
    tab.keyboard.press("+")
    expect(tab).not_to_have_url(before)


def test_a_map_of_a_million_points_moves(tab):
    tab.goto("#/million/resid_post.11/atlas")
    sea = tab.locator(".sea")
    expect(sea).to_have_attribute("data-drawn", re.compile("webgl|canvas"), timeout=20_000)
    expect(tab.locator(".census")).to_have_text(
        re.compile(r"^1M features; \d.* shown, closer in more$"), timeout=20_000
    )
    tab.mouse.move(640, 430)
    tab.mouse.down()
    tab.mouse.move(740, 500, steps=10)
    tab.mouse.up()
    tab.mouse.wheel(0, -600)
    expect(tab).to_have_url(re.compile(r"at=.*1\.68$"))  # at rest, dragged and zoomed
    asked = []
    tab.on("request", lambda request: asked.append(request.url) if "/map/" in request.url else None)
    tab.evaluate("location.hash = location.hash.split('?')[0] + '?at=16,0,6'")  # nothing of it has been in view
    expect(tab.locator(".census")).to_have_text("1M features", timeout=20_000)  # closer in there are all
    # The last of what lies here; the empty ones below it are asked for only while nobody knows yet that they are.
    assert any(url.endswith("/map/tiles/4/11/5") for url in asked), asked
    assert len(asked) == len(set(asked))
    assert all("/map/tiles/" in url for url in asked)
    tab.get_by_label("Search", exact=True).fill("bridges")
    expect(tab.locator(".finder [role=status]")).to_contain_text("found")
    assert any("/map/places?" in url for url in asked), "where hits lie that no tile has brought yet"


def test_the_effect_of_a_feature_is_shown_under_the_tokens(tab):
    tab.goto(f"{HERE}/28")
    example = tab.locator(".example").first
    text = example.locator("> p")
    before = text.inner_text()
    button = example.get_by_role("button", name="Take the feature away here")
    button.click()
    expect(example.locator("rt.up").first).to_have_text("+0.37")
    expect(example.locator("rt.down").first).to_have_text("−0.06")
    expect(example.locator(".effect")).to_contain_text(
        re.compile(r"cost \+\d.* nats; after a random push as far, \+?[−\d]")
    )
    expect(example.locator(".effect .up li").nth(1)).to_contain_text("<0xE2>2.0 % → 16 %+2.70")
    expect(example.locator(".effect .up li").first).to_contain_text("·Gate")
    bare = """node => {
        const copy = node.cloneNode(true);
        copy.querySelectorAll("rt").forEach(each => each.remove());
        return copy.textContent;
    }"""
    assert text.evaluate(bare) == before.replace("\xa0", " "), "the text itself is as it was"
    assert faults(tab) == []
    tab.emulate_media(color_scheme="dark")
    assert faults(tab) == []
    button.click()
    expect(example.locator("rt")).to_have_count(0)
    tab.goto(f"{HERE}/{UNEDITED_LATENT}")
    example.get_by_role("button", name="Take the feature away here").click()
    expect(example.get_by_role("alert")).to_contain_text("the edit fired for 3 rows of 9")
    tab.goto("#/million/resid_post.11/28")
    expect(tab.locator("main")).to_contain_text("The model of this run is not on the server's machine")
    expect(example.get_by_role("button", name="Take the feature away here")).to_have_count(0)


def test_matches_in_other_dictionaries_stand_beside_chance(tab):
    tab.goto(f"{HERE}/28")
    card = tab.locator(".elsewhere")
    expect(card.locator("h3")).to_have_text(["resid_post.2 chance 0.30", "million resid_post.11 of another model"])
    expect(card.locator("li span")).to_have_text(["0.91", "0.88", "0.42", "0.05", "0.28", "–"])
    expect(card.locator("li.weak")).to_have_count(1)
    expect(card).to_contain_text("Not compared: 768,000,000 numbers")
    card.get_by_role("link").first.click()
    expect(tab).to_have_url(re.compile(r"#/demo/resid_post\.2/197$"))


def give_key(box):
    box.get_by_role("textbox", name=re.compile("token")).fill(TOKEN)
    box.get_by_role("button", name="Use it").click()


def test_lists_are_made_filled_sent_and_taken_away(tab):
    tab.goto(f"{HERE}/28")
    card = tab.locator(".lists")
    card.get_by_role("textbox", name="Name of a new list").fill("a/b")
    card.get_by_role("button", name="Add").click()
    expect(card.get_by_role("alert")).to_contain_text("no slash")
    card.get_by_role("textbox", name="Name of a new list").fill("<b>جسور & 桥")
    card.get_by_role("button", name="Add").click()
    give_key(card)
    box = card.get_by_role("checkbox", name="In the list <b>جسور & 桥")
    expect(box).to_be_checked()
    tab.goto(f"{HERE.replace('.1', '.2')}/29")
    box.click()
    expect(card.locator(".number")).to_have_text("2")
    tab.goto(f"{HERE}/features?sort=latent&which=all")
    into = tab.get_by_label("Collect into")
    into.fill("<b>جسور & 桥")
    into.press("Enter")
    expect(tab.locator(".collect [role=status]")).to_have_text("2 in it")
    tab.locator("#row3 .pick").click()
    expect(tab.locator("#row3 .pick")).to_have_attribute("aria-pressed", "true")
    tab.locator(".grid-table").focus()
    tab.keyboard.press("j")
    tab.keyboard.press("l")
    expect(tab.locator(".collect [role=status]")).to_have_text("4 put in; 4 in it")
    assert "list=" in tab.url
    tab.reload()
    expect(tab.get_by_role("button", name="Take latent 3 out of the list")).to_have_attribute("aria-pressed", "true")
    assert faults(tab) == []
    tab.get_by_role("link", name=re.compile("^open")).click()
    expect(tab.locator("h1")).to_have_text("<b>جسور & 桥 4 features")
    expect(tab.locator(".listed tbody th .soft")).to_have_text(
        ["resid_post.1 / 28", "resid_post.2 / 29", "resid_post.1 / 3", "resid_post.1 / 4"]
    )
    assert faults(tab) == []
    link = tab.url
    tab.get_by_role("button", name="Take resid_post.1 3 out of the list").click()
    expect(tab.locator("h1 small")).to_have_text("3 features")
    tab.goto("#/demo/lists")
    expect(tab.locator(".all-lists li")).to_have_text([re.compile(r"<b>جسور & 桥\s*3 features")])
    tab.goto("about:blank")
    tab.goto(link)
    tab.get_by_role("button", name="Delete list").click()
    tab.get_by_role("button", name="Keep it").click()
    tab.get_by_role("button", name="Delete list").click()
    tab.get_by_role("button", name=re.compile("for everyone")).click()
    expect(tab.locator("main")).to_contain_text("None yet")
    tab.goto(link)
    expect(tab.get_by_role("alert")).to_contain_text("no such list")


def test_notes_and_labels_need_the_token(tab):
    tab.goto(f"{HERE}/29")
    notes = tab.locator(".notes")
    notes.get_by_role("textbox").fill("<b>sums</b> that carry\nגשר")
    notes.get_by_role("button", name="Add note").click()
    notes.get_by_role("textbox", name=re.compile("token")).fill("a wrong one")
    notes.get_by_role("button", name="Use it").click()
    expect(notes.locator("li")).to_have_count(0)
    notes.get_by_role("textbox", name=re.compile("token")).fill(TOKEN)
    notes.get_by_role("button", name="Use it").click()
    expect(notes.locator("li")).to_contain_text("<b>sums</b> that carry")
    tab.reload()
    expect(notes.locator("li")).to_have_count(1)
    notes.get_by_role("button", name="delete").click()
    expect(notes.locator("li")).to_have_count(0)
    tab.get_by_role("button", name="Rename").click()
    tab.get_by_label("Your label for it").fill("carrying <i>")
    tab.get_by_role("button", name="Save").click()
    expect(tab.locator("h1")).to_have_text("carrying <i>")
    expect(tab.locator(".title .status")).to_have_text("by hand")


def test_what_goes_wrong_is_said_with_a_next_step(tab):
    tab.goto(f"{HERE}/404")
    expect(tab.get_by_role("alert")).to_contain_text("catalogue block 6 is damaged")
    expect(tab.get_by_role("alert")).to_contain_text("run `mohole catalogue` again")
    tab.goto(f"{HERE}/99999")
    expect(tab.get_by_role("alert")).to_contain_text("this dictionary has 1,024")
    tab.goto("#/nobody/x/features")
    expect(tab.get_by_role("alert")).to_contain_text("nobody: no such run")
    tab.goto(f"{HERE}/features?sort=nonsense&row=nothing")
    expect(tab.locator(".rows .row").first).to_be_visible()
    tab.goto(f"{HERE}/atlas?colour=nonsense&at=nowhere&latent=none")
    expect(tab.get_by_role("button", name="frequency")).to_have_attribute("aria-pressed", "true")
    for page in ("xray", "chat"):
        tab.goto(f"#/million/resid_post.11/{page}")
        expect(tab.locator("main")).to_contain_text("The model of this run is not on the server's machine")
    tab.route("**/api/**", lambda route: route.abort())
    tab.goto("about:blank")
    tab.goto("#/")
    expect(tab.get_by_role("alert")).to_contain_text("The server does not answer")
    tab.unroute("**/api/**")
    tab.get_by_role("button", name="Try again").click()
    expect(tab.locator("h1")).to_contain_text("What these networks have learned")


def test_hostile_text_is_text(tab):
    tab.goto(f"{HERE}/{HOSTILE_LATENT}?test=<img src=x onerror=alert(1)> \u202eabc")
    expect(tab.locator("h1")).to_have_text("<script>document.title='owned'</script> ⟨202E⟩label⟨202C⟩")
    expect(tab.locator(".examples").first).to_contain_text(
        "<img src=x onerror=alert(1)> ⟨202E⟩ dlrow ⟨202C⟩ ⟨001B⟩[31m ⟨0000⟩"
    )
    expect(tab.locator(".examples .byte").first).to_have_text(re.compile("<0x(E2|82|AC)>"))
    euro = tab.locator(".examples [data-whole]").first
    expect(euro).to_have_text("<0xAC>")
    expect(euro).to_have_attribute("data-whole", "€")
    expect(tab.locator(".fired")).to_contain_text("<img src=x onerror=alert(1)> ⟨202E⟩abc")
    assert tab.locator("main img, main script, main b script").count() == 0
    assert "owned" not in tab.title()
    shown = tab.locator("main").inner_text()
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x1b]", shown)
    assert tab.locator("h1 bdi").evaluate("node => getComputedStyle(node).unicodeBidi") == "isolate"


def test_light_and_dark_are_chosen_and_remembered(tab):
    paper = "getComputedStyle(document.body).backgroundColor"
    tab.emulate_media(color_scheme="dark")
    tab.goto("#/")
    dark = tab.evaluate(paper)
    tab.get_by_role("button", name="Use light colours").click()
    light = tab.evaluate(paper)
    assert light != dark
    tab.reload()
    expect(tab.get_by_role("button", name="Use dark colours")).to_be_visible()
    assert tab.evaluate(paper) == light
