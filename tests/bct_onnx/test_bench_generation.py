"""Generation in the benchmark: tokens that a decoder's caches lead to, processes, records, the command line."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from click.testing import CliRunner, Result

from bct_onnx.bench.__main__ import main
from bct_onnx.bench.decoder import Decoder, DecoderFiles, Generation, Step
from bct_onnx.bench.generation import GenerationBenchmark, make_prompts, summary
from bct_onnx.bench.records import Candidate
from bct_onnx.bench.runners import OrtRunner
from bct_onnx.bench.turns import Timing
from bct_onnx.bench.workers import Worker
from bct_onnx.errors import BctError

FIXTURES = Path(__file__).parents[2] / "models" / "fixtures"
ONE = Timing(threads=1, rounds=1)
LOAD = partial(OrtRunner, threads=1)
# A decoder whose next token is the sum of all before it modulo seven, which its cache holds.
NEXT = """
    axes = Constant <value_ints = [0, 1, 2, 3]> ()
    total = ReduceSum <keepdims = 0> (present_key, axes)
    whole = Cast <to = 7> (total)
    seven = Constant <value = int64 {7}> ()
    next = Mod (whole, seven)
    values = Constant <value = float[2] {0, 1}> ()
    apart = Constant <value_ints = [1, 1]> ()
    places = Reshape (next, apart)
    logits = OneHot (places, seven, values)"""
OWN = """
    numbers = Cast <to = 1> (input_ids)
    four = Constant <value_ints = [1, 3]> ()
    own = Unsqueeze (numbers, four)"""
OUT = "(float[1, 1, 7] logits, float[1, 1, all, 1] present_key)"
FIRST = f"g (int64[1, n] input_ids) => {OUT} {{ {OWN} present_key = Identity (own) {NEXT} }}"
LATER = (
    f"g (int64[1, n] input_ids, float[1, 1, past, 1] past_key) => {OUT} "
    f"{{ {OWN} present_key = Concat <axis = 2> (past_key, own) {NEXT} }}"
)
# The first step reads no cache: what is there, of one token, is none of it.
MERGED = f"""g (int64[1, n] input_ids, float[1, 1, past, 1] past_key, bool[1] use_cache_branch) => {OUT} {{
    {OWN}
    joined = Concat <axis = 2> (past_key, own)
    present_key = If (use_cache_branch) <
        then_branch = cached () => (float[] a) {{ a = Identity (joined) }},
        else_branch = fresh () => (float[] b) {{ b = Identity (own) }}
    >
    {NEXT} }}"""
GROUPED = """g (int64[1, n] input_ids, int64[1, total] attention_mask, float[1, 2, past, 8] past_key,
               float[1, 2, past, 8] past_value)
    => (float[1, n, 11] logits, float[1, 2, all, 8] present_key, float[1, 2, all, 8] present_value) {
    q = Gather (tq, input_ids) k = Gather (tk, input_ids) v = Gather (tv, input_ids)
    rows = Constant <value_ints = [1]> ()
    one = Constant <value = int64 {1}> ()
    counted = ReduceSum <keepdims = 0> (attention_mask, rows)
    valid = Sub (counted, one)
    lengths = Cast <to = 6> (valid)
    shape = Shape (attention_mask)
    places = Gather (shape, one)
    total = Cast <to = 6> (places)
    y, present_key, present_value = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2> (
        q, k, v, past_key, past_value, lengths, total)
    logits = MatMul (y, w)
}"""


def save(path: Path, text: str, **tensors: np.ndarray) -> Path:
    header = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
    made = onnx.parser.parse_model(f"{header} {text}")
    made.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in tensors.items())
    onnx.save(made, path)
    return path


def grouped(path: Path) -> Path:
    rng = np.random.default_rng(0)
    sizes = {"tq": (11, 32), "tk": (11, 16), "tv": (11, 16), "w": (32, 11)}
    return save(path, GROUPED, **{name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()})


def sums(prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(sum(tokens) % 7)
    return tokens[len(prompt) :]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("prompt", [[3], [1, 6, 2], [5, 5]])
@pytest.mark.parametrize(
    "models", [{"model.onnx": LATER}, {"decoder_model_merged.onnx": MERGED}, {"decoder_model.onnx": FIRST}]
)
def test_caches_hold_what_was_read(tmp_path, models, prompt):
    """One model, one with a branch for the first step, and two models."""
    for name, text in models.items():
        save(tmp_path / name, text)
    save(tmp_path / "decoder_with_past_model.onnx", LATER)
    generation = Decoder(DecoderFiles.find(tmp_path), LOAD).generate(prompt, 5)
    assert generation.tokens == sums(prompt, 5)
    assert generation.first_seconds > 0
    assert generation.later_seconds > 0


def greedy_without_cache(files: DecoderFiles, prompt: list[int], count: int) -> list[int]:
    decoder, tokens = Decoder(files, LOAD), list(prompt)
    for _ in range(count):
        tokens += decoder.generate(tokens, 1).tokens
    return tokens[len(prompt) :]


@pytest.mark.parametrize("name", ["llama_optimum", "gpt2_optimum", "llama_dynamo", "grouped"])
def test_tokens_are_those_of_reading_everything_anew(tmp_path, name):
    """Masks, positions and caches of an export; buffers that are written in place where heads are grouped."""
    path = grouped(tmp_path / "g.onnx") if name == "grouped" else FIXTURES / f"{name}.onnx"
    files, prompt = DecoderFiles.find(path), [5, 9, 2, 7]
    tokens = Decoder(files, LOAD).generate(prompt, 6).tokens
    assert tokens == greedy_without_cache(files, prompt, 6)


def test_masks_and_positions_go_by_what_was_read(tmp_path):
    """A merged decoder's first step has a cache of one token that is none."""
    feed = Step.read(FIXTURES / "gpt2_optimum.onnx").feed(2, 5)
    assert feed["attention_mask"].shape == (1, 7)
    assert feed["position_ids"].tolist() == [[5, 6]]
    inputs = "int64[1, tokens] position_ids, int64[1, total] attention_mask, int64[1, tokens] input_ids"
    step = Step.read(save(tmp_path / "merged.onnx", MERGED.replace("int64[1, n] input_ids", inputs)))
    first, later = step.feed(3, 0), step.feed(1, 1)
    assert first["position_ids"].tolist() == [[0, 1, 2]]
    assert later["position_ids"].tolist() == [[1]]
    assert (first["attention_mask"].shape, later["attention_mask"].shape) == ((1, 3), (1, 2))
    assert (first["use_cache_branch"].item(), later["use_cache_branch"].item()) == (False, True)
    assert step.empty_caches(None, 1)["past_key"].shape == (1, 1, 1, 1)


def test_sizes_of_heads_are_the_float_models(tmp_path):
    """A model whose inputs do not tell how wide a head is."""
    told = grouped(tmp_path / "told.onnx").read_bytes()
    named = onnx.load_from_string(told)
    for value in [*named.graph.input, *named.graph.output]:
        if "_key" in value.name or "_value" in value.name:
            value.type.tensor_type.shape.dim[3].dim_param = "head"
    untold = tmp_path / "untold.onnx"
    onnx.save(named, untold)
    like = DecoderFiles.find(tmp_path / "told.onnx")
    tokens = Decoder(like, LOAD).generate([5, 9, 2], 4).tokens
    sizes = {"past_key": {-1: 8}, "past_value": {-1: 8}}
    step = Step.read(untold)
    assert step.with_sizes(sizes).empty_caches(6, 1)["past_key"].shape == (1, 2, 6, 8)
    assert Decoder(DecoderFiles.find(untold), LOAD, like).generate([5, 9, 2], 4).tokens == tokens


def test_encoder_and_merged_decoder(tmp_path):
    """The encoder runs once; what its output's caches hold after the first step stays."""
    shutil.copy(FIXTURES / "t5_encoder_optimum.onnx", tmp_path / "encoder_model.onnx")
    shutil.copy(FIXTURES / "t5_decoder_merged_optimum.onnx", tmp_path / "decoder_model_merged.onnx")
    files = DecoderFiles.find(tmp_path)
    tokens = Decoder(files, LOAD).generate([1], 6).tokens
    assert tokens == greedy_without_cache(files, [1], 6)
    assert make_prompts(tmp_path, [16, 32]) == {1: [1]}
    (tmp_path / "config.json").write_text('{"decoder_start_token_id": 7}')
    assert make_prompts(tmp_path, [16, 32]) == {1: [7]}
    with pytest.raises(BctError, match=r"encoder_hidden_states is of an encoder: give the folder"):
        Decoder(DecoderFiles.find(tmp_path / "decoder_model_merged.onnx"), LOAD).generate([1], 2)


def test_no_decoder(tmp_path):
    with pytest.raises(BctError, match=r"no decoder: none of decoder_model_merged.onnx, model.onnx, nor decoder_model"):
        DecoderFiles.find(tmp_path)
    with pytest.raises(BctError, match="no cache of earlier tokens"):
        make_prompts(save(tmp_path / "first.onnx", FIRST), [4])


def test_summary():
    made = [Generation([1, 2, 3, 4], 9.0, 9.0), Generation([1, 2, 3, 4], 2.0, 3.0), Generation([1, 2, 3, 4], 1.0, 6.0)]
    text = summary(made, [1, 2, 9, 4])
    assert (text.same, text.equal) == (2, 0.75)
    assert (text.first.minimum, text.first.median, text.first.count) == (1.0, 1.5, 2)
    assert (text.whole.minimum, text.whole.median) == (5.0, 6.0)
    assert text.speeds == (1.0, 3 / 4.5)
    assert summary(made[:1], [1, 2, 3, 4]).same == 4


class Failing:
    """What a worker may have to do with."""

    def __init__(self, size: int) -> None:
        self._kept = np.ones(size, np.uint8)

    def fail(self) -> None:
        raise ValueError("first line\nsecond")

    def end(self) -> None:
        os._exit(3)


def test_workers_tell_memory_and_failures():
    with Worker(partial(Failing, 200_000_000)) as worker:
        assert worker.made.peak_bytes > 190e6
        assert worker.held_bytes() > 190e6
        with pytest.raises(BctError, match=r"^first line$"):
            worker.call("fail")
        with pytest.raises(BctError, match=r"^the process ended with code 3$"):
            worker.call("end")
    with pytest.raises(BctError, match="missing 1 required positional argument"):
        Worker(Failing)


def test_turns_are_interleaved_and_failures_listed(tmp_path):
    path, other = save(tmp_path / "a.onnx", LATER), grouped(tmp_path / "g.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    given = [("float", path), ("broken", broken), ("twin", path), ("other", other)]
    candidates = [Candidate(name, place, "given", "given") for name, place in given]
    heard: list[str] = []
    comparison = GenerationBenchmark(candidates, ONE, heard.append).compare([2, 3], 4)
    order = [line.rpartition(": ")[2] for line in heard if "prompt of 3" in line]
    assert order == ["float", "twin", "other"] * 2
    base, twin, _ = comparison.rows
    assert [skipped.name for skipped in comparison.skipped] == ["broken"]
    assert base.texts[3].tokens == sums(make_prompts(path, [3])[3], 4)
    assert (twin.texts[3].same, twin.texts[3].equal) == (4, 1.0)
    assert twin.held_bytes > 0


def test_command_line(tmp_path):
    path, data = save(tmp_path / "a.onnx", LATER), tmp_path / "out.json"
    twin = save(tmp_path / "twin.onnx", LATER)
    options = ["--generate", "--prompts", "2, 5", "--new-tokens", "4", "--rounds", "1", "--threads", "1"]
    result = run(path, twin, *options, "--json", data)
    assert result.exit_code == 0, result.output
    assert "2: first token ms" in result.stdout
    found = json.loads(data.read_text())
    assert (found["prompts"], found["new_tokens"], found["skipped"]) == ([2, 5], 4, [])
    base, other = found["rows"]
    assert (base["name"], other["name"], other["smaller_than_float"]) == ("float", "twin", 1.0)
    assert other["texts"]["5"]["tokens"] == base["texts"]["5"]["tokens"]
    assert other["texts"]["5"]["same"] == 4


def test_a_folder_is_made_of_a_folder(tmp_path):
    """Presets of a decoder of two models; what lies beside them is there, too."""
    folder, kept = tmp_path / "split", tmp_path / "kept"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save(folder / "decoder_model.onnx", FIRST)
    save(folder / "decoder_with_past_model.onnx", LATER)
    options = ["--generate", "--prompts", "3", "--new-tokens", "3", "--rounds", "1", "--keep-dir", kept]
    result = run(folder, "--presets", "fast", *options)
    assert result.exit_code == 0, result.output
    made = sorted(path.name for path in (kept / "bct_onnx_fast").iterdir())
    assert made == ["config.json", "decoder_model.onnx", "decoder_with_past_model.onnx"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--generate", "--prompts", "none"], "--prompts none: write numbers of tokens"),
        (["--generate", "--prompts", "0"], "--prompts 0: write numbers of tokens"),
        (["--generate", "--plot", "p.png"], "--plot draws no generation"),
        (["--generate"], "no cache of earlier tokens"),
    ],
)
def test_bad_requests_end_with_one_line_and_code_2(tmp_path, options, said):
    result = run(save(tmp_path / "first.onnx", FIRST), *options)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_a_folder_without_generation(tmp_path):
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "is a folder: name a model, or add --generate" in " ".join(result.stderr.split())
