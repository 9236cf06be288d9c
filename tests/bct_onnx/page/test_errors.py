"""Rows of errors beside their bounds."""

from bct_onnx.page.errors import find_errors, impact

FEEDS = ["short", "long"]


def output(
    error: float, kind: str = "values", bound: float = 0.2, by_feed: tuple[float | None, ...] = (), **more: object
):
    return {"kind": kind, "error": error, "bound": bound, "worst": 1, "by_feed": list(by_feed), **more}


def find(**outputs: object):
    return find_errors({"feeds": FEEDS, "outputs": outputs})


def test_answers_come_before_caches_and_the_worst_first():
    caches = {f"present.{number}": output(0.5, "cache", 1.0) for number in range(4)}
    errors = find(**caches, a=output(0.05), b=output(0.1, max_abs=3.0), n={"kind": "exact", "same": 0.75})
    assert [row.name for row in errors.outputs] == ["b", "a", "n", *caches]
    assert [row.name for row in errors.shown] == ["b", "a", "n"]
    assert errors.rest == "4 caches, errors up to 0.5"
    first = errors.shown[0]
    assert (first.error, first.bound, first.part, first.largest, first.worst) == (0.1, 0.2, 50.0, 3.0, "long")
    assert errors.shown[2].impact == "75.0% equal values"


def test_a_model_of_caches_alone_shows_them():
    assert find(present=output(0.5, "cache", 1.0)).shown[0].name == "present"


def test_many_outputs_are_summed():
    errors = find(**{f"y{number}": output(number / 100) for number in range(20)})
    assert [row.name for row in errors.shown] == [f"y{number}" for number in range(19, 11, -1)]
    assert errors.rest == "12 other outputs, errors up to 0.11"


def test_an_input_shows_the_output_nearest_to_its_bound():
    errors = find(a=output(0.3, bound=0.9, by_feed=(0.3, 0.1)), b=output(0.19, by_feed=(0.01, 0.19)))
    assert [(row.name, row.output, row.error) for row in errors.inputs] == [("short", "a", 0.3), ("long", "b", 0.19)]
    assert [round(row.part or 0) for row in errors.inputs] == [33, 95]
    assert [row.name for row in find(a=output(0.3, by_feed=(None, 0.3))).inputs] == ["long"]


def test_more_than_the_bound_fills_the_bar():
    assert find(a=output(5.0)).outputs[0].part == 100.0


def test_the_models_own_terms():
    assert impact({"perplexity": 0.454, "decisions": 0.8}) == "perplexity +45.4%"
    assert impact({"decisions": 0.982}) == "98.2% same decisions"
    assert impact({}) == ""
