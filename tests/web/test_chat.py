"""The Chat page in a real browser, over a real server and the built-in model: what a stranger does, and what goes wrong.

What the model cannot be brought to write (markup, half a stream, a server's refusals) is put in its place on the way to the page.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serve.conftest import serving
from tests.serve.talking import BRIDGE, HOOKPOINT, make_talking_run
from tests.web.conftest import NEEDS_APP, STATIC, faults

from mohole.act import Clamp, save_variant
from mohole.model import LanguageModel, load_model
from mohole.serve.app import make_app
from mohole.serve.models import Models

expect = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser; install mohole[dev]").expect
pytestmark = NEEDS_APP

HERE = f"#/demo/{HOOKPOINT}/chat"
SHORT = 24  # tokens of an answer, where nothing longer is needed
CLAMPED = f"{HERE}?tokens={SHORT}&steer=clamp*{HOOKPOINT}*{BRIDGE}*1"
QUESTION = "What are you?"
ASKED = f"{CLAMPED}&say={QUESTION}"
ANSWERS = "**/v1/chat/completions"
READ = [{"latent": BRIDGE, "hookpoint": HOOKPOINT}]
CLAMP = {"kind": "clamp", "latent": BRIDGE, "hookpoint": HOOKPOINT, "times_max": 1.0}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model: LanguageModel = load_model("planted", self_test=False)
    run = make_talking_run(tmp_path_factory.mktemp("talking") / "demo", model)
    save_variant(run, "golden-gate", [Clamp(BRIDGE, times_max=1.0, hookpoint=HOOKPOINT)], model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Models, "load", lambda self, run: model)
        with serving(make_app([run], "a token", models=["planted"], static=STATIC)) as found:
            label = f"{found}/api/v1/runs/demo/{HOOKPOINT}/features/{BRIDGE}/label"
            httpx.put(
                label, json={"text": "the bridge"}, headers={"Authorization": "Bearer a token"}
            ).raise_for_status()
            yield found


def side(tab: Any, name: str, turn: int = 0) -> Any:
    return tab.locator(".turn").nth(turn).get_by_role("group", name=name, exact=True)


def texts(tab: Any, turn: int = 0) -> list[str]:
    """Both answers to a message, when they are whole."""
    both = [side(tab, name, turn) for name in ("Original", "Steered")]
    for each in both:
        expect(each).to_have_attribute("aria-busy", "false")
        expect(each.locator(".stamp")).to_contain_text("tokens")
    return [each.locator(".written > p").last.text_content() for each in both]


def written(address: str, question: str = QUESTION, **more: Any) -> tuple[str, dict[str, Any]]:
    """What the server answers to somebody else who asks the same, and its stamp."""
    messages = [{"role": "user", "content": question}]
    body = {"model": "demo", "messages": messages, "temperature": 0, "max_tokens": SHORT, "seed": 1} | more
    choice = httpx.post(f"{address}/v1/chat/completions", json=body).raise_for_status().json()["choices"][0]
    return choice["message"]["content"], choice["mohole"]["stamp"]


def test_who_comes_first_sees_both_answers_of_a_preset(tab: Any, address: str, tmp_path: Path) -> None:
    for width, height, scheme in ((1280, 860, "light"), (390, 844, "dark")):
        tab.set_viewport_size({"width": width, "height": height})
        tab.emulate_media(color_scheme=scheme)
        tab.goto("about:blank")
        tab.goto(HERE)
        plain, steered = texts(tab)
        expect(tab.get_by_role("button", name="golden-gate")).to_have_attribute("aria-pressed", "true")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
        tab.screenshot(path=tmp_path / f"chat-{width}-{scheme}.png", full_page=True)
        assert faults(tab) == []
    assert plain == written(address, max_tokens=80)[0]
    assert "Golden Gate" not in plain
    known, stamp = written(address, steering={"interventions": [CLAMP]}, readings=READ, max_tokens=80)
    assert steered == known
    assert "Golden Gate" in steered
    assert stamp["n_fired"] == stamp["n_tokens"]
    said = f"steered: {stamp['n_fired']} of {stamp['n_tokens']} tokens"
    expect(side(tab, "Steered").locator(".stamp")).to_contain_text(said)
    upper, lower = (side(tab, name).bounding_box() for name in ("Original", "Steered"))
    assert upper["y"] + upper["height"] <= lower["y"], "on a phone one stands under the other"


def test_a_slider_changes_the_text_and_the_address_says_it(tab: Any, chromium: Any, address: str) -> None:
    asked: list[dict[str, Any]] = []
    tab.on("request", lambda each: asked.append(each.post_data_json) if each.url.endswith("completions") else None)
    tab.goto(ASKED)
    first = texts(tab)
    n_first = len(asked)
    slider = tab.get_by_role("slider", name="Strength of the bridge")
    slider.focus()
    for _ in range(6):
        tab.keyboard.press("ArrowLeft")
    expect(tab).to_have_url(re.compile(rf"steer=clamp\*{HOOKPOINT}\*0\*0\.4&"))
    weak = texts(tab)
    assert weak[0] == first[0]
    assert weak[1] == written(address, steering={"interventions": [CLAMP | {"times_max": 0.4}]})[0] != first[1]
    assert len(asked) == n_first + 1, "only the steered side, and only where the slider came to rest"
    tab.get_by_label("Strength of the bridge, times its maximum").fill("1")
    tab.keyboard.press("Tab")
    expect(tab).to_have_url(re.compile(r"\*0\*1&"))
    assert texts(tab) == first
    assert len(asked) == n_first + 1, "what was there is not asked for again"

    tab.get_by_label("What is done to the bridge").select_option("add")
    tab.get_by_label("Where the bridge is steered").select_option("response")
    tab.get_by_label("Strength of the bridge, times its maximum").fill("-7.5")
    tab.keyboard.press("Tab")
    expect(tab).to_have_url(re.compile(rf"steer=add\*{HOOKPOINT}\*0\*-7\.5\*response"))
    added = texts(tab)
    latent = {"kind": "latent", "latent": 0, "hookpoint": HOOKPOINT}
    add = {"kind": "add", "of": latent, "times_max": -7.5, "where": {"part": "response"}}
    known, stamp = written(address, steering={"interventions": [add]})
    assert added[1] == known
    expect(side(tab, "Steered").locator(".stamp")).to_contain_text(f"{stamp['n_moved']} moved")
    assert stamp["n_moved"] < stamp["n_fired"], "what was asked is left as it is"
    expect(slider).to_have_attribute("min", "-8")

    tab.get_by_role("button", name="Copy link").click()
    link = tab.evaluate("navigator.clipboard.readText()")
    other = chromium.new_page(base_url=address)
    other.goto(link)
    assert texts(other) == added
    other.close()
    tab.get_by_label("What is done to the bridge").select_option("ablate")
    expect(slider).to_have_count(0)
    assert (
        texts(tab)[1]
        == written(address, steering={"interventions": [{**latent, "kind": "ablate", "where": {"part": "response"}}]})[
            0
        ]
    )


def test_a_strength_that_a_sweep_found_too_much_is_named_on_a_phone_too(tab: Any, address: str) -> None:
    listed = httpx.get(f"{address}/v1/models").raise_for_status().json()
    usable = {"low": 0.25, "high": 0.875, "unit": "times its maximum", "rule": ""}
    for line in listed["data"]:
        line["mohole"]["swept"] = [{"interventions": [CLAMP], "usable": usable}]
    tab.route("**/v1/models", lambda route: route.fulfill(json=listed))
    for width in (1280, 390):
        tab.set_viewport_size({"width": width, "height": 844})
        tab.goto("about:blank")
        tab.goto(ASKED)
        verdict = tab.locator(".setting .verdict")
        expect(verdict).to_have_text("above what is usable, 0.25 to 0.875 ×")
        expect(verdict).to_be_visible()
    texts(tab)
    assert faults(tab) == []
    tab.get_by_label("Strength of the bridge, times its maximum").fill("0.875")
    tab.keyboard.press("Tab")
    expect(verdict).to_have_text("usable at 0.25 to 0.875 ×")


def test_a_preset_takes_the_place_of_another_also_one_that_no_slider_can_show(tab: Any, address: str) -> None:
    """A variant of a vector is asked for by its name alone: not on top of the clamp that another preset set."""
    listed = httpx.get(f"{address}/v1/models").raise_for_status().json()
    ours = next(line for line in listed["data"] if line["mohole"]["variant"])
    vector = ours | {"id": "demo::pushed", "mohole": ours["mohole"] | {"variant": "pushed", "interventions": None}}
    listed["data"].append(vector)
    tab.route("**/v1/models", lambda route: route.fulfill(json=listed))
    tab.goto(HERE)
    texts(tab)
    with tab.expect_request(ANSWERS) as asked:
        tab.get_by_role("button", name="pushed").click()
    assert asked.value.post_data_json["steering"] == {"variant": "pushed"}
    expect(tab).to_have_url(re.compile(r"variant=pushed"))
    assert "steer=" not in tab.url
    tab.get_by_role("button", name="golden-gate").click()
    expect(tab).to_have_url(re.compile(r"steer=clamp"))
    assert "variant=" not in tab.url


def test_an_earlier_message_is_said_otherwise_and_nothing_is_lost(tab: Any, address: str) -> None:
    tab.goto(ASKED)
    first = texts(tab)
    box = tab.get_by_label("Message to both")
    box.fill("你是谁？")
    box.press("Enter")
    second = texts(tab, 1)
    assert second[0] != second[1]
    tab.get_by_role("button", name="Edit message 1").click()
    expect(tab.get_by_label("The message, otherwise")).to_be_focused()
    tab.keyboard.press("ControlOrMeta+A")
    tab.keyboard.type("Wer bist du?")
    for unfolded in ("Sampling", "As a request"):
        tab.locator("summary", has_text=unfolded).click()
    expect(tab.locator("pre")).to_contain_text('"kind": "clamp"')
    assert faults(tab) == []
    tab.get_by_role("button", name="Ask this instead").click()
    expect(tab.locator(".turn")).to_have_count(1)
    assert texts(tab)[0] == written(address, "Wer bist du?")[0]
    expect(tab.locator(".branch")).to_have_text(re.compile(r"2 / 2"))
    tab.get_by_role("button", name="Branch before, of message 1").click()
    assert [texts(tab), texts(tab, 1)] == [first, second]
    tab.go_back()
    expect(tab.locator(".message")).to_have_text("Wer bist du?")

    tab.get_by_role("button", name=re.compile("Regenerate")).click()
    expect(tab.get_by_label("Temperature")).to_be_focused()  # at temperature 0 there is nothing else to draw
    tab.get_by_label("Temperature").fill("1")
    tab.keyboard.press("Tab")
    warm = texts(tab)
    tab.get_by_role("button", name=re.compile("Regenerate")).click()
    expect(tab).to_have_url(re.compile("seeds=2"))
    again = texts(tab)
    assert again[0] == written(address, "Wer bist du?", temperature=1, seed=2)[0]
    assert again != warm
    expect(tab.locator(".branch")).to_have_text(re.compile(r"3 / 3"))

    tab.get_by_role("link", name="the bridge").click()  # away, and back: all branches are there
    expect(tab.locator("h1")).to_contain_text("the bridge")
    tab.go_back()
    assert texts(tab) == again
    expect(tab.locator(".branch")).to_have_text(re.compile(r"3 / 3"))
    tab.get_by_role("link", name="Chat").click()  # the page's own tab takes nothing away
    assert texts(tab) == again
    tab.get_by_role("button", name="New conversation").click()
    expect(tab.locator(".turn")).to_have_count(0)
    assert faults(tab) == []


def test_features_are_found_read_and_colour_the_tokens(tab: Any, address: str, tmp_path: Path) -> None:
    tab.goto(f"{HERE}?say={QUESTION}&temperature=0.5&tokens={SHORT}")
    expect(side(tab, "Steered")).to_contain_text("Nothing is steered yet")
    finder = tab.get_by_label("Find a feature to steer by")
    finder.fill("bridge")
    tab.get_by_role("button", name=re.compile("^the bridge")).click()
    finder.fill("2")
    tab.get_by_role("button", name=re.compile("^.no label yet")).click()
    tab.get_by_label("What is done to (no label yet)").select_option("read")
    _, steered = texts(tab)
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0.5,
        "max_tokens": SHORT,
    }
    body |= {"seed": 1, "steering": {"interventions": [CLAMP | {"times_max": 1.5}]}}
    body |= {"readings": [{"latent": latent, "hookpoint": HOOKPOINT} for latent in (0, 2)]}
    choice = httpx.post(f"{address}/v1/chat/completions", json=body).json()["choices"][0]
    readings = choice["mohole"]["readings"]
    assert steered == choice["message"]["content"]
    tokens = side(tab, "Steered").locator(".at")
    seen = [each for each in readings if each["text"].strip(" ")]
    expect(tokens).to_have_count(len(seen))
    lit = "nodes => nodes.map(each => each.classList.contains('lit'))"
    for label, column in (("the bridge", 0), ("(no label yet)", 1)):
        dye = tab.get_by_role("button", name=f"Colour the tokens by {label}")
        if dye.get_attribute("aria-pressed") == "false":
            dye.click()
        expect(dye).to_have_attribute("aria-pressed", "true")
        assert tokens.evaluate_all(lit) == [each["values"][column] > 0 for each in seen]
    tokens.nth(3).click()
    card = side(tab, "Steered").locator(".readings")
    expect(card.locator(".number").first).to_contain_text(f"{seen[3]['values'][0]:.3g}".rstrip("0"))
    tab.keyboard.press("ArrowRight")
    expect(card).to_contain_text("token 5")
    assert faults(tab) == []
    tab.screenshot(path=tmp_path / "colours.png")
    dye.click()
    expect(tab).to_have_url(re.compile("colour=none"))
    expect(tab.locator(".lit")).to_have_count(0)
    tab.goto(f"#/demo/{HOOKPOINT}/2")
    tab.get_by_role("link", name="Steer with this").click()
    expect(tab.get_by_role("slider")).to_have_accessible_name("Strength of (no label yet)")
    assert texts(tab)[0] == written(address, max_tokens=80)[0], "who was here before goes on with what was said"


def said(*choices: dict[str, Any], end: str = "data: [DONE]\n\n") -> str:
    chunks = [{"index": 0, "delta": {}, "finish_reason": None} | each for each in choices]
    return "".join(f"data: {json.dumps({'choices': [each]})}\n\n" for each in chunks) + end


def tokens_of(*pairs: tuple[str, str]) -> dict[str, Any]:
    readings = [{"text": text, "token": token, "id": 1, "values": [1.0]} for text, token in pairs]
    return {"delta": {"content": "".join(text for text, _ in pairs)}, "mohole": {"readings": readings}}


LAST = {
    "finish_reason": "stop",
    "mohole": {"seed": 1, "stamp": {"n_tokens": 9, "n_fired": 9, "n_moved": 9, "key": "<b>"}},
}
STREAM = {"status": 200, "content_type": "text/event-stream"}


def test_hostile_and_foreign_text_is_shown_as_it_is(tab: Any) -> None:
    pieces = [("<img src=x onerror=alert(1)>", "<img"), ("", "<0xE2>"), ("", "<0x82>"), ("€", "<0xAC>")]
    pieces += [(" مرحبا", " مرحبا"), ("‮abc", "‮abc"), ("\n桥", "桥"), ("", "<0xF0>")]
    tab.route(ANSWERS, lambda route: route.fulfill(**STREAM, body=said(tokens_of(*pieces), LAST)))
    tab.goto(f"{CLAMPED}&say=<script>alert(1)</script>\u202eمن أنت")
    shown = texts(tab)[1]
    assert shown == "<img src=x onerror=alert(1)>€ مرحبا⟨202E⟩abc\n桥<0xF0>"
    expect(tab.locator(".message")).to_have_text("<script>alert(1)</script>⟨202E⟩من أنت")
    assert tab.locator("main img, main script").count() == 0
    euro = side(tab, "Steered").locator(".at", has_text="€")
    euro.click()
    expect(side(tab, "Steered").locator(".readings h4")).to_contain_text("<0xE2> <0x82> <0xAC>")


def test_what_goes_wrong_is_said_where_it_went_wrong(tab: Any, address: str) -> None:
    def refuse(status: int, code: str, message: str, **headers: str) -> dict[str, Any]:
        body = {"error": {"message": message, "type": "x", "param": None, "code": code}}
        return {"status": status, "headers": headers, "content_type": "application/json", "body": json.dumps(body)}

    how: dict[str, Any] = refuse(503, "overloaded", "64 requests wait", **{"Retry-After": "7"})
    keys: list[str | None] = []

    def answer(route: Any) -> None:
        keys.append(route.request.headers.get("authorization"))
        if how and "steering" in route.request.post_data_json:
            route.fulfill(**how)
        else:
            route.continue_()

    tab.route(ANSWERS, answer)
    tab.goto(ASKED)
    steered = side(tab, "Steered")
    expect(steered.get_by_role("alert")).to_contain_text("64 requests wait")
    expect(steered.get_by_role("alert")).to_contain_text("Try again in 7 s")
    expect(side(tab, "Original").locator(".stamp")).to_contain_text("as it is")
    broken = '{"error": {"message": "the hooks saw 3 of 9 tokens", "code": "not_steered"}}'
    how = STREAM | {"body": said({"delta": {"content": "Half"}}, end=f"data: {broken}\n\n")}
    steered.get_by_role("button", name="Try again").click()
    expect(steered.get_by_role("alert")).to_contain_text("the hooks saw 3 of 9 tokens")
    expect(steered.locator(".stamp")).not_to_contain_text("steered:")
    how = STREAM | {"body": said({"delta": {"content": "Half"}}, end="")}
    steered.get_by_role("button", name="Try again").click()
    expect(steered.get_by_role("alert")).to_contain_text("ended before the answer did")
    how = refuse(401, "invalid_api_key", "a wrong key")
    steered.get_by_role("button", name="Try again").click()
    key = tab.get_by_label(re.compile("who have a key"))
    expect(key).to_be_visible()
    assert faults(tab) == []
    how = {}
    key.fill("sesame")
    key.press("Enter")
    assert "Golden Gate" in texts(tab)[1]
    assert keys[-1] == "Bearer sesame"
    tab.unroute(ANSWERS)
    tab.get_by_label("What is done to the bridge").select_option("clamp")
    tab.goto(f"{HERE}?steer=clamp*{HOOKPOINT}*99999*1&say={QUESTION}")
    expect(steered.get_by_role("alert")).to_contain_text("99999")


def test_an_answer_is_stopped_by_hand_and_by_a_slider(tab: Any) -> None:
    tab.goto(HERE)
    plain = texts(tab)[0]
    tab.route(ANSWERS, lambda route: None)  # nobody answers
    tab.get_by_role("slider").focus()
    with tab.expect_request(ANSWERS):
        tab.keyboard.press("ArrowRight")
    with tab.expect_request(ANSWERS), tab.expect_event("requestfailed") as given_up:
        tab.keyboard.press("ArrowRight")
    assert '"times_max":1.1' in given_up.value.post_data, "what is no longer wanted is given up"
    with tab.expect_event("requestfailed") as given_up:
        tab.get_by_role("button", name="Stop").click()
    assert '"times_max":1.2' in given_up.value.post_data
    expect(side(tab, "Steered").locator(".stamp")).to_contain_text("stopped")
    expect(side(tab, "Steered")).to_contain_text("nothing was written yet")
    tab.unroute_all()
    tab.get_by_role("button", name="Write it again").click()
    both = texts(tab)
    assert both[0] == plain
    assert both[1]
