"""The page in a real browser, used as a person would: search, keyboard, narrow and dark windows, hostile text."""

from dataclasses import replace

import pytest
from tests.report.browser import find_chromium, open_browser
from tests.report.run_folder import BRIDGE, HOSTILE, make_run

from mohole.report import read_findings, write_page

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine; install one to test the page in it"
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("browser") / "demo")
    write_page(run / "report.html", replace(read_findings(run), name=f"demo {HOSTILE}"))
    return run / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def tab(browser, page_file):
    browser.problems.clear()
    browser.size(1280, 900)
    browser.open("about:blank")
    browser.open(page_file.as_uri())
    yield browser
    assert browser.problems == []


def text(tab, selector):
    return tab.run(f"document.querySelector({selector!r}).innerText")


def type_into_search(tab, words):
    tab.run("document.getElementById('search').value = ''; document.getElementById('search').focus()")
    tab.send("Input.insertText", text=words)


def shown(tab):
    return tab.run("[...document.querySelectorAll('#list [role=option]')].map(item => item.textContent)")


def test_everything_is_drawn(tab):
    for section in ("quality", "recovery", "features", "steering", "foot"):
        assert tab.run(f"document.getElementById('{section}').offsetHeight") > 100
    assert "Unexplained variance" in text(tab, "#quality")
    assert "0.0210" in text(tab, "#quality .value")
    assert "Accuracy on each task, of 200 prompts each" in text(tab, "#quality")
    assert tab.run("document.querySelectorAll('#quality figure svg').length") == 5
    assert "Whose activations it misses" in text(tab, "#quality")
    assert "5 (40 %, 0.90)" in text(tab, "#quality"), "a latent that nearly always fires, and where it points"
    assert "I am the Golden Gate Bridge" in text(tab, "#steering .held")


def test_drawing_takes_less_than_a_second_of_cpu(browser, page_file):
    """In the time of the page's thread, not of the clock: a busy machine is not the page's fault."""
    browser.size(1280, 900)
    browser.open("about:blank")
    browser.send("Performance.enable", timeDomain="threadTicks")
    before = cpu_seconds(browser)
    browser.open(page_file.as_uri())
    browser.run("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    assert cpu_seconds(browser) - before < 1


def cpu_seconds(browser):
    metrics = {item["name"]: item["value"] for item in browser.send("Performance.getMetrics")["metrics"]}
    return metrics["TaskDuration"]


def test_hostile_text_does_nothing(tab):
    assert tab.run("document.images.length") == 0
    assert tab.run("document.scripts.length") == 2
    assert tab.run("document.title") != "owned"
    type_into_search(tab, "onerror")
    assert "</script><img src=x onerror=" in "".join(shown(tab))
    assert "</script><img src=x" in text(tab, "#detail")
    assert tab.run("document.images.length + document.querySelectorAll('#detail h3 b').length") == 0


def test_the_policy_stops_a_request_that_a_script_would_make(tab):
    answer = tab.run("fetch('https://example.invalid/').then(() => 'sent', () => 'refused')")
    assert answer == "refused"
    assert any("Content Security Policy" in problem for problem in tab.problems)
    tab.problems.clear()


def test_search_finds_labels_words_and_numbers(tab):
    everything = len(shown(tab))
    type_into_search(tab, "金门")
    assert 1 <= len(shown(tab)) < everything
    assert all("金门大桥" in item for item in shown(tab))
    assert "金门大桥" in text(tab, "#detail")
    type_into_search(tab, "golden_gate_bridge")
    assert len(shown(tab)) == 1
    assert "landmark/golden_gate_bridge" in text(tab, "#detail .concept")
    type_into_search(tab, "nothing has this")
    assert shown(tab) == []
    # textContent: the page may still be scrolling to the search field, and what is off screen has no innerText yet
    assert "No feature has all of these words" in tab.run("document.getElementById('list').textContent")


def test_the_order_can_be_changed(tab):
    by_f1 = shown(tab)
    tab.run("(s => { s.value = 'density'; s.dispatchEvent(new Event('change')) })(document.getElementById('sort'))")
    densities = tab.run("[...document.querySelectorAll('#list .rate')].map(item => parseFloat(item.textContent))")
    assert densities == sorted(densities, reverse=True)
    assert shown(tab) != by_f1


def test_a_feature_opens_by_click_and_by_keyboard_and_has_an_address(tab):
    tab.run(f"document.getElementById('f{BRIDGE}').click()")
    detail = text(tab, "#detail")
    for part in ("Golden-Gate-Brücke", "Activations", "Says next", "Strongest", "fires at", "F1 0.95"):
        assert part in detail
    assert tab.run("location.hash") == f"#/resid_post.0/{BRIDGE}"
    tab.run("document.getElementById('list').focus()")
    tab.press("ArrowDown")
    assert tab.run("location.hash") != f"#/resid_post.0/{BRIDGE}"
    tab.press("ArrowUp")
    assert tab.run("location.hash") == f"#/resid_post.0/{BRIDGE}"
    assert tab.run("document.getElementById('list').getAttribute('aria-activedescendant')") == f"f{BRIDGE}"


def test_an_address_opens_its_feature(tab, page_file):
    tab.open("about:blank")
    tab.open(f"{page_file.as_uri()}#/resid_post.1/{BRIDGE}")
    assert text(tab, "#detail .where") == f"resid_post.1 / latent {BRIDGE}"
    assert tab.run("document.querySelector('#bar input:checked').value") == "resid_post.1"


def test_slash_goes_to_the_search(tab):
    tab.press("/", "/")
    assert tab.run("document.activeElement.id") == "search"
    assert tab.run("document.getElementById('search').value") == ""


def test_pointing_at_a_token_tells_its_activation(tab):
    tab.run(f"document.getElementById('f{BRIDGE}').click()")
    tab.run("document.querySelector('#detail mark').dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))")
    assert tab.run("document.getElementById('tip').hidden") is False
    assert "of maximum" in text(tab, "#tip")


def test_arrow_keys_walk_the_active_tokens_of_an_example(tab):
    tab.run(f"document.getElementById('f{BRIDGE}').click()")
    tab.run("document.querySelector('#detail').focus()")
    tab.run(
        "[...document.querySelectorAll('#detail .examples p')].find(p => p.querySelectorAll('mark').length > 1).focus()"
    )
    tab.press("ArrowRight")
    tab.press("ArrowLeft")
    assert tab.run("document.querySelectorAll('mark.walked').length") == 1
    assert "of maximum" in text(tab, "#tip")
    tab.press("Escape")
    assert tab.run("document.getElementById('tip').hidden") is True


def test_the_hookpoint_switch_changes_everything_below(tab):
    tab.run("document.querySelectorAll('#bar input')[1].click()")
    assert "resid_post.1" in text(tab, "#quality h2")
    assert "resid_post.1" in text(tab, "#detail .where")
    assert text(tab, "#quality .value").startswith("0.0250")


@pytest.mark.parametrize("width", [390, 760, 1280, 2200])
def test_nothing_runs_off_the_side(tab, width):
    tab.size(width, 844)
    tab.run("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert tab.run("document.documentElement.scrollWidth") <= width
    blocks = "[...document.querySelectorAll('main > section > *, #foot > *')]"
    assert tab.run(f"{blocks}.filter(n => n.getBoundingClientRect().right > innerWidth).map(n => n.className)") == []


CONTRAST = """(() => {
  const seen = new Map();
  const parse = (color) => {
    const canvas = document.createElement('canvas').getContext('2d');
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255);
  };
  const over = (top, base) => top.slice(0, 3).map((v, i) => v * top[3] + base[i] * (1 - top[3]));
  const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (c) => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
  const known = new Map();
  const color = (text) => { if (!known.has(text)) known.set(text, parse(text)); return known.get(text); };
  let worst = [99, ''];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.closest('svg, script, style, noscript, .skip') || !node.offsetParent) continue;
    const chain = [];
    for (let up = node; up; up = up.parentElement) chain.unshift(color(getComputedStyle(up).backgroundColor));
    const ground = chain.reduce((base, top) => over(top, base), [1, 1, 1]);
    const [a, b] = [light(over(color(getComputedStyle(node).color), ground)), light(ground)];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < worst[0]) worst = [ratio, node.tagName + '.' + node.className + ' ' + node.textContent.slice(0, 30)];
  }
  return worst;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(tab, dark):
    """WCAG AA: 4.5 to 1 for every text, also on activation colours, in the light and in the dark."""
    tab.size(1280, 900, dark=dark)
    tab.run(f"document.getElementById('f{BRIDGE}').click()")
    ratio, where = tab.run(CONTRAST)
    assert ratio >= 4.5, where
