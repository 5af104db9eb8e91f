import base64
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_runs import GOOD, LAYERS, fake_run, probe
from PIL import Image

from selftaught.analysis.audit_table import AuditRow, AuditTable
from selftaught.analysis.invariance import Distances, InvarianceTable
from selftaught.errors import UserError
from selftaught.figures import save_png
from selftaught.report import write_report
from selftaught.report.embed import picture
from selftaught.report.record import read_record
from selftaught.report.section import make_section


class Page(HTMLParser):
    """What a browser would see: tags, what they refer to, tables, headings, text."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.references: list[str] = []
        self.identifiers: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), f"a script in an attribute: {name}"
            if name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                self.references.append(value or "")
            if name == "id":
                self.identifiers.append(value or "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def report(tmp_path: Path, *runs: Path) -> Page:
    page = Page(write_report(runs, tmp_path / "out" / "report.html"))
    assert page.open == []
    return page


def test_page_loads_no_external_resources(tmp_path: Path) -> None:
    page = report(tmp_path, fake_run(tmp_path / "a"), fake_run(tmp_path / "b", seed=1))
    assert page.references
    assert [place for place in page.references if not place.startswith(("data:image/", "#"))] == []
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", page.html)
    assert len(page.identifiers) == len(set(page.identifiers))
    inside = {place[1:] for place in page.references if place.startswith("#")}
    assert inside <= set(page.identifiers)


def test_page_shows_the_probe_results(tmp_path: Path) -> None:
    page = report(tmp_path, fake_run(tmp_path / "rot"))
    body = [row for row in page.rows if row and row[0] in LAYERS]
    assert [row[0] for row in body] == list(LAYERS)
    for row, layer in zip(body, GOOD["layers"], strict=True):
        accuracy, random = layer["accuracy"], layer["random"]
        trained = [f"{accuracy:.3f} ± 0.003", f"{accuracy:.3f}"]
        expected = [*trained, f"{random:.3f} ± 0.005", f"{accuracy - random:+.3f}", "10"]
        assert row[1:] == expected
    assert GOOD["spread"] in page.text
    assert "test images 10,000" in page.text


def test_page_of_one_run_has_all_sections(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot", skipped=["broken.png: truncated"])
    page = report(tmp_path, run)
    for words in (
        "rotation on convnet from cifar10 (train)",
        "Pretraining helped: +0.160", "Probes of every layer", "614,400",
        "Pretext examples", "First-layer filters", "Skipped images", "broken.png: truncated", "2 cores of a CPU",
        f"selftaught pretrain --config {run / 'config.yaml'} --out {run}-again", "widths:", "torch 2.15.0",
    ):  # fmt: skip
        assert words in page.text
    assert page.tags.count("svg") == 3  # layers, loss, accuracy
    assert page.tags.count("img") == 2  # views, filters


def test_verdict_is_negative_if_random_weights_are_better(tmp_path: Path) -> None:
    worse = fake_run(tmp_path / "worse", probes=[probe([0.4] * 4, [0.6] * 4)])
    page = report(tmp_path, worse)
    assert "Pretraining hurt" in page.text
    assert "Pretraining helped" not in page.text
    assert 'class="verdict hurt"' in page.html


def test_overlap_with_pretraining_is_a_count_or_unknown(tmp_path: Path) -> None:
    said = {
        812: "Warning: 812 of 10,000 test images were part of the (unlabeled) pretraining set.",
        None: "It is unknown whether the test images were part of",
        True: "It is unknown whether the test images were part of",  # guessed by an earlier version
    }
    for number, (seen, words) in enumerate(said.items()):
        page = report(tmp_path, fake_run(tmp_path / str(number), probes=[{**GOOD, "overlap": seen}]))
        assert words in page.text
    assert "part of the (unlabeled)" not in report(tmp_path, fake_run(tmp_path / "none")).text


def test_several_runs_are_compared_on_one_page(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path / "a"), fake_run(tmp_path / "b", seed=1), fake_run(tmp_path / "c", task="jigsaw")]
    page = report(tmp_path, *runs)
    assert "3 runs compared" in page.text
    assert [row[0] for row in page.rows[:4]] == ["run", "a", "b", "c"]
    assert "loss of rotation" in page.text
    assert "loss of jigsaw" not in page.text  # one run has nothing to be compared with
    assert "Probe accuracy by layer on cifar10 (ridge probe)" in page.text
    assert page.text.count("Reproduce this run") == 3


def test_probes_on_different_data_have_separate_figures(tmp_path: Path) -> None:
    one = fake_run(tmp_path / "a", probes=[probe([0.5] * 4, [0.4] * 4, data="cifar10")])
    other = fake_run(tmp_path / "b", probes=[probe([0.5] * 4, [0.4] * 4, data="flowers")])
    assert "Probe accuracy by layer on" not in report(tmp_path, one, other).text


HOSTILE = "<script>alert(1)</script>\"'&amp;{{ 7 * 7 }}"


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE.replace("/", "_")
    names = [f"{HOSTILE}{number}" for number in range(4)]
    found = probe([0.5] * 4, [0.4] * 4, data=HOSTILE, layers=names, spread=HOSTILE, probe=HOSTILE)
    run = fake_run(folder, task=HOSTILE, encoder=HOSTILE, probes=[found], skipped=[HOSTILE], note=HOSTILE)
    state = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(state | {"source": HOSTILE, "hardware": HOSTILE, "status": HOSTILE}))
    log = [{"step": step, "seconds": step, "loss": 1.0, HOSTILE: 2.0} for step in range(3)]
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    for page in (report(tmp_path, run), report(tmp_path, run, fake_run(tmp_path / "b", task=HOSTILE, probes=[found]))):
        assert "script" not in page.tags
        assert HOSTILE in page.text


@pytest.mark.filterwarnings("ignore:Glyph")  # whether matplotlib's warnings are shown is up to the host process
def test_names_with_invalid_unicode_are_written(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path / os.fsdecode(name)) for name in ("회전 $x_1$".encode(), b"rot\xe9")]
    (runs[0] / "skipped.txt").write_bytes(b"caf\xe9.png: truncated\n")
    page = report(tmp_path, *runs)
    assert "회전 $x_1$" in page.text
    assert r"rot\udce9" in page.text
    assert "caf�.png" in page.text


@pytest.mark.parametrize("status", ["interrupted", "failed", "running", "strange"])
def test_unfinished_runs_are_marked(tmp_path: Path, status: str) -> None:
    page = report(tmp_path, fake_run(tmp_path / "rot", status=status, lines=60))
    assert "step 1,200 of 2,400." in page.text
    assert 'class="warning"' in page.html
    assert ("selftaught pretrain --resume --out" in page.text) == (status in ("interrupted", "failed"))


def test_runs_with_settings_only_have_a_page(tmp_path: Path) -> None:
    run = tmp_path / "bare"
    run.mkdir()
    (run / "config.yaml").write_text("{}")
    page = report(tmp_path, run)
    for words in ("No probe has been run", f"selftaught probe {run} --data", "Nothing has been logged yet", "n.a."):
        assert words in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.split()


def test_several_runs_without_probe_or_log_have_a_page(tmp_path: Path) -> None:
    page = report(tmp_path, fake_run(tmp_path / "a", probes=[], lines=0), fake_run(tmp_path / "b", probes=[], lines=1))
    assert "2 runs compared" in page.text
    assert "<h2>Comparison" not in page.html  # the runs have no probe or log in common
    assert page.text.count("No probe has been run") == 2


def test_nan_losses_are_reported(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot", lines=3)
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 80, "loss": NaN}\n{"step": 100, "loss": Infinity}\n{"step": 120, "lo')
    assert "The loss was infinite or NaN at 2 logged steps, first at step 80." in report(tmp_path, run).text


def test_small_images_are_embedded_unchanged(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot")
    page = report(tmp_path, run)
    uri = next(place for place in page.references if place.startswith("data:image/png"))
    assert base64.b64decode(uri.split(",", 1)[1]) == (run / "shown" / "views.png").read_bytes()
    assert 'width="540" height="270"' in page.html  # 270 x 135, twice as large


def test_intermediate_examples_show_their_first_row_before_the_final_ones(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot")
    pictures = torch.zeros(20, 3, 32, 32)
    for step, level in ((60, 0.2), (1200, 0.4), (2400, 0.6)):
        save_png(pictures + level, run / "shown" / f"step-{step:06d}" / "filled.png")
        save_png(pictures, run / "shown" / f"step-{step:06d}" / "views.png")  # what does not change is shown once
    save_png(pictures + 0.6, run / "shown" / "filled.png")
    save_png(pictures, run / "shown" / "views.png")
    section = make_section(read_record(run, "rot"), 0, 100_000)
    filled, views = section.shown
    assert (filled.name, views.name, views.earlier) == ("filled", "views", [])
    assert [when for when, _ in filled.earlier] == ["step 60", "step 1,200"]
    for (_, image), level in zip(filled.earlier, (51, 102), strict=True):
        content = Image.open(io.BytesIO(base64.b64decode(image.uri.split(",", 1)[1])))
        assert content.size == (8 * 34 - 2, 32)
        assert content.getpixel((5, 5)) == (level, level, level, 255)
    page = report(tmp_path, run)
    assert page.html.index("step 60") < page.html.index("step 1,200") < page.html.index("<figcaption>last")
    assert page.tags.count("img") == 5


def test_large_images_are_downscaled(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path / name) for name in "ab"]
    noise = torch.randint(0, 256, (600, 900, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    for run in runs:
        for name in ("views", "answers", "puzzles"):
            Image.fromarray(noise).save(run / "shown" / f"{name}.png")
    path = write_report(runs, tmp_path / "report.html")
    assert path.stat().st_size < 2_000_000
    assert Page(path).tags.count("img") == 8


def test_downscaled_images_resemble_the_original(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 800).astype(np.uint8)
    pixels = np.stack([np.tile(ramp, (600, 1)), np.tile(ramp[:600, None], (1, 800)), np.full((600, 800), 90)], -1)
    noisy = pixels.astype(int) + np.random.default_rng(0).integers(-4, 5, pixels.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(tmp_path / "views.png")
    found = picture(tmp_path / "views.png", tmp_path, 60_000)
    assert found is not None
    assert (found.width, found.height) == (800, 600)
    content = base64.b64decode(found.uri.split(",", 1)[1])
    assert len(content) <= 60_000
    again = np.asarray(Image.open(io.BytesIO(content)).convert("RGB").resize((800, 600))).astype(int)
    assert np.abs(again - pixels).mean() < 6


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"])
def test_unreadable_images_are_omitted(tmp_path: Path, content: bytes) -> None:
    run = fake_run(tmp_path / "rot")
    (run / "shown" / "views.png").write_bytes(content)
    page = report(tmp_path, run)
    assert page.tags.count("img") == 1  # the filters


def test_page_is_deterministic(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot")
    assert report(tmp_path, run).html == report(tmp_path, run).html


def test_user_errors_name_the_cause(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot")
    with pytest.raises(UserError, match="is a folder: give a file, such as"):
        write_report([run], tmp_path)
    with pytest.raises(UserError, match=r"no config\.yaml"):
        write_report([run, tmp_path / "nothing"], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_page_has_audit_and_invariance_with_the_used_cues(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot")
    step = json.loads((run / "run.json").read_text())["step"]
    answers = (
        AuditRow("as trained", "trained", "as trained", 0.8, "as trained", 0.8, 0.0),
        AuditRow("grayscale", "removed", "without colour", 0.79, "as trained", 0.8, 0.03),
        AuditRow("vignette", "planted", "with dark corners", 0.95, "as trained", 0.8, 0.03),
    )
    audit = AuditTable("cifar10", "accuracy", 0.25, 480, 1, answers).to_json()
    row = Distances("layer1", "rotation", 0.2, None, 0.4, None, (9,) + (0,) * 39, (0,) * 39 + (9,))
    past = InvarianceTable("cifar10", 100, 1, False, (row,)).to_json()
    for kind, found, at in (("audit", audit, step), ("invariance", past, step), ("audit", audit, step + 1)):
        (run / kind).mkdir(exist_ok=True)
        (run / kind / f"{at}.json").write_text(json.dumps({**found, "step": at}))
    page = report(tmp_path, run)
    assert page.html.count("<h2>Shortcut audit on cifar10</h2>") == 1
    assert page.html.count("<h2>Invariance of every layer on cifar10</h2>") == 1
    assert "rises from 0.80 to 0.95 with dark corners" in page.text
    assert "without colour" not in page.text
