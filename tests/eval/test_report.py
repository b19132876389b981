import base64
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from PIL import Image

from hildaft.eval.figures import plot_success
from hildaft.eval.report import write_report
from hildaft.eval.run_data import group_runs, read_run
from hildaft.types import HilDaftError
from run_folders import TASKS


class Page(HTMLParser):
    """Checks nesting and collects text, links and images."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.sources, self.links = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if "src" in values:
            self.sources.append(values["src"])
        if "href" in values:
            self.links.append(values["href"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        del tag, attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(path):
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_is_complete_in_itself(reported):
    run, path = reported
    assert path == run / "report" / "index.html"
    page = page_of(path)
    assert page.links == []
    assert "@import" not in path.read_text()
    kinds = [source.split(";")[0] for source in page.sources]
    # Eight learning curves and the losses; a first, a middle and a last strip of three tasks.
    assert kinds.count("data:image/svg+xml") == 9
    assert kinds.count("data:image/jpeg") == 9
    for source in page.sources:
        data = base64.b64decode(source.split(",")[1])
        if source.startswith("data:image/jpeg"):
            assert Image.open(io.BytesIO(data)).width > 1000
        else:
            assert ElementTree.fromstring(data).tag.endswith("svg")


def test_the_headline_and_table_say_what_was_measured(reported):
    run, path = reported
    data = read_run(run)
    text = " ".join(page_of(path).text)
    before, after = data.before.result, data.after.result
    assert f"Success {100 * before.success_rate:.0f} % after warm-up" in text
    assert f"{100 * after.success_rate:.0f} % after fine-tuning" in text
    for task, first, last in zip(TASKS, before.tasks, after.tasks, strict=True):
        assert task in text
        assert f"{first.successes} of 20 before · {last.successes} of 20 after" in text
    assert "hildaft train --preset hildaft --seed 0" in text
    assert "0123456789abcdef" in text


def test_seeds_of_one_preset_are_pooled_and_presets_set_side_by_side(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", seed=1), make_run("c", seed=2, preset="paper")]
    path = write_report(runs, tmp_path / "all" / "page.html")
    text = " ".join(page_of(path).text)
    assert "2 methods, 3 runs" in text
    assert "Comparison" in text
    assert re.search(r"\d+ of 100 before · \d+ of 100 after", text)
    assert re.search(r"\d+ of 50 before", text)


def test_runs_of_one_preset_that_were_changed_are_not_pooled(make_run, tmp_path):
    runs = [make_run(name, seed=seed) for seed, name in enumerate("abc")]
    for seed, run in enumerate(runs):
        weight = 0.5 if seed == 2 else 1.0
        text = (
            f"seed: {seed}\nmethod:\n  joint_weight: {weight}\nevaluation: {{episodes: {seed}}}\n"
        )
        (run / "config.yaml").write_text(text)
    groups = group_runs([read_run(run) for run in runs])
    assert [(group.name, len(group.runs)) for group in groups] == [
        ("hildaft", 2),
        ("hildaft, method.joint_weight 0.5", 1),
    ]


def test_a_run_that_has_only_begun_still_has_a_page(tmp_path):
    run = tmp_path / "young"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 1\n")
    text = " ".join(page_of(write_report([run])).text)
    assert "No evaluation yet" in text
    assert "not recorded" in text


def test_text_of_the_run_is_escaped(reported):
    _, path = reported
    assert "<script" not in path.read_text()
    assert "<script>alert(1)" in " ".join(page_of(path).text)


def test_the_same_run_gives_the_same_figures(reported):
    [group] = group_runs([read_run(reported[0])])
    one, other = (plot_success(group, against="transitions") for _ in range(2))
    assert one == other


def test_a_missing_or_foreign_folder_is_named(tmp_path):
    with pytest.raises(HilDaftError, match="nowhere does not exist"):
        write_report([tmp_path / "nowhere"])
    (tmp_path / "photos").mkdir()
    with pytest.raises(HilDaftError, match="photos is not one of ours"):
        write_report([tmp_path / "photos"])
    (tmp_path / "photos" / "config.yaml").write_text("[: broken")
    with pytest.raises(HilDaftError, match="photos is not one of ours") as caught:
        write_report([tmp_path / "photos"])
    assert "\n" not in str(caught.value)
    with pytest.raises(HilDaftError, match="at least one run folder"):
        write_report([])
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["config.yaml"]


def test_a_damaged_episode_is_named_and_no_old_page_is_lost(reported):
    run, path = reported
    old = path.read_bytes()
    [damaged] = (run / "episodes").glob("000000-*")
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    try:
        with pytest.raises(HilDaftError, match="000000-upright-online"):
            write_report([run])
    finally:
        damaged.write_bytes(whole)
    assert path.read_bytes() == old
