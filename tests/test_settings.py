"""docs/settings.md names every setting, and nothing that is none: it is held against the code and each `--help`."""

import ast
import re
import runpy
import sys
from collections import Counter
from collections.abc import Callable

import pytest
from samtranslator.yaml_helper import yaml_parse

from tests.builders.checkout import PROJECT

SETTINGS = (PROJECT / "docs/settings.md").read_text()
PRODUCT = [*PROJECT.glob("*.py"), *(PROJECT / "pneumonia").rglob("*.py")]
COMMANDS = ("predict", "evaluate", "calibrate", "download", "split", "draw", "serve", "open", "batch", "s3-batch")
PROMOTION = ("promote", "list", "show", "rollback")
VARIABLE = re.compile(r"[A-Z]+(?:_[A-Z0-9]+)+_?")


def rows_of(heading: str) -> dict[str, str]:
    """Return the rows of the section whose heading begins so, by the names in their first cell."""
    (section,) = re.findall(rf"^## {re.escape(heading)}.*?\n(.*?)(?=^## |\Z)", SETTINGS, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", section, re.MULTILINE)
    named = [(name, row) for names, row in rows for name in re.findall(r"`([\w-]+)", names)]
    assert [name for name, count in Counter(name for name, _ in named).items() if count > 1] == []
    return dict(named)


@pytest.fixture
def options_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., set[str]]:
    """Returns the options that the help of a command lists."""

    def run(door: str, *words: str) -> set[str]:
        monkeypatch.setattr(sys, "argv", [door, *words, "--help"])
        with pytest.raises(SystemExit, match="0"):
            runpy.run_path(str(PROJECT / door), run_name="__main__")
        listed = re.findall(r"^  (-.*?)(?:  |$)", capsys.readouterr().out, re.MULTILINE)
        return {option for line in listed for option in re.findall(r"--[\w-]+", line)} - {"--help"}

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_a_command_are_those_of_its_help(command: str, options_of: Callable[..., set[str]]) -> None:
    assert rows_of(f"`pneumonia {command}").keys() == options_of("pneumonia/__main__.py", command)


@pytest.mark.parametrize("script", ["train_model.py", "train_sagemaker.py"])
def test_options_of_a_script_are_those_of_its_help(script: str, options_of: Callable[..., set[str]]) -> None:
    options = options_of(script)
    assert rows_of(f"`{script}").keys() == options > {"--epochs"}


def test_options_of_promotion_are_those_of_its_help(options_of: Callable[..., set[str]]) -> None:
    options = {option for command in PROMOTION for option in options_of("promote_model.py", command)}
    assert rows_of("`promote_model.py").keys() == options > {"--force"}


def test_every_environment_variable_that_the_code_reads_is_named() -> None:
    texts = {
        node.value
        for file in PRODUCT
        if "environ" in (source := file.read_text())
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    variables = {text for text in texts if VARIABLE.fullmatch(text)}
    assert variables > {"MODEL_PATH", "SM_CHANNEL_"}  # an underscore at the end: a name follows
    assert [name for name in variables if f"`{name}" + "`" * (name[-1] != "_") not in SETTINGS] == []


def test_every_variable_of_make_is_named_with_its_default() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    variables = dict(re.findall(r"^([A-Z_]+) \?= ?(.*)$", makefile, re.MULTILINE))
    rows = rows_of("`make`")
    assert rows.keys() >= variables.keys() >= {"PYTHON", "STACK"}
    assert [name for name, default in variables.items() if "$" not in default and default not in rows[name]] == []


def test_every_parameter_of_the_stack_is_named_with_its_default() -> None:
    parameters = yaml_parse((PROJECT / "template.yaml").read_text())["Parameters"]
    rows = rows_of("The stack")
    assert rows.keys() == parameters.keys()
    assert [name for name, parameter in parameters.items() if str(parameter.get("Default", "")) not in rows[name]] == []
