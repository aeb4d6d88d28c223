import copy
import re
import warnings
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from sercli.errors import ConfigError, OutputError
from sercli.reporting.canvas import render_plot
from sercli.reporting.documents import (
    escape_markdown,
    render_html,
    render_markdown,
    write_report,
)
from sercli.reporting.folder import prepare_report
from sercli.reporting.plots import (
    MAX_SPEAKERS,
    draw_confusion,
    draw_coverage,
    draw_plots,
    draw_reliability,
    draw_speakers,
    draw_stress,
    plot_names,
)

ALL_PLOTS = ("confusion", "reliability", "coverage", "speakers", "stress")
VOID = {"meta"}

Tables = list[list[list[str]]]


def group(n_segments: int, accuracy: float, uar: float | None) -> dict[str, Any]:
    return {"n_segments": n_segments, "accuracy": accuracy, "uar": uar, "macro_f1": uar}


FIGURES: dict[str, Any] = {
    "schema": 1,
    "ser_version": "0.2.0",
    "model": "svm",
    "sha256": "7dd1d91f",
    "corpus": "cremad",
    "split": "test",
    "adapt": "none",
    "protocol": "speakers apart",
    "warnings": ["Few speakers; the intervals are rough."],
    "labels": ["anger", "fear", "sadness"],
    "labels_left_out": {"model": ["disgust"], "corpus": {"boredom": 23, "calm": 1}},
    "left_out": {"digital silence": 2},
    "failed": {"a.wav": "a.wav: holds no samples"},
    "speakers": ["1048", "1071", "1090"],
    "n_segments": 40,
    "accuracy": 0.625,
    "uar": 0.6111,
    "macro_f1": 0.6022,
    "ece": 0.0875,
    "exact_ece": {"mean": 0.05, "interval": [0.031, 0.074]},
    "nll": 1.2345,
    "brier": 0.5432,
    "intervals": {
        "level": 0.95,
        "resampled": "speakers",
        "n_resamples": 2000,
        "seed": 7,
        "figures": {
            "accuracy": [0.511, 0.733],
            "uar": [0.501, 0.701],
            "macro_f1": [0.502, 0.702],
            "ece": [0.051, 0.121],
            "nll": [1.101, 1.401],
            "brier": [0.503, 0.603],
        },
    },
    "classes": {
        "anger": {"precision": 0.7501, "recall": 0.7502, "f1": 0.7503, "support": 20},
        "fear": {"precision": 0.5004, "recall": 0.5005, "f1": 0.5006, "support": 20},
        "sadness": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    },
    "confusion": [[15, 4, 1], [7, 10, 3], [0, 0, 0]],
    "reliability": [
        {"confidence": 0.45, "accuracy": 0.4, "n": 20},
        {"confidence": 0.75, "accuracy": 0.85, "n": 20},
    ],
    "coverage": [
        {"threshold": 0.35, "coverage": 1.0, "accuracy": 0.625},
        {"threshold": 0.72, "coverage": 0.5, "accuracy": 0.85},
        {"threshold": 0.93, "coverage": 0.05, "accuracy": 1.0},
    ],
    "target_precision": {"target": 0.8, "threshold": 0.712, "coverage": 0.525, "precision": 0.81},
    "breakdown": {
        "speaker": {
            "1048": group(15, 0.8, 0.79),
            "1071": group(10, 0.3, None),
            "1090": group(15, 0.7, 0.71),
        },
        "sex": {"male": group(25, 0.66, 0.65), "female": group(15, 0.55, 0.54)},
        "sentence": {f"S{i}": group(5, (i * 3 % 8) / 10, 0.5) for i in range(8)},
    },
    "worst_speakers": ["1071"],
    "listeners": {
        "n_segments": 39,
        "n_votes": 301,
        "other_votes": {"calm": 20, "joy": 10},
        "listener": {"accuracy": 0.411, "jensen_shannon": 0.441},
        "majority": {"accuracy": 0.471},
        "model": {"accuracy": 0.621, "cross_entropy": 1.421, "jensen_shannon": 0.291},
        "constant": {"accuracy": 0.171, "cross_entropy": 1.721, "jensen_shannon": 0.381},
        "floor": {"cross_entropy": 1.051},
    },
    "stress": {
        "seed": 3,
        "conditions": {
            "clean": {"uar": 0.61, "accuracy": 0.62, "ece": 0.08, "drop": 0.0, "unchanged": 1.0},
            "phone": {"uar": 0.5, "accuracy": 0.52, "ece": 0.13, "drop": 0.11, "unchanged": 0.7},
            "clip": {"uar": None, "accuracy": 0.5, "ece": 0.1, "drop": None, "unchanged": 0.6},
        },
    },
    "target": "intended",
    "precision": "fp32",
    "precisions": {
        "bf16": {
            "uar": 0.613,
            "accuracy": 0.626,
            "ece": 0.085,
            "drop": -0.002,
            "unchanged": 0.999,
            "change": 0.027,
        },
    },
    "baselines": {
        "majority": {
            "accuracy": 0.5,
            "uar": 0.3331,
            "macro_f1": 0.2221,
            "ece": 0.01,
            "nll": 0.69,
            "brier": 0.499,
        }
    },
}


def figures(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(FIGURES) | changes


class Page(HTMLParser):
    """Tables, ids and tags of a page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: Tables = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._references: set[str] = set()
        self.feed(text)
        self.close()
        assert not self._open
        assert self._references <= set(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            self._references |= set(re.findall(r"url\(#(.+?)\)", value or ""))
            if name == "xlink:href" and value and value.startswith("#"):
                self._references.add(value[1:])

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open and self._open[-1] in {"td", "th"}:
            self.tables[-1][-1][-1] += data


def inline_plots(data: dict[str, Any]) -> dict[str, str]:
    return {
        name: render_plot(figure, name, "svg").decode() for name, figure in draw_plots(data).items()
    }


def read_markdown_tables(text: str) -> Tables:
    tables: Tables = []
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        if not lines[0].startswith("|"):
            continue
        rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in (lines[0], *lines[2:])
        ]
        assert len({len(row) for row in rows}) == 1
        tables.append(rows)
    return tables


def find_table(tables: Tables, *head: str) -> list[list[str]]:
    (table,) = [table for table in tables if table[0] == list(head)]
    return table[1:]


def check_tables(tables: Tables) -> None:
    assert find_table(tables, "figure", "better if", "value", "95% from", "95% to") == [
        ["UAR", "higher", "0.611", "0.501", "0.701"],
        ["accuracy", "higher", "0.625", "0.511", "0.733"],
        ["macro-F1", "higher", "0.602", "0.502", "0.702"],
        ["ECE", "lower", "0.087", "0.051", "0.121"],
        ["NLL", "lower", "1.234", "1.101", "1.401"],
        ["Brier", "lower", "0.543", "0.503", "0.603"],
    ]
    assert find_table(tables, "label", "precision", "recall", "F1", "segments") == [
        ["anger", "0.750", "0.750", "0.750", "20"],
        ["fear", "0.500", "0.500", "0.501", "20"],
        ["sadness", "0.000", "n/a", "0.000", "0"],
    ]
    assert find_table(tables, "true", "anger", "fear", "sadness") == [
        ["anger", "15", "4", "1"],
        ["fear", "7", "10", "3"],
        ["sadness", "0", "0", "0"],
    ]
    assert find_table(tables, "speaker", "segments", "UAR", "accuracy", "macro-F1") == [
        ["1071", "10", "n/a", "0.300", "n/a"],
        ["1090", "15", "0.710", "0.700", "0.710"],
        ["1048", "15", "0.790", "0.800", "0.790"],
    ]
    sexes = find_table(tables, "sex", "segments", "UAR", "accuracy", "macro-F1")
    assert [(row[0], row[3]) for row in sexes] == [("male", "0.660"), ("female", "0.550")]
    sentences = find_table(tables, "sentence", "segments", "UAR", "accuracy", "macro-F1")
    assert [row[0] for row in sentences] == ["S0", "S3", "S6", "S1", "S4", "S7", "S2", "S5"]
    assert find_table(tables, "threshold", "coverage", "accuracy") == [
        ["0.350", "1.000", "0.625"],
        ["0.720", "0.500", "0.850"],
        ["0.930", "0.050", "1.000"],
    ]
    assert find_table(tables, "mean confidence", "accuracy", "segments") == [
        ["0.450", "0.400", "20"],
        ["0.750", "0.850", "20"],
    ]
    assert find_table(tables, "who", "accuracy", "cross-entropy", "divergence") == [
        ["model", "0.621", "1.421", "0.291"],
        ["one listener", "0.411", "n/a", "0.441"],
        ["majority of listeners", "0.471", "n/a", "n/a"],
        ["constant answer", "0.171", "1.721", "0.381"],
        ["votes themselves", "n/a", "1.051", "n/a"],
    ]
    head = ("condition", "UAR", "drop", "accuracy", "ECE", "unchanged")
    assert find_table(tables, *head)[1:] == [
        ["phone", "0.500", "0.110", "0.520", "0.130", "0.700"],
        ["clip", "n/a", "n/a", "0.500", "0.100", "0.600"],
    ]
    head = ("number type", "UAR", "drop", "ECE", "unchanged", "change")
    assert find_table(tables, *head) == [["bf16", "0.613", "-0.002", "0.085", "0.999", "0.027"]]
    assert find_table(tables, "model", "UAR", "accuracy", "macro-F1", "ECE", "NLL", "Brier") == [
        ["svm", "0.611", "0.625", "0.602", "0.087", "1.234", "0.543"],
        ["majority", "0.333", "0.500", "0.222", "0.010", "0.690", "0.499"],
    ]
    assert find_table(tables, "left out because", "files") == [["digital silence", "2"]]
    assert find_table(tables, "clip", "error") == [["a.wav", "a.wav: holds no samples"]]
    assert ["SHA-256", "7dd1d91f"] in find_table(tables, "item", "value")


def test_markdown_holds_the_figures() -> None:
    text = render_markdown(figures())
    check_tables(read_markdown_tables(text))
    assert text.startswith(
        "# svm on cremad, test split\n\n> **Warning:** Few speakers; the intervals are rough.\n"
    )
    for sentence in (
        "40 segments of 3 speakers.",
        "Speakers apart: the model was not trained on any of these speakers, as far as their names "
        "and the audio of their clips show.",
        "Random guessing among 3 labels gives a UAR of 0.333.",
        ": disgust. Its probabilities are renormalised over the other labels.",
        ": boredom (23 clips), calm (1 clip). Their clips are not scored.",
        "The 95% intervals come from 2000 bootstrap resamples of speakers (seed 7).",
        "The mean confidence is 0.600 and the accuracy 0.625: on average, the model is "
        "underconfident by 0.025, which may be chance on so few segments.",
        "To reach a precision of 0.800, keep labels with a confidence of 0.712 or more: they are "
        "0.525 of all labels, and 0.810 of them are right.",
        "those that ser annotate writes: over all labels of the model, including disgust, which "
        "are never right here.",
        "Lowest accuracy: 1071 (0.300 of 10).",
        "301 votes of listeners on 39 segments.",
        "A share of 0.100 of the votes is for labels that were not scored: calm (20), joy (10).",
        "The random seed is 3.",
    ):
        assert sentence in text
    links = re.findall(r"!\[.+?\]\((.+?)\)", text)
    assert links == [f"{name}.png" for name in ALL_PLOTS]


def test_html_holds_the_figures_and_needs_nothing_else() -> None:
    data = figures()
    text = render_html(data, inline_plots(data))
    page = Page(text)
    check_tables(page.tables)
    assert page.tags.count("svg") == len(ALL_PLOTS)
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids)) > 100
    assert "<?xml" not in text
    assert text.count("<!DOCTYPE") == 1
    rest = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert not re.search(r"https?://|@import|file://", rest)
    assert not re.search(r"url\((?!#)", rest)
    assert "data:" not in rest
    # The warnings come before any figure.
    assert text.index("Few speakers") < text.index("Main figures") < text.index("<table>")


def test_names_are_escaped() -> None:
    names = ["<b>anger</b>", "a|b*c", "x_y & $z$"]
    data = figures(
        labels=names,
        classes=dict(zip(names, FIGURES["classes"].values(), strict=True)),
        warnings=["<script>alert(1)</script>"],
        failed={"<i>.wav": "<i>.wav: broken\n| at the end"},
        worst_speakers=["<b>1</b>"],
    )
    data["breakdown"]["speaker"] = {"<b>1</b>": group(9, 0.5, 0.5)}
    page = Page(render_html(data, inline_plots(data)))
    assert not {"b", "i", "script"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.text
    counts = find_table(page.tables, "true", *names)
    assert counts[0] == ["<b>anger</b>", "15", "4", "1"]
    assert find_table(page.tables, "clip", "error") == [
        ["<i>.wav", "<i>.wav: broken\n| at the end"]
    ]
    markdown = render_markdown(data)
    assert not re.search(r"<[a-z/]", markdown)
    tables = read_markdown_tables(markdown)
    assert find_table(tables, "clip", "error") == [
        ["&lt;i&gt;.wav", r"&lt;i&gt;.wav: broken \| at the end"]
    ]
    head = ("true", "&lt;b&gt;anger&lt;/b&gt;", r"a\|b\*c", r"x\_y &amp; \$z\$")
    assert find_table(tables, *head)[1][1:] == ["7", "10", "3"]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("a\n b", "a b"), ("[x](y)", r"\[x\](y)"), ("c:\\d", r"c:\\d"), ("!# `", r"\!\# \`")],
)
def test_markdown_escapes(text: str, escaped: str) -> None:
    assert escape_markdown(text) == escaped


def test_empty_sections_are_left_out() -> None:
    data = figures(
        warnings=[],
        labels_left_out={"model": [], "corpus": {}},
        left_out={},
        failed={},
        speakers=[],
        protocol="speakers unknown",
        target_precision=None,
        breakdown={},
        worst_speakers=[],
        listeners=None,
        stress=None,
        precisions=None,
        baselines=None,
    )
    data["intervals"]["resampled"] = "segments"
    assert plot_names(data) == ("confusion", "reliability", "coverage")
    text = render_markdown(data)
    assert re.findall("^## (.+)$", text, re.MULTILINE) == [
        "Main figures",
        "How it was measured",
        "Labels",
        "Confusion",
        "Calibration",
        "Confidence as a filter",
        "Glossary",
        "To reproduce these figures",
    ]
    assert "Warning" not in text
    assert "40 segments.\n" in text
    assert "bootstrap resamples of segments" in text
    assert "too narrow" in text
    assert "precision of" not in text
    page = Page(render_html(data, inline_plots(data)))
    assert "aside" not in page.tags


def test_labels_that_another_compared_model_lacks() -> None:
    text = render_markdown(figures())
    assert "Labels of the model that no segment has: " in text
    assert "Labels of the corpus that the model does not have: " in text
    left_out = {"model": ["boredom", "disgust"], "corpus": {"boredom": 23, "calm": 1}}
    text = render_markdown(figures(labels_left_out=left_out))
    assert "Labels of the model that no segment or not every compared model has: boredom," in text
    assert "Labels of the corpus that not every compared model has: boredom (23 clips)," in text


def test_many_failed_files_are_cut_short() -> None:
    failed = {f"{i}.wav": "broken" for i in range(30)}
    text = render_markdown(figures(failed=failed))
    assert "30 clips failed and had to be left out, the first 20; all are in metrics.json" in text
    assert len(find_table(read_markdown_tables(text), "clip", "error")) == 20


def test_recordings_that_were_repaired_are_named() -> None:
    text = render_markdown(figures(repaired={f"{i}.wav": ["odd", "cut"] for i in range(30)}))
    assert "Warnings about recordings, the first ones; all are in metrics.json" in text
    table = find_table(read_markdown_tables(text), "recording", "warning")
    assert table[:3] == [["0.wav", "odd"], ["0.wav", "cut"], ["1.wav", "odd"]]
    assert len(table) == 20
    assert "Warnings about recordings" not in render_markdown(figures(repaired={}))


def test_a_target_that_is_not_reached() -> None:
    found = {"target": 0.99, "threshold": None, "coverage": None, "precision": None}
    data = figures(target_precision=found)
    text = render_markdown(data)
    assert "No threshold that keeps enough segments reaches a precision of 0.990." in text
    (legend,) = [axes.get_legend() for axes in draw_coverage(data).axes]
    assert legend is not None
    assert "precision 0.99: not reached" in [one.get_text() for one in legend.get_texts()]


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [
        (0.3, "overconfident by 0.300."),
        # Of 40 exact probabilities, the mean differs by up to 0.145 in 95 % of cases.
        (0.451, "overconfident by 0.149."),
        (0.5, "overconfident by 0.100, which may be chance on so few segments."),
        (0.6002, "neither overconfident nor underconfident."),
    ],
)
def test_verdict_on_confidence(accuracy: float, verdict: str) -> None:
    assert f"on average, the model is {verdict}" in render_markdown(figures(accuracy=accuracy))


def test_calibration_tells_what_chance_would_do() -> None:
    assert (
        "over bins of equal size is 0.087. On this many segments, perfectly calibrated "
        "probabilities would have an ECE of 0.050 (0.031 to 0.074) by chance."
    ) in render_markdown(figures())


def test_confusion_shows_shares_and_counts() -> None:
    (axes,) = draw_confusion(figures()).axes
    (cells,) = axes.collections
    shares = np.array([[0.75, 0.2, 0.05], [0.35, 0.5, 0.15], [0, 0, 0]])
    np.testing.assert_allclose(np.asarray(cells.get_array()), shares)
    assert axes.yaxis_inverted()
    texts = [text.get_text() for text in axes.texts]
    assert texts[:4] == ["75%\n15", "20%\n4", "5%\n1", "35%\n7"]
    assert texts[6:] == ["n/a\n0"] * 3
    assert [one.get_text() for one in axes.get_yticklabels()][1:] == [
        "fear\nn = 20",
        "sadness\nn = 0",
    ]
    assert [one.get_text() for one in axes.get_xticklabels()] == FIGURES["labels"]


def test_reliability_shows_bins_and_diagonal() -> None:
    figure = draw_reliability(figures())
    (axes,) = figure.axes
    diagonal, bins, *_ = axes.lines
    np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(bins.get_xydata(), [[0.45, 0.4], [0.75, 0.85]])
    # 8 of 20: (8 + z²/2 ∓ z √(8 · 12 / 20 + z²/4)) / (20 + z²), z = 1.96.
    (bars,) = axes.collections
    segment = bars.get_paths()[0].vertices
    np.testing.assert_allclose(np.asarray(segment)[:, 1], [0.2188, 0.6134], atol=1e-4)
    assert "ECE 0.087; 2 bins of 20 segments" in [text.get_text() for text in figure.texts]


def test_coverage_shows_curve_and_target() -> None:
    (axes,) = draw_coverage(figures()).axes
    overall, curve, *marks, target = axes.lines
    assert list(np.asarray(overall.get_ydata())) == [0.625, 0.625]
    np.testing.assert_array_equal(curve.get_xydata(), [[1, 0.625], [0.5, 0.85], [0.05, 1]])
    np.testing.assert_array_equal(target.get_xydata(), [[0.525, 0.81]])
    # No more than one mark at a point: the lowest of the thresholds that lead there.
    assert [text.get_text() for text in axes.texts] == ["0.5", "0.8"]
    places = [np.asarray(mark.get_xydata())[0].tolist() for mark in marks]
    assert places == [[0.5, 0.85], [0.05, 1.0]]


def bars_of(figure: Figure) -> dict[str, float]:
    bars: dict[str, float] = {}
    for axes in figure.axes:
        names = [one.get_text() for one in axes.get_yticklabels()]
        widths = [patch.get_width() for patch in axes.patches]  # type: ignore[attr-defined]
        bars.update(zip(names, widths, strict=True))
    return bars


def test_speakers_are_sorted_and_the_worst_stand_out() -> None:
    figure = draw_speakers(figures())
    assert bars_of(figure) == {"1048": 0.8, "1090": 0.7, "1071": 0.3}
    assert list(bars_of(figure)) == ["1048", "1090", "1071"]
    best, second, worst = (patch.get_facecolor() for patch in figure.axes[0].patches)
    assert best == second != worst
    assert list(np.asarray(figure.axes[0].lines[0].get_xdata())) == [0.625, 0.625]


def test_many_speakers_stay_readable() -> None:
    groups = {f"speaker {i}": group(9, i / 100, 0.5) for i in range(100)}
    figure = draw_speakers(figures(breakdown={"speaker": groups}))
    assert len(figure.axes) == 3
    assert list(bars_of(figure).values()) == [i / 100 for i in reversed(range(100))]
    assert figure.get_size_inches()[1] < 10
    groups = {f"speaker {i}": group(9, i / 1000, 0.5) for i in range(1000)}
    figure = draw_speakers(figures(breakdown={"speaker": groups}))
    assert list(bars_of(figure).values()) == [i / 1000 for i in reversed(range(MAX_SPEAKERS))]
    assert figure.texts[0].get_text().startswith("Accuracy of the worst 120 of 1000 speakers")


def test_stress_shows_uar_and_change() -> None:
    without = figures()
    del without["stress"]["conditions"]["clean"]
    for some in (figures(), without):
        (line,) = draw_stress(some).axes[0].lines
        assert line.get_xdata() == [some["uar"]] * 2
    figure = draw_stress(figures())
    assert bars_of(figure) == {"clean": 0.61, "phone": 0.5, "clip": 0.0}
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["0.610", "0.500  (\N{MINUS SIGN}0.110)", "n/a"]


def test_no_text_is_too_small() -> None:
    from matplotlib.text import Text

    for figure in draw_plots(figures()).values():
        assert figure.get_size_inches()[0] <= 6.4
        for artist in figure.findobj(Text):
            assert isinstance(artist, Text)
            assert float(artist.get_fontsize()) >= 8


def test_plots_are_the_same_bytes_again() -> None:
    first, second = (
        {
            (name, end): render_plot(figure, name, end)
            for name, figure in draw_plots(figures()).items()
            for end in ("png", "svg")
        }
        for _ in range(2)
    )
    assert first == second
    assert {name for name, _ in first} == set(ALL_PLOTS)
    assert not any(b"matplotlib.org" in data for data in first.values())
    for name in ALL_PLOTS:
        svg = first[name, "svg"]
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert b"<dc:date>" not in svg


def test_strange_names_and_figures_are_drawn_without_warnings(tmp_path: Path) -> None:
    data = figures(ece=float("nan"))
    data["breakdown"]["speaker"] = {
        "$\\frac{": group(3, 0.5, None),
        "話者": group(3, float("nan"), None),
        "--><b>": group(3, 0.25, None),
        "a very\nlong name of a speaker": group(3, 0.1, None),
    }
    data["coverage"].append({"threshold": 1.0, "coverage": 0.0, "accuracy": None})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, figure in draw_plots(data).items():
            (tmp_path / f"{name}.svg").write_bytes(render_plot(figure, name, "svg"))
    assert list(bars_of(draw_speakers(data))) == ["$\\frac{", "--><b>", "a very long name …"]
    for path in tmp_path.iterdir():
        ET.fromstring(path.read_bytes())


def test_settings_of_the_user_are_neither_heeded_nor_changed() -> None:
    import matplotlib

    expected = render_plot(draw_stress(figures()), "stress", "svg")
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "lines.linewidth": 9}):
        assert render_plot(draw_stress(figures()), "stress", "svg") == expected
        assert matplotlib.rcParams["font.size"] == 20


def test_unknown_format() -> None:
    with pytest.raises(ConfigError, match="gif: no format of plots; expected one of png, svg"):
        render_plot(draw_confusion(figures()), "confusion", "gif")


def test_what_is_in_the_way_of_a_report_stays(tmp_path: Path) -> None:
    (tmp_path / "speakers.png").touch()
    with pytest.raises(OutputError, match=r"speakers\.png: already exists"):
        prepare_report(tmp_path, overwrite=False)
    prepare_report(tmp_path, overwrite=True)
    (tmp_path / "confusion.svg").mkdir()
    with pytest.raises(OutputError, match=r"confusion\.svg: is a directory"):
        prepare_report(tmp_path, overwrite=True)
    assert (tmp_path / "speakers.png").exists()


def test_report_is_written_over_another(tmp_path: Path) -> None:
    paths = write_report(figures(), tmp_path)
    assert sorted(paths) == sorted(tmp_path.iterdir())
    assert [path.name for path in paths[-2:]] == ["report.md", "report.html"]
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\((.+?)\)", markdown):
        assert (tmp_path / link).read_bytes().startswith(b"\x89PNG")
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    assert write_report(figures(), tmp_path) == paths
