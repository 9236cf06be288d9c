"""Pages on the command line: `--report`, `bct-onnx report`, refusals before any work."""

import json
import sys

import onnx
import pytest

from tests.bct_onnx.page.conftest import rename, save
from tests.bct_onnx.page.markup import parse
from tests.helpers import MLP, K, entries, model, random


def test_a_page_beside_the_model(run, source, tmp_path):
    page, data = tmp_path / "report.html", tmp_path / "report.json"
    code, out, err = run(source, tmp_path / "out.onnx", "--report", page, "--json", data, "--quiet")
    assert (code, out, err) == (0, "", "")
    memory = json.loads(data.read_text())["memory"]
    assert 0 < memory["peak_bytes"] < 1 << 30
    assert "peak memory to load it" in parse(page.read_text(encoding="utf-8")).text
    assert run("report", data, tmp_path / "again.html") == (0, "", "")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()
    assert entries(tmp_path) == {"in.onnx", "out.onnx", "report.html", "report.json", "again.html"}


def test_hostile_names_go_through(run, tmp_path):
    source = model(MLP, w=random(K, K, seed=1), v=random(K, K, seed=2))
    for old, new in (("w", "<script>alert('w')</script>"), ("y", "</style><b>y"), ("x", "\u8f38\u5165 & <i>")):
        rename(source, old, new)
    source.graph.node[0].name = "<script>alert('node')</script>"
    onnx.save(source, tmp_path / "<b>.onnx")
    code, _, err = run(tmp_path / "<b>.onnx", tmp_path / "out.onnx", "--report", tmp_path / "r.html", "--quiet")
    assert (code, err) == (0, "")
    page = parse((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.find("script") == page.find("b") == page.find("i") == []
    for text in ("<script>alert('w')</script>", "<script>alert('node')</script>", "</style><b>y", "\u8f38\u5165 & <i>"):
        assert text in page.text


def test_a_package_has_a_section_for_every_model(run, package, tmp_path):
    source, target = package
    code, _, err = run(source, target, "--preset", "fast", "--report", tmp_path / "p.html", "--json", tmp_path / "j")
    assert (code, err) == (0, "")
    page = parse((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert [title.text for title in page.find("h2")] == [
        *("Models", "decoder_model.onnx", "encoder_model.onnx", "How the package was made"),
    ]
    assert [link.attributes["href"] for link in page.find("a")] == ["#model-1", "#model-2"]
    assert len(page.find("section", id="model-2")) == 1
    assert [title.text for title in page.find("h3")].count("Size by weight") == 2
    assert run("report", tmp_path / "j", tmp_path / "again.html") == (0, "", "")
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "p.html").read_bytes()

    assert run("report", target, tmp_path / "manifest.html") == (0, "", "")
    page = parse((tmp_path / "manifest.html").read_text(encoding="utf-8"))
    titles = [title.text for title in page.find("h3")]
    assert titles.count("Size by operator") == titles.count("Errors by output") == 2
    assert "Size by weight" not in titles
    assert "peak memory to load it" in page.text


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for seed, name in enumerate(("encoder_model.onnx", "decoder_model.onnx")):
        onnx.save(model(MLP, w=random(K, K, seed=seed), v=random(K, K, seed=9)), folder / name)
    (folder / "config.json").write_text('{"model_type": "made"}')
    return folder, tmp_path / "out"


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_a_missing_library_is_said_before_any_work(run, source, report, tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    before = entries(tmp_path) | {"report.json"}
    expected = f"error: {library} is not installed, which makes pages of reports: pip install 'bct-onnx[report]'\n"
    data = save(report, tmp_path / "report.json")
    for arguments in (
        (source, tmp_path / "out.onnx", "--report", tmp_path / "r.html"),
        ("report", data, tmp_path / "r.html"),
    ):
        assert run(*arguments) == (2, "", expected)
    assert entries(tmp_path) == before


def test_places_where_no_page_can_be(run, source, report, tmp_path):
    for place, why in (
        (source, "is the place of a model"),
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "r.html", "does not exist"),
    ):
        code, _, err = run(source, tmp_path / "out.onnx", "--report", place)
        assert code == 2
        assert why in err
    data = save(report, tmp_path / "report.json")
    code, _, err = run("report", data, tmp_path / "no" / "r.html")
    assert code == 2
    assert err.endswith(f"no/r.html: the folder {tmp_path / 'no'} does not exist; make it first\n")
    assert entries(tmp_path) == {"in.onnx", "report.json"}


@pytest.mark.parametrize("text", ["[]", "{}", '{"input": {}, "output": {}}', "no JSON", '{"models": {"m": {}}}'])
def test_what_is_no_report_leaves_no_page(run, tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    (tmp_path / "r.html").write_text("old")
    code, out, err = run("report", tmp_path / "report.json", tmp_path / "r.html")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert (tmp_path / "r.html").read_text() == "old"
    assert run("report", tmp_path, tmp_path / "r.html")[0] == 2
    assert run("report", tmp_path / "none.json", tmp_path / "r.html")[0] == 2
