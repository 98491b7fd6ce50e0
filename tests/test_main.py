"""The command `pneumonia`: its help, its exit statuses, and `predict`."""

import json
import os
import pty
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from random import Random

import pytest

import pneumonia
from pneumonia.__main__ import COMMANDS, main
from pneumonia.command import hyphenated
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.checkout import PROJECT
from tests.builders.commands import sentence


@pytest.fixture
def xray(tmp_path: Path) -> Path:
    path = tmp_path / "xray.png"
    draw_radiograph(Random(0), "PNEUMONIA").save(path)
    return path


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"usage: pneumonia {verb} " in told
    assert f"example: pneumonia {verb} " in told.replace("example:\n  ", "example: ")


@pytest.mark.processes
def test_help_lists_the_commands_and_imports_no_room(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {verb} " in told for verb in COMMANDS)
    program = "import sys; from pneumonia.__main__ import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{told}False\n"


@pytest.mark.processes
@pytest.mark.parametrize("verb", ["predict", "evaluate", "split", "serve"])
def test_a_mistyped_option_does_not_wait_for_torch(verb: str) -> None:
    program = f"import sys; from pneumonia.__main__ import main; main(['{verb}', '--x']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_underscore_in_an_arguments_name_is_a_hyphen() -> None:
    given = ["--batch_size=a_b", "--num_workers", "1", "a_b", "--", "--c_d"]
    assert hyphenated(given) == ["--batch-size=a_b", "--num-workers", "1", "a_b", "--", "--c_d"]


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: pneumonia COMMAND" in capsys.readouterr().out


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{pneumonia.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["evalute"], "There is no command 'evalute' (did you mean evaluate?): `pneumonia --help` lists them."),
        (["qqqqq"], "There is no command 'qqqqq': `pneumonia --help` lists them."),
        (
            ["predict", "--wieghts", "model.pth", "xray.png"],
            (
                "Unrecognized arguments: --wieghts (did you mean --weights?). `pneumonia predict --help` lists the "
                "arguments."
            ),
        ),
        (
            ["draw"],
            "The following arguments are required: DEST. `pneumonia draw --help` lists the arguments.",
        ),
        (
            ["serve", "--port", "eighty"],
            "Argument --port: invalid int value: 'eighty'. `pneumonia serve --help` lists the arguments.",
        ),
    ],
)
def test_a_mistyped_word_gets_the_nearest_one(
    argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence(argv, capsys) == expected


@pytest.mark.processes
def test_a_missing_package_is_told_with_what_to_install(tmp_path: Path) -> None:
    """Where only serving is installed, scikit-learn is not there."""
    program = "import sys; sys.modules['sklearn'] = None; from pneumonia.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "evaluate", "--help"]
    assert subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stderr == ""
    command = [sys.executable, "-c", program, "evaluate", "model.pth", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "`pneumonia evaluate` needs sklearn, which is not installed: pip install '.[train]', or in a checkout make "
        "develop.\n"
    )


def test_predict_writes_a_line_of_json_for_each_file(
    xray: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = xray.with_name("broken.jpg")
    broken.write_text("text")
    missing = xray.with_name("missing.jpg")
    assert main(["predict", str(xray), str(broken), str(missing), "--weights", str(weights)]) == 3
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"file": str(xray)} | asdict(pneumonia.load(weights).predict(xray))
    assert lines[1]["file"] == str(broken)
    assert lines[1]["error"].startswith("The file is not an image")
    assert lines[2] == {"file": str(missing), "error": f"{missing} does not exist: check the name."}


def test_predict_names_an_address_as_one_and_answers_the_files(
    xray: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects, page = "s3://bucket/x.jpg", "https://me.org/x.jpg"
    assert main(["predict", objects, page, str(xray), "--weights", str(weights)]) == 3
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    advice = "name a file of this machine"
    assert lines[0] == {
        "file": objects,
        "error": f"{objects} is an address: {advice}, or use `pneumonia batch`, which reads S3.",
    }
    assert lines[1] == {"file": page, "error": f"{page} is an address: {advice}."}
    assert lines[2] == {"file": str(xray)} | asdict(pneumonia.load(weights).predict(xray))


@pytest.mark.processes
def test_predict_shows_a_table_on_a_terminal(xray: Path, weights: Path) -> None:
    missing = xray.with_name("missing.jpg")
    command = [sys.executable, "-m", "pneumonia", "predict", "--weights", str(weights)]
    assert on_a_terminal([*command, str(xray)])[1] == 0
    shown, status = on_a_terminal([*command, str(xray), str(missing)])
    answer = pneumonia.load(weights).predict(xray)
    lines = shown.splitlines()
    assert status == 3
    assert lines[0].split() == ["file", "prediction", "confidence", "warnings"]
    assert lines[1].split()[:3] == [str(xray), answer.prediction, f"{answer.confidence:.3f}"]
    assert lines[2].endswith("missing.jpg does not exist: check the name.")
    assert lines[-1] == "Not medical advice: do not use it to diagnose anyone."


@pytest.mark.processes
def test_predict_writes_json_on_a_terminal_if_asked(xray: Path, weights: Path) -> None:
    command = [sys.executable, "-m", "pneumonia", "predict", "--json", "--weights", str(weights), str(xray)]
    shown, status = on_a_terminal(command)
    assert status == 0
    assert json.loads(shown)["file"] == str(xray)


def test_predict_without_a_model_answers_nothing(xray: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = sentence(["predict", str(xray), "--weights", "none.pth"], capsys)
    assert told == "none.pth does not exist: name a weights file, a folder with one, or s3://bucket."


@pytest.mark.processes
def test_a_name_cannot_forge_a_row_of_the_table(xray: Path, weights: Path) -> None:
    odd = xray.with_name("a\nb\x1b[31m.png")
    odd.write_bytes(xray.read_bytes())
    shown, status = on_a_terminal([sys.executable, "-m", "pneumonia", "predict", "--weights", str(weights), str(odd)])
    assert status == 0
    assert "\x1b" not in shown
    assert r"/a\x0ab\x1b[31m.png'" in shown


@pytest.mark.processes
@pytest.mark.parametrize(("closed", "status"), [(">&-", 0), ("2>&-", 0), (">&- 2>&-", 0)])
def test_closed_streams_are_no_fault(xray: Path, weights: Path, closed: str, status: int) -> None:
    command = f"{sys.executable} -m pneumonia predict --weights {weights} {xray} {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.processes
def test_an_interrupted_command_says_so_in_one_line() -> None:
    program = "import os, signal; from pneumonia.command import exit_status; import sys\n"
    program += "sys.exit(exit_status(lambda: os.kill(os.getpid(), signal.SIGINT)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Stopped.\n")


def on_a_terminal(command: list[str]) -> tuple[str, int]:
    """Run a command with a terminal as its standard output; return what that shows, and the exit status."""
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(command, stdout=other_end, cwd=PROJECT)
    os.close(other_end)
    shown = b""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # so a terminal ends that nobody writes to any more
            break
        if not data:
            break
        shown += data
    os.close(terminal)
    return shown.decode().replace("\r\n", "\n"), process.wait()
