"""The page of the service, driven in a headless Chromium.

It needs playwright, axe-playwright-python and Debian's package chromium, and is skipped without
them.
"""

# ruff: noqa: E402 (these packages may not be installed)

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

for package in ("fastapi", "uvicorn", "playwright", "axe_playwright_python"):
    pytest.importorskip(package, reason=f"{package} is not installed")

import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from pixelwise.inference import InferenceOptions, Predictor
from pixelwise.serve.models import ModelStore
from pixelwise.serve.options import ServeOptions
from pixelwise.serve.server import create_app
from pixelwise.weights.stored_calibration import StoredCalibration, write_calibration

CHROMIUM = shutil.which("chromium")


@contextmanager
def serve(bundle: Path) -> Iterator[str]:
    store = ModelStore([bundle], InferenceOptions(runtime="torch"))
    config = uvicorn.Config(create_app(store, ServeOptions()), port=0, log_level="error")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined,method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def url(tiny_bundle: Path) -> Iterator[str]:
    with serve(tiny_bundle) as address:
        yield address


@pytest.fixture
def calibrated_url(tiny_bundle: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a service that flags every image."""
    bundle = tmp_path / "strict.safetensors"
    shutil.copy(tiny_bundle, bundle)
    write_calibration(bundle, StoredCalibration(1.5, 1e9, 0.05, 20))
    with serve(bundle) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "leaf one.png"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def open_page(browser: Browser, url: str, **options: Any) -> Page:
    # The page forbids evaluated scripts, which the tests need.
    context = browser.new_context(bypass_csp=True, accept_downloads=True, **options)
    page = context.new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(url)
    page.locator("#model option").first.wait_for(state="attached")
    return page


def drop(page: Page, path: Path) -> None:
    """Drop a file on the page."""
    transfer = page.evaluate_handle(
        """([name, text]) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name));
            return transfer;
        }""",
        [path.name, base64.b64encode(path.read_bytes()).decode()],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    page.locator("#classes li").first.wait_for()


def overlay_pixels(page: Page) -> np.ndarray:
    """The pixels (H, W, 4) of the drawn mask."""
    text = page.evaluate("() => viewer.mask.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2]))))


def test_a_dropped_image_shows_the_mask_of_the_service(
    browser: Browser, url: str, photo: Path, tiny_bundle: Path
) -> None:
    page = open_page(browser, url)
    drop(page, photo)
    result = Predictor.load(tiny_bundle, runtime="torch")(photo)
    colors = result.classes.color_table()[result.labels]
    drawn = overlay_pixels(page)
    np.testing.assert_array_equal(drawn[..., :3], colors)
    assert (drawn[..., 3] == 255).all()

    fractions = result.class_fractions()
    rows = page.locator("#classes li")
    assert rows.count() == len(fractions)
    name, share = next(iter(fractions.items()))
    assert f"{100 * share:.1f} %" in rows.first.inner_text()
    rows.first.locator("input").uncheck()
    hidden = overlay_pixels(page)[..., 3] == 0
    np.testing.assert_array_equal(hidden, result.labels == result.classes.names.index(name))

    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    x, y = 64 // 2 + 1, 48 // 2
    label = result.labels[y, x]
    confidence = round(100 * round(255 * float(result.probabilities[label, y, x])) / 255)
    expected = f"{result.classes.names[label]}, confidence {confidence} % (x {x}, y {y})"
    assert page.locator("#readout").inner_text() == expected
    page.context.close()


def test_every_download_is_that_of_the_service(
    browser: Browser, url: str, photo: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("rasterio", reason="rasterio is not installed")
    page = open_page(browser, url)
    drop(page, photo)
    files = {}
    for kind in ("mask", "overlay", "polygons", "table"):
        with page.expect_download() as download:
            page.locator(f"[data-download={kind}]").click()
        files[kind] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[kind])
    result = Predictor.load(tiny_bundle, runtime="torch")(photo)
    assert {path.name for path in files.values()} == {
        f"leaf one{end}" for end in (".png", "_overlay.png", ".geojson", ".csv")
    }
    np.testing.assert_array_equal(np.asarray(Image.open(files["mask"])), result.mask)
    overlay = np.asarray(result.overlay(legend=False))
    np.testing.assert_array_equal(np.asarray(Image.open(files["overlay"])), overlay)
    assert json.loads(files["polygons"].read_text())["features"]
    lines = files["table"].read_text().splitlines()
    assert len(lines) == 1 + len(result.classes)
    counts = [int(line.split(",")[1]) for line in lines[1:]]
    assert counts == [int((result.labels == i).sum()) for i in range(len(result.classes))]
    page.context.close()


def test_cleaning_changes_the_mask_the_table_and_the_downloads(
    browser: Browser, url: str, photo: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    page = open_page(browser, url)
    drop(page, photo)
    assert page.locator("#fill-holes-row").is_hidden()  # no class is called background
    assert page.locator("#flagged").is_hidden()  # the model is not calibrated
    result = Predictor.load(tiny_bundle, runtime="torch")(photo).clean(min_area=40)
    colors = result.classes.color_table()[result.labels]
    assert (overlay_pixels(page)[..., :3] != colors).any()
    with page.expect_response("**/v1/segment*"):
        page.locator("#min-area").fill("40")
        page.locator("#min-area").press("Enter")
    page.wait_for_function("() => viewer.item.options.min_area === 40")
    np.testing.assert_array_equal(overlay_pixels(page)[..., :3], colors)
    fractions = result.class_fractions().values()
    shares = [row.inner_text().split()[-2] for row in page.locator("#classes li").all()]
    assert shares == [f"{100 * share:.1f}" for share in fractions]
    with page.expect_download() as download:
        page.locator("[data-download=mask]").click()
    mask = tmp_path / "mask.png"
    download.value.save_as(mask)
    np.testing.assert_array_equal(np.asarray(Image.open(mask)), result.mask)
    page.context.close()


XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>
</rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize("place", ["exif", "xmp"])
def test_a_mask_is_not_drawn_over_an_image_that_the_browser_turns_otherwise(
    browser: Browser, url: str, photo: Path, tiny_bundle: Path, tmp_path: Path, place: str
) -> None:
    """Browsers apply the orientation of EXIF, but not that of XMP, which the service reads, too."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.jpg"
    Image.open(photo).save(turned, **{place: exif if place == "exif" else XMP.encode()})
    page = open_page(browser, url)
    drop(page, turned)
    result = Predictor.load(tiny_bundle, runtime="torch")(turned)
    assert result.labels.shape == (64, 48)
    colors = result.classes.color_table()[result.labels]
    np.testing.assert_array_equal(overlay_pixels(page)[..., :3], colors)
    assert page.evaluate("() => viewer.item.bitmap === null") is (place == "xmp")
    assert ("the mask is shown alone" in page.locator("#status").inner_text()) is (place == "xmp")
    page.context.close()


def test_an_unusual_image_is_flagged(browser: Browser, photo: Path, calibrated_url: str) -> None:
    page = open_page(browser, calibrated_url)
    drop(page, photo)
    page.get_by_text("This image is unlike the data of the model").wait_for()
    page.locator("#language").select_option("zh")
    page.get_by_text("此图像与模型的数据差异较大").wait_for()
    page.context.close()


def test_a_damaged_file_is_explained_and_the_page_goes_on(
    browser: Browser, url: str, photo: Path, tmp_path: Path
) -> None:
    page = open_page(browser, url)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    page.set_input_files("#files", [bad, photo, photo])
    page.locator("#strip button").nth(1).wait_for()
    page.locator("#sample").click()
    page.locator("#strip button").nth(2).wait_for()
    assert page.locator("#strip button").count() == 3
    page.set_input_files("#files", [bad])
    page.get_by_text("is not an image").wait_for()
    page.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_accessible(
    browser: Browser, url: str, photo: Path, theme: Any, language: str, width: int
) -> None:
    page = open_page(
        browser, url, color_scheme=theme, locale=language, viewport={"width": width, "height": 900}
    )
    assert page.locator("html").get_attribute("lang") == language[:2]
    drop(page, photo)
    violations = Axe().run(page).response["violations"]
    serious = [v for v in violations if v["impact"] in ("serious", "critical")]
    assert not serious, [(v["id"], [n["html"] for n in v["nodes"]]) for v in serious]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()
