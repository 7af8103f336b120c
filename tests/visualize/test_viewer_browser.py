"""The viewer's page in a headless Chromium: it opens without a network, and its controls do what they say."""

from __future__ import annotations

import colorsys
import time

import numpy as np
import pytest
from browser import Browser, find_browser

from sparsefeat.visualize.viewer import Page, ReceptiveField, view
from sparsefeat.visualize.viewer.scene import build_scene

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)"
)

EVIL = "</script><script>window.broken = 1</script>"
CANVAS = (
    slice(60, 690),
    slice(300, 1190),
)  # without the controls, the buttons and the line at the bottom


def ball(rng, count: int) -> np.ndarray:
    points = rng.normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def sphere_mesh(rows: int = 30, columns: int = 40) -> tuple[np.ndarray, np.ndarray]:
    polar, around = np.meshgrid(
        np.linspace(0.01, np.pi - 0.01, rows), np.linspace(0, 2 * np.pi, columns), indexing="ij"
    )
    vertices = np.stack(
        [np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], -1
    )
    at = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = at[:-1, :-1].ravel(), at[1:, :-1].ravel(), at[1:, 1:].ravel(), at[:-1, 1:].ravel()
    return vertices.reshape(-1, 3), np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


@pytest.fixture(scope="module")
def browser():
    opened = Browser()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A cloud and a mesh with everything on them, in one file."""
    rng = np.random.default_rng(0)
    cloud, mesh = ball(rng, 8000), sphere_mesh()
    path = tmp_path_factory.mktemp("viewer") / "page.html"
    features = [np.concatenate([p, p**2], 1) for p in (cloud, mesh[0])]
    from scipy.spatial import cKDTree

    nearest = cKDTree(mesh[0]).query(cloud)[1]
    rows = np.stack([np.arange(100), nearest[:100]], 1)
    view(
        [cloud, mesh],
        features,
        html=path,
        names=[EVIL, "ball"],
        labels=[(cloud[:, 0] > 0).astype(int), (mesh[0][:, 0] > 0).astype(int)],
        label_names=[EVIL, "right"],
        values={"height": [cloud[:, 1], mesh[0][:, 1]]},
        matches=rows,
        confidence=np.linspace(0.1, 0.9, 100),
        correct=np.arange(100) % 2 == 0,
        maps=nearest,
        receptive_field=ReceptiveField(0.5, tuned=0.4, cells=10),
        up="y",
        unit="m",
        title=f"Balls {EVIL}",
    )
    return path


@pytest.fixture
def opened(browser, page):
    browser.open(page.as_uri())
    return browser


def colored(image: np.ndarray, hue: tuple[float, float]) -> int:
    """Pixels of strong colour within a range of hues in [0, 1]."""
    pixels = image[CANVAS].reshape(-1, 3) / 255
    strong = pixels[np.ptp(pixels, axis=1) > 0.3]
    hues = np.array([colorsys.rgb_to_hsv(*p)[0] for p in strong])
    return int(((hues >= hue[0]) & (hues <= hue[1])).sum())


def changed(before: np.ndarray, after: np.ndarray) -> float:
    """Share of pixels of the view that differ clearly."""
    difference = np.abs(before[CANVAS].astype(int) - after[CANVAS].astype(int)).max(-1)
    return float((difference > 24).mean())


def text(browser: Browser, selector: str) -> str:
    return browser.run(f"document.querySelector({selector!r}).textContent")


def slide(browser: Browser, name: str, share: float) -> None:
    browser.run(
        f"(() => {{ const s = document.getElementById({name!r}); s.value = s.min + (s.max - s.min) * {share};"
        f" s.dispatchEvent(new Event('input')); }})()"
    )


def test_the_file_opens_without_errors_and_without_a_network(opened, page):
    assert opened.errors == []
    assert opened.requests == [page.as_uri()]
    image = opened.screenshot()
    # Something of many colours stands on one background.
    view_part = image[CANVAS].reshape(-1, 3)
    background = (view_part == image[70, 310]).all(1).mean()
    assert 0.3 < background < 0.9
    assert len(np.unique(view_part // 32, axis=0)) > 30


def test_the_served_page_is_the_same_and_fetches_nothing_else(browser):
    rng = np.random.default_rng(0)
    with Page(build_scene(ball(rng, 500), ball(rng, 500))).serve() as server:
        browser.open(server.url)
        assert browser.requests == [server.url]
    assert browser.errors == []


def test_a_notebooks_frame_runs_in_its_sandbox(browser, tmp_path):
    rng = np.random.default_rng(0)
    frame = Page(build_scene(ball(rng, 500), ball(rng, 500)))._repr_html_()
    ready = (
        "<script>document.documentElement.dataset.ready = 'true'</script><p id=message hidden></p>"
    )
    (tmp_path / "notebook.html").write_text(
        f"<!doctype html><meta charset=utf-8>{frame}{ready}", encoding="utf-8"
    )
    browser.open((tmp_path / "notebook.html").as_uri())
    # A sandboxed frame cannot be asked; what it draws can be seen.
    browser.wait_for_picture(
        lambda image: np.ptp(image[100:500, 300:1100].astype(int), axis=2).max() > 100
    )
    assert browser.errors == []


def test_labels_stay_text(opened):
    assert opened.run("window.broken") is None
    assert opened.run("document.title") == f"Balls {EVIL}"
    assert text(opened, "h1") == f"Balls {EVIL}"
    assert text(opened, ".shape .name") == EVIL
    opened.press("3")
    assert [
        opened.run(f"document.querySelectorAll('.classes > div')[{k}].textContent") for k in (0, 1)
    ] == [EVIL, "right"]
    assert (
        opened.run("document.scripts.length") == 3
    )  # the data's own element is taken out once read


def test_a_click_colours_both_shapes_by_distance(opened):
    before = opened.screenshot()
    opened.click(520, 380)
    after = opened.screenshot()
    # Left and right half of the view: both shapes.
    for half in (slice(300, 740), slice(740, 1190)):
        difference = np.abs(before[60:690, half].astype(int) - after[60:690, half].astype(int)).max(
            -1
        )
        assert (difference > 24).mean() > 0.1
    assert text(opened, "#layers [aria-pressed=true]") == "Distance"
    assert "distance 0" in text(opened, "#readout") and "point" in text(opened, "#readout")
    # The most similar point of the other shape is marked.
    assert opened.run("document.querySelectorAll('.marker:not([hidden])').length") == 2
    opened.press("Escape")
    assert text(opened, "#layers [aria-pressed=true]") == "Features"
    assert changed(before, opened.screenshot()) < 0.01


def test_the_point_that_is_named_is_the_one_under_the_cursor(opened):
    for x in (470, 560, 900, 1000):
        opened.click(x, 350)
        off = np.inf
        for _ in range(30):  # the marker moves with the next frame that is drawn
            place = opened.run(
                "(() => { const r = document.querySelector('.marker.picked:not([hidden])').getBoundingClientRect();"
                " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
            )
            off = np.hypot(place[0] - x, place[1] - 350)
            # Corners of the mesh's triangles lie about ten pixels from their middles.
            if off < 16:
                break
            time.sleep(0.1)
        assert off < 16


def test_a_picked_point_far_from_the_origin_is_named_to_the_millimetre(browser, tmp_path):
    points = ball(np.random.default_rng(0), 8000) + [523_456.0, 4_823_456.0, 300.0]
    path = tmp_path / "far.html"
    view(points, html=path, up="y", unit="m")
    browser.open(path.as_uri())
    browser.click(740, 380)
    name, place = text(browser, "#readout").split(", point ")[1].split(" (")
    row = int(name.replace("\u202f", ""))
    assert place.endswith(" m)")
    shown = [float(number) for number in place.removesuffix(" m)").split(", ")]
    np.testing.assert_allclose(shown, points[row], atol=6e-4, rtol=0)


def test_the_confidence_slider_hides_lines(opened):
    opened.press("6")  # one tint per shape, so that green and red are lines
    full = opened.screenshot()
    slide(opened, "confidence", 0.5)
    half = opened.screenshot()
    slide(opened, "confidence", 1.0)
    none = opened.screenshot()
    greens = [colored(image, (0.33, 0.45)) for image in (full, half, none)]
    reds = [
        colored(image, (0.97, 1.0)) + colored(image, (0.0, 0.03)) for image in (full, half, none)
    ]
    for found in (greens, reds):
        assert found[0] > 1.5 * found[1] > 0 and found[2] < 0.02 * found[0]
    assert text(opened, "#match-count").startswith("0 of 100 shown")


def test_right_and_wrong_matches_are_hidden_by_kind(opened):
    opened.press("6")
    assert text(opened, "#match-count") == "100 of 100 shown, 50 % of them right"
    opened.run("document.getElementById('matches-0').click()")
    image = opened.screenshot()
    assert text(opened, "#match-count") == "50 of 100 shown, 100 % of them right"
    assert colored(image, (0.33, 0.45)) > 100 and colored(image, (0.97, 1.0)) < 20


def test_the_receptive_field_is_drawn_at_its_size_and_the_tuned_size_is_marked(opened):
    assert "tuned: 0.4 m" in text(opened, "#panel")
    assert "0.5 m (voxel 0.05 m)" in text(opened, "#panel")
    opened.click(520, 380)
    small = opened.screenshot()
    slide(opened, "field", 0.95)
    large = opened.screenshot()
    assert changed(small, large) > 0.002


def test_layers_legends_and_keys(opened):
    names = opened.run("[...document.querySelectorAll('#layers button')].map((b) => b.textContent)")
    assert names == ["Features", "Distance", "Labels", "height", "Map", "Shapes"]
    seen = [opened.screenshot()]
    for key, name in (("3", "Labels"), ("4", "height"), ("5", "Map"), ("6", "Shapes")):
        opened.press(key)
        assert text(opened, "#layers [aria-pressed=true]") == name
        seen.append(opened.screenshot())
        assert changed(seen[-2], seen[-1]) > 0.1
    opened.press("4")
    assert text(opened, "#legend .ends") == "-11"
    opened.press("?")
    assert opened.run("document.getElementById('help').open")
    assert "Esc" in text(opened, "#help")
    opened.press("?")
    assert not opened.run("document.getElementById('help').open")
    assert opened.errors == []


def test_on_a_mapped_point_the_point_it_maps_to_is_marked(opened):
    opened.press("5")
    opened.click(520, 380)
    assert text(opened, "#layers [aria-pressed=true]") == "Map"
    assert opened.run("document.querySelectorAll('.marker:not([hidden])').length") == 2


def test_shapes_move_together_and_back(opened):
    apart = opened.screenshot()
    opened.press(" ")
    together = opened.screenshot()
    assert opened.run("document.getElementById('together').getAttribute('aria-pressed')") == "true"
    assert changed(apart, together) > 0.2
    opened.press(" ")
    assert changed(apart, opened.screenshot()) < 0.01


def test_the_cut_takes_the_top_away_and_reset_brings_it_back(opened):
    whole = opened.screenshot()
    slide(opened, "cut", 0.6)
    cut = opened.screenshot()
    background = whole[70, 310]
    empty = [(image[CANVAS] == background).all(-1).mean() for image in (whole, cut)]
    assert empty[1] > empty[0] + 0.05
    opened.press("r")
    assert changed(whole, opened.screenshot()) < 0.01


def test_dark_and_light(opened):
    light = opened.screenshot()
    opened.press("t")
    dark = opened.screenshot()
    assert light[70, 310].min() > 200 and dark[70, 310].max() < 60


def test_a_picture_is_a_png_of_the_view(opened):
    opened.run(
        "(() => { const make = URL.createObjectURL;"
        " URL.createObjectURL = (blob) => { window.saved = [blob.type, blob.size]; "
        " return make.call(URL, blob); };"
        " HTMLAnchorElement.prototype.click = function () { window.name0 = this.download; }; })()"
    )
    opened.press("p")
    opened.wait("window.name0 !== undefined")
    kind, size = opened.run("window.saved")
    assert kind == "image/png" and size > 20_000 and opened.run("window.name0") == "view.png"
