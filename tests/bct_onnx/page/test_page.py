"""The page as HTML: all there, closed, alone, and safe from names."""

import json
import re
from itertools import pairwise

import pytest

from bct_onnx import BctError
from bct_onnx.page import render
from tests.bct_onnx.page.markup import parse

HOSTILE = (
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "{{ 7 * 7 }}",
    "' onmouseover='alert(1)",
    "\u5c42.0.\u6743\u91cd \U0001f916 \u0645\u0631\u062d\u0628\u0627",
    "a/very/long/name." * 40,
)


def test_the_headline_figures_come_first(report):
    page = parse(render(report))
    tiles = {tile.children[0].text: tile.text for tile in page.find("div", **{"class": "tile"})}
    assert list(tiles) == ["Smaller", "Largest error", "Speed", "Peak memory", "Runs on"]
    assert f"{report['ratio']:.2f}\u00d7" in tiles["Smaller"]
    error = report["verification"]["outputs"]["y"]["error"]
    assert f"{error:.3f} of 0.1 allowed" in tiles["Largest error"]
    assert tiles["Peak memory"] == "Peak memory 2.00 MB to load it; 4.00 MB before"
    assert page.find("h1")[0].text.endswith("/in.onnx")


def test_every_part_is_there(report):
    page = parse(render(report))
    titles = [title.text for title in page.find("h2")]
    assert titles == [
        *("Size by operator", "Speed and memory", "Errors by output", "Errors by kind of input", "Bits by layer"),
        *("Size against error", "Size by weight", "What stayed in float", "How it was made"),
    ]
    text = page.text
    for tensor in report["tensors"]:
        assert tensor["name"] in text
    for feed in report["verification"]["feeds"]:
        assert feed in text
    assert [plot.attributes["role"] for plot in page.walk() if "aria-label" in plot.attributes] == ["img", "img"]


def test_what_is_not_known_is_left_out(report):
    report |= {"search": None, "verification": None, "memory": None, "tensors": [], "left_in_float": []}
    page = parse(render(report))
    titles = [title.text for title in page.find("h2")]
    assert titles == ["Size by operator", "Speed and memory", "What stayed in float", "How it was made"]
    assert page.find("svg") == []


def test_coverage_is_shown_where_intermediate_results_were_asked_for(report):
    row = {"op": "Add", "nodes": 7, "replaced": 4, "between": 2, "moves": 0, "left": 1, "bytes": 40.0, "covered": 30.0}
    node = {"node": "a", "op": "Add", "how": "left", "reason": "of <type> int64"}
    report["coverage"] = {
        "weight_bytes": 1000,
        "weight_codes": 900,
        "result_bytes": 40.0,
        "result_codes": 30.0,
        "operators": [row, {**row, "op": "Shape", "bytes": 0.0}],
        "left": [node, node],
        "results_left": [],
    }
    text = parse(render(report)).text
    assert "90.0% of the weights and 75.0% of the intermediate results, by bytes, are codes." in text
    assert "Add 7 4 2 1 75.0%" in text
    assert "Add: of <type> int64 (2)" in text


def test_tables_have_headers_and_pictures_words(report):
    page = parse(render(report))
    for table in page.find("table"):
        assert table.find("thead")
        assert all("scope" in header.attributes for header in table.find("th"))
        for row in table.find("tbody")[0].find("tr"):
            assert row.find("th", scope="row")
    for svg in page.find("svg"):
        assert svg.attributes["aria-hidden"] == "true"
    assert page.find("html", lang="en")
    levels = [int(each.tag[1]) for each in page.walk() if re.fullmatch(r"h\d", each.tag)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_the_page_is_alone(report):
    """Nothing is fetched: no address but names of XML, which are none; no script."""
    html = render(report)
    for element in parse(html).walk():
        assert element.tag not in {"script", "link", "iframe", "object", "embed", "base", "img"}
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            if name.split(":")[-1] in {"src", "href", "srcset", "data", "action"}:
                assert value.startswith("#")
    assert all(match.startswith("#") for match in re.findall(r"url\(([^)]*)\)", html))
    assert "@import" not in html
    assert set(re.findall(r"https?://[^\s\"'<]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_light_and_dark(report):
    """Pictures have the colours of the page, which has two sets of them."""
    html = render(report)
    assert "prefers-color-scheme: dark" in html
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) == set()
        assert "var(--accent)" in svg


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text(report, name):
    plain = parse(render(report))
    for tensor in report["tensors"]:
        tensor |= {"name": name, "node": name, "op": name}
    for weight in report["search"]["weights"]:
        weight["name"] = name
    report["left_in_float"] = [{"name": name, "bytes": 9999, "op": name, "node": name, "reason": name}]
    report["sizes"][0]["op"] = name
    report["notes"] = [name]
    report["passes"][0] |= {"name": name, "replaced": 1, "skipped": [{"node": name, "reason": name, "constants": []}]}
    report["input"]["path"] = report["output"]["path"] = f"/{name}"
    verification = report["verification"]
    verification["outputs"] = {name: verification["outputs"]["y"]}
    verification["feeds"] = [name for _ in verification["feeds"]]
    verification["latency"]["shapes"] = {name: [1, 2]}
    page = parse(render(report))
    assert " ".join(name.split()) in page.text
    assert {each.tag for each in page.walk()} <= {each.tag for each in plain.walk()} | {"ul", "li"}
    known = {attribute for each in plain.walk() for attribute in each.attributes}
    assert {attribute for each in page.walk() for attribute in each.attributes} <= known


def test_the_same_report_is_the_same_page(report):
    assert render(report) == render(json.loads(json.dumps(report)))


@pytest.mark.parametrize("goal", [{"target_ratio": 6.0}, {"target_bytes": 30000}])
def test_a_goal_in_bytes_is_drawn(report, goal):
    report["search"]["goal"] = goal
    assert "goal" in parse(render(report)).find("svg")[0].text


def test_a_choice_without_any_error_is_drawn(report):
    report["search"] |= {"goal": {"target_ratio": 2.0}, "expected_error": 0.0, "measured_error": 0.0}
    assert len(parse(render(report)).find("svg")) == 2
    report["search"]["curve"] = report["search"]["curve"][:1]
    assert parse(render(report)).find("svg") == []


def test_three_hundred_weights(report):
    first = report["tensors"][0]
    names = [f"layers.{layer}.{role}.weight" for layer in range(75) for role in "abcd"]
    report["tensors"], report["left_in_float"] = [{**first, "name": name} for name in names], []
    page = parse(render(report))
    assert "288 others together" in page.text
    assert "All 300 weights" in page.text
    assert "All weights of the 75 layers have" in page.text


def test_data_of_another_form_is_refused(report):
    del report["sizes"]
    with pytest.raises(BctError, match=r"not one that this version writes \(KeyError 'sizes'\); make it anew"):
        render(report)
