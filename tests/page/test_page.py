"""The page in headless Chromium: an image goes in, a mesh appears, sliders change pictures, errors are in words."""

from __future__ import annotations

import io
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import trimesh
from absent import missing
from cuda_backend.host_build import ROOT
from onnx import TensorProto, helper
from PIL import Image
from selenium.webdriver.common.keys import Keys
from server.service import Running, running

from dibr_deploy.runtime import Session
from dibr_deploy.runtime.bundle import Bundle, entries, write_bundle
from dibr_deploy.runtime.images import read_pixels
from dibr_deploy.runtime.render import Predictor, turntable
from dibr_deploy.runtime.server import page as served_page
from page.browser import PHONE, Browser

SCREENSHOTS = ROOT / "build" / "page"
SLIDERS = ("azimuth", "elevation", "fov", "ambient", "strength", "light-azimuth", "light-elevation")


@pytest.fixture
def page(browser: Browser, service: Running) -> Iterator[Browser]:
    """The page, freshly opened, without movement. Afterwards: nothing was refused, lost or wrong in it."""
    browser.open(f"http://{service.http}/", prefers_reduced_motion="reduce")
    yield browser
    problems = [entry for entry in browser.log() if "SEVERE" in entry and "status of 4" not in entry]
    assert problems == []


def prediction(session: Session, photo: Path) -> dict[str, np.ndarray]:
    """What the session makes of an image."""
    predictor = Predictor(session)
    return session.run(**predictor.feed(predictor.photo(read_pixels(photo)), np.eye(4)))


def of_the_service(session: Session, photo: Path, azimuth: float, elevation: float, fov: float) -> np.ndarray:
    """What the bundle's renderer draws from there, in the light of a photo from the front, uint8 [H, W, 3]."""
    predicted = prediction(session, photo)
    given = {name: predicted[name] for name in ("vertices", "texture", "light")}
    view = turntable(predicted["vertices"][0], Predictor(session).image_size, 1, *np.radians([azimuth, elevation, fov]))
    with session.open_renderer() as renderer:
        picture = renderer.run(**given, world_to_clip=view.astype(np.float32))["image"][0]
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def covered(view: np.ndarray) -> float:
    """Share of the pixels that are not the white background."""
    return float((view < 250).any(axis=-1).mean())


def different(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the pixels that differ visibly."""
    return float((np.abs(a.astype(int) - b) > 4).any(axis=-1).mean())


def needs_viewer() -> None:
    if not served_page._viewer():
        missing("three.js is not in this installation: npm was not there when it was built")


def test_an_image_goes_in_and_a_mesh_comes_out(page: Browser, session: Session, photos: Path) -> None:
    """The picture and the mesh are those that the session gives, and the 3D view shows the mesh in the same place."""
    needs_viewer()
    assert not page["result"].is_displayed()
    page.give(photos / "first.png")
    assert page["photo"].is_displayed()
    expected = of_the_service(session, photos / "first.png", 30, 20, 40)
    assert np.abs(page.picture().astype(int) - expected).max() <= 1
    view = page.view()
    assert 0.1 < covered(view) < 0.9
    drawn = np.asarray(Image.fromarray(expected).resize(page_size(page)))[12:-12, 12:-12]
    assert drawn.shape == view.shape
    # The same silhouette, and nearly the same colours in the same light.
    assert np.mean((drawn < 250).any(axis=-1) != (view < 250).any(axis=-1)) < 0.03
    assert np.abs(drawn.astype(int) - view).mean() < 10
    page.screenshot(SCREENSHOTS / "desktop.png")


def page_size(page: Browser) -> tuple[int, int]:
    with Image.open(io.BytesIO(page["view"].screenshot_as_png)) as image:
        return image.size


def test_downloads(page: Browser, session: Session, photos: Path) -> None:
    page.give(photos / "first.png")
    names = [page[name].get_attribute("download") for name in ("download-mesh", "download-picture")]
    assert names == ["mesh.glb", "view.png"]
    loaded = trimesh.load(io.BytesIO(page.bytes_of("download-mesh", "href")), file_type="glb", force="mesh")
    outputs = prediction(session, photos / "first.png")
    assert len(loaded.faces) == len(outputs["faces"])
    assert np.allclose(loaded.bounds, [f(outputs["vertices"][0], axis=0) for f in (np.min, np.max)], atol=1e-5)
    assert page.bytes_of("download-picture", "href") == page.bytes_of("picture", "src")


def test_view_sliders(page: Browser, session: Session, photos: Path) -> None:
    """The service draws from where the sliders say, and the 3D view follows."""
    page.give(photos / "first.png")
    view = page.view()
    page.change("azimuth", [Keys.ARROW_RIGHT])
    page.change("azimuth", [Keys.PAGE_UP])
    page.change("elevation", [Keys.HOME])
    page.change("fov", [Keys.PAGE_DOWN])
    azimuth, elevation, fov = (float(page[name].get_attribute("value")) for name in ("azimuth", "elevation", "fov"))
    assert (azimuth > 31, elevation, fov < 40) == (True, -90, True)
    expected = of_the_service(session, photos / "first.png", azimuth, elevation, fov)
    page.wait(lambda: np.abs(page.picture().astype(int) - expected).max() <= 1, "the picture is not of these sliders")
    assert page["azimuth"].get_attribute("aria-valuetext") == f"{azimuth:.0f} degrees"
    assert f"{azimuth:.0f} degrees around" in page["picture"].get_attribute("alt")
    if served_page._viewer():
        assert different(view, page.view()) > 0.05


def test_light_sliders(page: Browser, photos: Path) -> None:
    """They begin at the predicted light, change the picture and the 3D view, and go back to the very same picture."""
    page.give(photos / "first.png")
    before, view = page.picture(), page.view()
    values = {name: page[name].get_attribute("value") for name in SLIDERS[3:]}
    assert float(values["strength"]) > 0.2, "the model predicts light from one side"
    page.change("ambient", [Keys.END])
    brighter = page.picture()
    lit = (before < 250).any(axis=-1)
    assert brighter[lit].mean() > before[lit].mean() + 5
    assert not different(before[~lit], brighter[~lit]), "the background has no light"
    page.change("light-azimuth", [Keys.HOME])
    assert different(brighter, page.picture()) > 0.05
    if served_page._viewer():
        assert different(view, page.view()) > 0.05
    page["predicted-light"].click()
    page.wait(lambda: np.array_equal(page.picture(), before), "the predicted light does not come back")
    assert {name: page[name].get_attribute("value") for name in values} == values


def test_a_light_that_cannot_be_changed(browser: Browser, bundle: Path, photos: Path, tmp_path: Path) -> None:
    """A bundle without a renderer of its own: the sliders are off, the page says why, and views still change."""
    whole = Bundle(bundle)
    files = {name: whole.read(name) for name in whole.manifest.files if name != whole.manifest.renderer}
    manifest = whole.manifest.model_copy(update={"files": entries(files), "renderer": None})
    with running([f"lump={write_bundle(tmp_path / 'lump.zip', manifest, files)}"]) as service:
        browser.open(f"http://{service.http}/")
        browser.give(photos / "first.png")
        assert browser["light-missing"].text == "This model draws with its predicted light alone."
        assert not any(browser[name].is_enabled() for name in (*SLIDERS[3:], "predicted-light"))
        browser.change("azimuth", [Keys.ARROW_RIGHT])


def test_another_image_replaces_the_first(page: Browser, session: Session, photos: Path) -> None:
    page.give(photos / "first.png")
    view = page.view()
    page.give(photos / "second.jpg")
    expected = of_the_service(session, photos / "second.jpg", 30, 20, 40)
    assert np.abs(page.picture().astype(int) - expected).max() <= 1
    assert page["photo"].get_attribute("alt") == "The image that was given: second.jpg"
    if served_page._viewer():
        assert different(view, page.view()) > 0.01


def test_dropped_images(page: Browser, photos: Path) -> None:
    page.script(
        """const data = new DataTransfer();
        const bytes = Uint8Array.from(arguments[0]);
        data.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
        document.getElementById("drop").dispatchEvent(
          new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));""",
        list((photos / "first.png").read_bytes()),
    )
    page.wait(lambda: page["status"].text == "The mesh of dropped.png is there.", "the dropped image is not taken")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("notes.txt", "The service refused: the image must be image/png or image/jpeg"),
        ("cut.png", "The service refused: the image cannot be read, it is cut off or no image"),
    ],
)
def test_errors_are_in_words(page: Browser, photos: Path, name: str, words: str) -> None:
    """They are announced, and the next image is as good as ever."""
    page["file"].send_keys(str(photos / name))
    page.wait(lambda: page["error"].text.startswith(words), "no words")
    assert page["error"].get_attribute("role") == "alert"
    assert page["status"].text == ""
    assert not page["result"].is_displayed()
    page.screenshot(SCREENSHOTS / "error.png")
    page.give(photos / "first.png")
    assert page["error"].text == ""


HOLD = """
const usual = window.fetch;
window.fetch = (path, options) => {
  if (options?.headers?.accept !== "image/png") return usual(path, options);
  return new Promise((answer) => {
    window.letGo = (done) => answer(usual(path, options).finally(() => setTimeout(done, 200)));
  });
};"""
"""Pictures that are asked for stay away, until they are let go."""


def test_an_error_stays_while_an_older_picture_comes(page: Browser, photos: Path) -> None:
    """The picture was asked for before the file that was refused was given."""
    page.give(photos / "first.png")
    shown = page["picture"].get_attribute("src")
    page.script(HOLD)
    page["azimuth"].send_keys(Keys.ARROW_RIGHT)
    page.wait(lambda: page.script("return Boolean(window.letGo)"), "no picture is asked for")
    page["file"].send_keys(str(photos / "notes.txt"))
    page.wait(lambda: page["error"].text, "no words")
    page.driver.execute_async_script("window.letGo(arguments[0])")
    assert page["error"].text.startswith("The service refused: the image must be")
    assert page["picture"].get_attribute("src") == shown


def test_a_service_that_has_gone(browser: Browser, bundle: Path, photos: Path) -> None:
    with running([f"lump={bundle}"]) as service:
        browser.open(f"http://{service.http}/")
        browser.give(photos / "first.png")
    browser["azimuth"].send_keys(Keys.ARROW_RIGHT)
    words = "The service cannot be reached. Is it still running?"
    browser.wait(lambda: browser["error"].text == words, "no words")
    assert browser["result"].is_displayed(), "what was there stays"


def test_an_api_key(browser: Browser, bundle: Path, photos: Path) -> None:
    """The page itself needs none; it asks for one where the service does."""
    key = "a key of sixteen letters"
    with running([f"lump={bundle}"], api_keys=(key,)) as service:
        browser.open(f"http://{service.http}/")
        browser.wait(browser["key"].is_displayed, "no key is asked for")
        assert "API key" in browser["error"].text
        browser["key"].send_keys(key + Keys.ENTER)
        browser.wait(lambda: not browser["key"].is_displayed(), "the key is not taken")
        browser.give(photos / "first.png")


def test_several_models(browser: Browser, bundle: Path, photos: Path, tmp_path: Path) -> None:
    """They can be chosen from; those that make no meshes are not offered."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "same",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
    )
    other = tmp_path / "same.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), other)
    with running([f"lump={bundle}", f"second={bundle}", str(other)]) as service:
        browser.open(f"http://{service.http}/")
        browser.wait(browser["model"].is_displayed, "no choice")
        assert browser["model"].text.split() == ["lump", "second"]
        browser["model"].send_keys("second")
        browser.give(photos / "first.png")


def test_phone_width(page: Browser, service: Running, photos: Path) -> None:
    """Nothing is wider than the screen, and everything is large enough for a finger."""
    page.open(f"http://{service.http}/", PHONE, prefers_reduced_motion="reduce")
    for give in (False, True):
        if give:
            page.give(photos / "first.png")
        width = page.script("return Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
        assert width <= PHONE[0]
    tops = [page[name].location["y"] for name in ("file", "view", "picture", "azimuth")]
    assert tops == sorted(tops), "one column"
    small = page.script(
        """return [...document.querySelectorAll("button, a, input, select")].filter((one) => one.offsetParent)
        .filter((one) => one.getBoundingClientRect().height < 44).map((one) => one.id)"""
    )
    assert small == []
    page.screenshot(SCREENSHOTS / "phone.png")


def test_keyboard_alone(page: Browser, photos: Path) -> None:
    """Tab reaches everything in the order of the page, with a visible focus; keys turn the mesh."""
    needs_viewer()
    page.give(photos / "first.png")
    page.script("document.activeElement.blur(); getSelection().removeAllRanges(); scrollTo(0, 0)")
    order = []
    for _ in range(20):
        page.press(Keys.TAB)
        name = page.script("return document.activeElement.id")
        if name in order or not name:
            break
        order.append(name)
        assert page.script("return getComputedStyle(document.activeElement).outlineStyle") != "none", name
    expected = ["file", "view", "turn", "download-mesh", "download-picture", *SLIDERS, "predicted-light"]
    assert order == expected
    page.script("document.getElementById('view').focus()")
    view = page.view()
    page.press(Keys.ARROW_LEFT)
    turned = page.view()
    assert different(view, turned) > 0.02
    page.press("+")
    assert covered(page.view()) > covered(turned) + 0.02
    page.press(Keys.TAB)
    page.press(Keys.SPACE)
    assert page["turn"].get_attribute("aria-pressed") == "true"


def test_it_turns_unless_less_motion_is_preferred(page: Browser, service: Running, photos: Path) -> None:
    needs_viewer()
    page.give(photos / "first.png")
    still = page.view()
    assert page["turn"].get_attribute("aria-pressed") == "false"
    assert not different(still, page.view())
    page.open(f"http://{service.http}/", prefers_reduced_motion="no-preference")
    page.give(photos / "first.png")
    assert page["turn"].get_attribute("aria-pressed") == "true"
    page.wait(lambda: different(still, page.view()) > 0.05, "it does not turn")
    page["turn"].click()
    assert page["turn"].get_attribute("aria-pressed") == "false"
    stopped = page.view()
    assert np.array_equal(stopped, page.view())


def test_without_three_js(browser: Browser, bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says so, and everything else works."""
    monkeypatch.setattr(served_page, "VIEWER", "absent")
    with running([f"lump={bundle}"]) as service:
        browser.open(f"http://{service.http}/")
        browser.give(photos / "first.png")
        assert "this installation of the service has no three.js" in browser["view-missing"].text
        assert not browser["view"].is_displayed()
        browser.change("azimuth", [Keys.ARROW_RIGHT])
        assert browser["download-mesh"].is_displayed()


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core, which checks the Web Content Accessibility Guidelines as far as a program can."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "fetch_headers.py"), "axe-core"], capture_output=True, text=True
    )
    if done.returncode != 0:
        missing(done.stderr.strip())
    return (Path(done.stdout.strip()) / "axe.min.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["empty", "mesh", "error", "phone"])
def test_accessibility(page: Browser, service: Running, photos: Path, axe: str, state: str, scheme: str) -> None:
    size = {"size": PHONE} if state == "phone" else {}
    page.open(f"http://{service.http}/", prefers_reduced_motion="reduce", prefers_color_scheme=scheme, **size)
    if state in ("mesh", "phone"):
        page.give(photos / "first.png")
    elif state == "error":
        page["file"].send_keys(str(photos / "notes.txt"))
        page.wait(lambda: page["error"].text, "no words")
    page.script(axe)
    found = page.driver.execute_async_script("axe.run().then(arguments[0], (error) => arguments[0](String(error)))")
    problems = [(one["id"], node["html"]) for one in found["violations"] for node in one["nodes"]]
    assert problems == []
    assert len(found["passes"]) > 15


def test_nothing_comes_from_elsewhere(page: Browser, service: Running, photos: Path) -> None:
    """And the policy refuses what would: other hosts, scripts in the page, frames around it."""
    page.give(photos / "first.png")
    names = page.script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert names
    assert [name for name in names if not name.startswith((f"http://{service.http}/", "blob:"))] == []
    violated = page.driver.execute_async_script(
        """const done = arguments[0];
        document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
        const script = document.createElement("script");
        script.textContent = "window.wasRun = true";
        document.body.append(script);"""
    )
    assert (violated, page.script("return window.wasRun")) == ("script-src-elem", None)
    page.log()


def test_headers_and_names(service: Running) -> None:
    """Strict headers on every answer; a path is a name in a table, and nothing else is ever opened."""
    with urllib.request.urlopen(f"http://{service.http}/") as answer:
        policy = answer.headers["content-security-policy"]
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    for name in ("../page.py", "..%2fpage.py", "%2e%2e/page.py", "/etc/passwd", "three", "three/../page.js", ""):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"http://{service.http}/static/{name}")
        assert error.value.code == 404, name


def test_files_are_packed_and_kept(service: Running) -> None:
    address = f"http://{service.http}/static/page.js"
    packed = urllib.request.urlopen(urllib.request.Request(address, headers={"accept-encoding": "gzip"}))
    plain = urllib.request.urlopen(address)
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(address, headers={"if-none-match": plain.headers["etag"]}))
    assert error.value.code == 304
