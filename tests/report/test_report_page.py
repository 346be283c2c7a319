"""The report in a real browser: Debian's Chromium, where it is installed."""

import shutil

import numpy as np
import pytest
import report_runs
from playwright.sync_api import sync_playwright

from rkbench.records import AXES
from rkbench.report import content, curves, page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")

MISSING = "\u2013"
METRICS = ("test/accuracy", "test/loss", "train/accuracy", "train/loss", "batch/loss")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The content of a report on a sweep, runs of another workload, one twice and one cut off."""
    folder = tmp_path_factory.mktemp("runs") / "study"
    report_runs.write_sweep(folder, points=51)
    for optimizer in ("adam", "rk4"):
        where = folder / "fashion" / optimizer
        report_runs.write_run(where, optimizer, 0.05, (0, 1), 51, "fashion_mlp")
    report_runs.write_run(folder / "twice", "rk4", 0.1, (0,), 51)
    report_runs.write_run(folder / "cut", "sgd", 0.3, (0,), 51)
    report_runs.damage(folder / "cut")
    report_runs.write_run(folder / "<br><img src=x onerror=alert(1)>%{x}", "sgd", 0.2, (0,), 51)
    return content.content([folder], 1_000)


class Opened:
    """A page that was opened from a file, with what it asked for and complained of."""

    def __init__(self, browser, file):
        self.complaints, self.requests = [], []
        self.page = browser.new_page(viewport={"width": 1600, "height": 900})
        self.page.set_default_timeout(20_000)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("html[data-ready]")

    def column(self, title):
        """The texts of a column of the table of runs."""
        return self.page.evaluate(
            """(title) => {
              const heads = [...document.querySelectorAll("#table thead th")];
              const place = heads.findIndex((head) => head.textContent === title);
              const rows = [...document.querySelectorAll("#table tbody tr")];
              return rows.map((row) => row.children[place].textContent);
            }""",
            title,
        )

    def traces(self, plot="curve-plot"):
        """[[name, x, y]] of the lines that a plot shows, without the edges of bands."""
        return self.page.evaluate(
            """(id) => document.getElementById(id).data
              .filter((trace) => trace.hoverinfo !== "skip")
              .map((trace) => [trace.name, [...trace.x], [...trace.y]])""",
            plot,
        )


@pytest.fixture(scope="module")
def opened(browser, told, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page.html(told, "A <study>"), encoding="utf-8")
    return Opened(browser, file)


def test_it_opens_from_a_file_and_asks_for_nothing_else(opened):
    assert [url for url in opened.requests if not url.startswith("data:")] == [opened.page.url]
    assert opened.page.title() == "A <study>"
    assert opened.complaints == []
    assert len(opened.column("run")) == 23
    for plot in ("curve-plot", "rate-plot", "profile-plot"):
        assert opened.page.locator(f"#{plot} svg.main-svg").count() > 0
        assert opened.traces(plot)
    assert "study/twice: seed 0 is in study/rk4/chosen already" in opened.page.inner_text(
        "#remarks"
    )


def test_sorting_both_ways_with_what_is_missing_last(opened):
    def numbers(texts):
        return [float(text.rstrip(" %")) for text in texts if text != MISSING]

    header = opened.page.locator("#table th button", has_text="final test accuracy")
    header.click()
    texts = opened.column("final test accuracy")
    ascending = numbers(texts)
    assert ascending == sorted(ascending)
    assert len(set(ascending)) > 2
    assert texts[-10:] == [MISSING] * 10  # the trials, which do not see the test set
    header.click()
    texts = opened.column("final test accuracy")
    assert numbers(texts) == ascending[::-1]
    assert texts[-10:] == [MISSING] * 10
    assert opened.page.locator("#table th[aria-sort=descending]").count() == 1


def test_filtering_by_words_and_by_choice(opened):
    box = opened.page.locator("#filter-text")
    box.fill("trial RK4")
    assert opened.column("run") == [f"study/rk4/trial-{n:03d}" for n in range(5)]
    opened.page.select_option("#filter-status", "diverged")
    assert opened.column("learning rate") == ["10"]
    box.fill("")
    opened.page.select_option("#filter-status", "")
    opened.page.select_option("#filter-task", "fashion_mlp")
    assert set(opened.column("workload")) == {"fashion_mlp"}
    opened.page.select_option("#filter-task", "")
    assert len(opened.column("run")) == 23


def test_selecting_draws_means_and_switching_the_axis_moves_them(opened, told):
    page = opened.page
    page.click("#draw-none")
    assert opened.traces() == []
    page.fill("#filter-text", "rk4/chosen")
    page.select_option("#filter-status", "done")  # the remark of another run names it too
    page.click("#draw-listed")
    page.fill("#filter-text", "")
    page.select_option("#filter-status", "")
    setting = next(s for s in told["settings"] if s["method"] == "rk4" and len(s["rows"]) == 3)
    mean = setting["means"]["test/accuracy"]
    for axis in AXES:
        page.select_option("#curve-axis", axis)
        assert opened.traces() == [["rk4: mean of 3 seeds", mean[axis], mean["y"]]]
    page.select_option("#curve-metric", "test/loss")
    assert opened.traces()[0][2] == setting["means"]["test/loss"]["y"]
    assert len(opened.column("final test loss")) == 23
    page.select_option("#curve-mode", "seeds")
    names = [name for name, _, _ in opened.traces()]
    assert names == [f"rk4, seed {seed}" for seed in range(3)]
    page.select_option("#curve-mode", "means")
    page.select_option("#curve-metric", "test/accuracy")
    page.select_option("#curve-axis", "step")
    assert "study/rk4/chosen, seeds 0, 1, 2" in page.inner_text("#drawn")
    assert opened.complaints == []


def test_accuracies_begin_at_what_all_had_reached_after_a_tenth(opened, told):
    page = opened.page
    (setting,) = [s for s in told["settings"] if s["method"] == "adam" and len(s["rows"]) == 3]
    mean = setting["means"]["test/accuracy"]["y"]
    page.click("#draw-none")
    page.check(f"[data-place='{setting['rows'][0]}']")
    shown = """() => document.getElementById("curve-plot").layout.yaxis.range"""
    low, high = page.evaluate(shown)
    assert min(mean) < mean[4] < mean[5]  # of 51 points
    assert mean[4] < low < mean[5]
    assert high > max(mean)
    page.uncheck("#curve-skip")
    low, high = page.evaluate(shown)
    assert low < min(mean)
    page.check("#curve-skip")
    page.select_option("#curve-metric", "test/loss")
    low, high = page.evaluate(shown)
    assert low < setting["means"]["test/loss"]["y"][-1]
    assert high > setting["means"]["test/loss"]["y"][0]
    page.select_option("#curve-metric", "test/accuracy")
    assert opened.complaints == []


def test_smoothing_is_a_moving_average_and_the_band_is_named(opened, told):
    page = opened.page
    (setting,) = [s for s in told["settings"] if s["method"] == "adam" and len(s["rows"]) == 3]
    page.click("#draw-none")
    page.check(f"[data-place='{setting['rows'][0]}']")
    mean = np.array(setting["means"]["test/accuracy"]["y"])
    page.locator("#curve-smoothing").fill("5")
    smooth = np.array(opened.traces()[0][2])
    np.testing.assert_allclose(smooth[2:-2], np.convolve(mean, np.ones(5) / 5, "valid"))
    assert smooth[0] == pytest.approx(mean[0])
    page.locator("#curve-smoothing").fill("1")
    edges = """() => document.getElementById("curve-plot").data.slice(0, 2).map((t) => [...t.y])"""
    error = np.array(setting["means"]["test/accuracy"]["error"])
    for band, factor, name in (("error", 1, "one standard error"), ("interval", 4.302653, "95 %")):
        page.select_option("#curve-band", band)
        low, high = np.array(page.evaluate(edges))
        np.testing.assert_allclose(high - low, 2 * factor * error, rtol=1e-3, atol=1e-12)
        assert name in page.inner_text("#curve-note")
    page.select_option("#curve-band", "error")


def test_configs_are_compared_and_unlike_workloads_are_not_drawn_together(opened):
    page = opened.page
    page.click("#draw-none")
    for name in ("study/rk4/chosen, seed 0", "study/fashion/adam, seed 0"):
        page.get_by_label(f"draw {name}", exact=True).check()
    assert len(opened.traces()) == 1
    assert "Of other workloads and not drawn here: 1 chosen seed." in page.inner_text("#curve-note")
    table = page.inner_text("#difference-table")
    fields = [line.split("\t")[0] for line in table.splitlines()[1:]]
    assert fields[1:] == ["optimizer.learning_rate", "optimizer.name", "workload"]
    assert '"adam"' in table
    assert '"rk4"' in table


def test_names_of_runs_are_text_and_nothing_else(opened):
    page = opened.page
    page.click("#draw-none")
    page.fill("#filter-text", "onerror")
    page.click("#draw-listed")
    page.fill("#filter-text", "")
    assert page.locator("img").count() == 0
    assert "<br><img src=x onerror=alert(1)>%{x}, seed 0" in page.inner_text("#drawn")
    page.evaluate("Plotly.Fx.hover('curve-plot', [{curveNumber: 0, pointNumber: 20}])")
    hovered = page.locator("#curve-plot .hoverlayer").first.text_content()
    assert "<br><img src=x onerror=alert(1)>%{x}, seed 0" in hovered
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [page.url]


def test_the_keyboard_reaches_and_works_everything(opened):
    page = opened.page
    page.focus("#filter-text")

    def active():
        return page.evaluate(
            "document.activeElement.id || document.activeElement.getAttribute('data-column')"
            " || document.activeElement.getAttribute('data-place')"
        )

    reached = [active()]
    while "curve-log" not in reached and len(reached) < 80:
        page.keyboard.press("Tab")
        reached.append(active())
        if reached[-1] == "1":  # the button that sorts by seed
            page.keyboard.press("Enter")
            assert active() == "1"  # the focus stays
    for wanted in ("filter-status", "draw-listed", "table", "13", "curve-axis", "curve-smoothing"):
        assert wanted in reached
    seeds = [int(seed) for seed in opened.column("seed")]
    assert seeds == sorted(seeds)
    page.focus("#curve-axis")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#curve-axis") == "grad_evals"
    page.focus("[data-place='0']")
    before = page.is_checked("[data-place='0']")
    page.keyboard.press("Space")
    assert page.is_checked("[data-place='0']") != before


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_it_fits_and_can_be_read(opened, width, scheme):
    page = opened.page
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.click("#draw-contenders")
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    plot = page.locator("#curve-plot svg.main-svg").first.bounding_box()
    assert 0.85 * width < plot["width"] <= width
    contrasts = page.evaluate(CONTRASTS)
    assert min(contrasts.values()) >= 4.5, contrasts
    lines = [x for x in opened.traces() if "mean" in x[0]]
    assert len(lines) == 2


# Contrast with the background (WCAG 2) of text, and of the lines, for which 3 would do.
CONTRASTS = """() => {
  const luminance = (text) => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const style = (selector) => getComputedStyle(document.querySelector(selector));
  const paper = style("body").backgroundColor;
  const found = {};
  for (const s of ["body", "#count", "nav a", ".warning"]) found[s] = ratio(style(s).color, paper);
  found["thead th"] = ratio(style("thead th").color, style("thead th").backgroundColor);
  found["axis"] = ratio(style("#curve-plot .xtick text").fill, paper);
  return found;
}"""


def test_two_hundred_long_runs_open_soon_and_stay_small(browser, told, tmp_path):
    """10,000 points each. The bound is generous: the machine may be busy."""
    rng = np.random.default_rng(0)
    metrics = {metric: rng.standard_normal(10_000) for metric in METRICS}
    seconds = np.cumsum(rng.random(10_000))
    steps = np.arange(10_000.0)
    table = {"step": steps, "grad_evals": 4 * steps, "wall_time": seconds, **metrics}
    points = curves.points_each(1_000, 200 * len(METRICS))
    long = curves.of_seed(table, METRICS, points)
    rows = [
        told["rows"][0] | {"name": f"run-{n}", "averaged": False, "curves": long}
        for n in range(200)
    ]
    file = tmp_path / "report.html"
    big = told | {"rows": rows, "points": points, "sensitivities": [], "profiles": None}
    file.write_text(page.html(big, "big"), encoding="utf-8")
    assert file.stat().st_size < 15e6
    opened = Opened(browser, file)
    assert len(opened.column("run")) == 200
    assert opened.complaints == []
    task_seconds = opened.page.evaluate("performance.now()") / 1000
    assert task_seconds < 15
    assert opened.page.locator("#table tbody tr").count() == 200
