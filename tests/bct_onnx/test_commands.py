"""All commands under one name: completion in a shell, lines of a log."""

import re

import pytest

from bct_onnx.cli import COMMANDS, COMPLETE_VARIABLE


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ver"], {"verify"}),
        ([""], set(COMMANDS)),
        (["--pre"], {"--preset", "--preset-for"}),
        (["in", "out", "--preset", "sm"], {"small"}),
        (["compress", "in", "out", "--preset", "sm"], {"small"}),
        (["verify", "--j"], {"--json"}),
    ],
)
def test_words_are_completed(words, expected, run, monkeypatch):
    monkeypatch.setenv(COMPLETE_VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["bct-onnx", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    code, out, _ = run()
    assert code == 0
    assert {line.removeprefix("plain,") for line in out.splitlines() if line.startswith("plain,")} == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed(shell, run):
    code, out, _ = run("completion", shell)
    assert code == 0
    assert COMPLETE_VARIABLE in out


def test_stages_are_logged_where_that_is_asked_for(run, source, tmp_path):
    plain = ("--preset", "fast", "--quiet")
    assert run(source, tmp_path / "a.onnx", *plain) == (0, "", "")
    code, out, err = run(source, tmp_path / "b.onnx", *plain, "--log-level", "info")
    assert (code, out) == (0, "")
    stages = [line.split(" ", 1)[1] for line in err.splitlines()]
    assert [stages[0], *stages[-2:]] == ["running the input model", "writing", "verifying"]
    names = [re.sub(r" \d+/\d+$", "", stage) for stage in stages]
    assert len(names) == len(set(names))  # steps within a stage are for debug
    assert run(source, tmp_path / "c.onnx", *plain) == (0, "", "")
