"""`make deploy` and `make destroy`, with recorders in the place of git, docker, aws and sam."""

import itertools
import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import jmespath
import pytest

from tests.builders.checkout import PROJECT

pytestmark = pytest.mark.processes

COMMIT = "4733b0787127"
REPOSITORY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/pneumonia"
IMAGE = f"{REPOSITORY}:{COMMIT}"
OF_TORCH = ["--platform", "linux/amd64", "--provenance=false", "--build-arg", "ENGINE=torch"]

# What each stand-in does after it has been recorded, by its arguments. Exit statuses come from the environment.
STAND_INS = {
    "git": f"""
        case $1 in
            rev-parse) echo {COMMIT} ;;
            diff) exit "${{CHANGED:-0}}" ;;
        esac""",
    "docker": """
        case $1 in
            login) cat ;;
            build) exit "${BUILD:-0}" ;;
        esac""",
    "aws": f"""
        case "$*" in
            "sts get-caller-identity") exit "${{CREDENTIALS:-0}}" ;;
            "configure get region") echo "$REGION" ;;
            *describe-repositories*--query*) echo {REPOSITORY} ;;
            *describe-repositories*) exit "${{NO_REPOSITORY:-0}}" ;;
            *describe-images*) exit "${{NO_IMAGE:-0}}" ;;
            *get-login-password*) echo secret ;;
            *get-alias*) echo 7 ;;
            *list-versions-by-function*) echo "$SNAPSHOTS" ;;
            *describe-stack-resources*) printf 'pneumonia-data\\tpneumonia-weights\\n' ;;
        esac""",
    "sam": 'echo "region $AWS_DEFAULT_REGION" >> "$RECORD"',
}


@dataclass
class Machine:
    """A machine that has the stand-ins, make, and what their shell needs.

    Attributes:
        folder: its search path.
        record: what was run, a line per command.
    """

    folder: Path
    record: Path
    environment: dict[str, str] = field(default_factory=lambda: {"REGION": "eu-central-1"})

    def make(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run make in the checkout."""
        variables = {"PATH": str(self.folder), "RECORD": str(self.record)} | self.environment | environment
        return subprocess.run(
            [self.folder / "make", *arguments], cwd=PROJECT, env=variables, capture_output=True, text=True, check=False
        )

    def commands(self) -> list[list[str]]:
        """Return what was run so far, in words."""
        return [shlex.split(line) for line in self.record.read_text().splitlines()]

    def ran(self, *words: str) -> list[list[str]]:
        """Return the commands that begin with these words."""
        return [command for command in self.commands() if command[: len(words)] == list(words)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("make", "cat", "date", "sed", "sh"):
        (folder / tool).symlink_to(shutil.which(tool) or tool)
    record = tmp_path / "record"
    record.touch()
    for name, script in STAND_INS.items():
        file = folder / name
        # Arguments are quoted as a shell reads them, and a line is written at once: both ends of a pipe record.
        word = r"""$(printf %s "$word" | sed "s/'/'\\\\''/g")"""
        line = f"""line=$(printf {name}; for word; do printf " '%s'" "{word}"; done)"""
        file.write_text(f'#!/bin/sh\n{line}\nprintf "%s\\n" "$line" >> "$RECORD"\n{script}\n')
        file.chmod(0o755)
    return Machine(folder, record)


def options(command: list[str]) -> dict[str, str]:
    """Return the options of a command that have a value."""
    return {name: value for name, value in itertools.pairwise(command) if name.startswith("--")}


def test_first_deployment_makes_a_repository_builds_pushes_and_deploys(machine: Machine) -> None:
    done = machine.make("deploy", NO_REPOSITORY="254", NO_IMAGE="254")
    assert done.returncode == 0, done.stderr
    (repository,) = machine.ran("aws", "ecr", "create-repository")
    assert options(repository)["--image-tag-mutability"] == "IMMUTABLE"
    assert "scanOnPush=true" in repository
    docker = machine.ran("docker")
    assert [command[1] for command in docker] == ["login", "build", "push"]
    assert docker[0][-1] == REPOSITORY.partition("/")[0]
    assert docker[1][2:] == [*OF_TORCH, "--tag", IMAGE, "."]
    assert docker[2] == ["docker", "push", IMAGE]
    (deploy,) = machine.ran("sam")
    assert deploy[1] == "deploy"
    assert options(deploy) | {"--parameter-overrides": ""} == {
        "--template-file": "template.yaml",
        "--stack-name": "pneumonia",
        "--capabilities": "CAPABILITY_IAM",
        "--image-repository": REPOSITORY,
        "--no-confirm-changeset": "--no-fail-on-empty-changeset",
        "--no-fail-on-empty-changeset": "--parameter-overrides",
        "--parameter-overrides": "",
    }
    image, engine, architecture, revision, rollout = deploy[deploy.index("--parameter-overrides") + 1 :]
    assert (image, engine, architecture) == (f"ImageUri={IMAGE}", "Engine=torch", "Architecture=x86_64")
    assert revision.removeprefix("Revision=").isdecimal()
    assert len(revision) == len("Revision=2611250412")
    assert rollout == "Rollout=Canary10Percent5Minutes"


def test_repository_keeps_the_newest_images(machine: Machine) -> None:
    assert machine.make("deploy").returncode == 0
    assert machine.ran("aws", "ecr", "create-repository") == []
    (policy,) = machine.ran("aws", "ecr", "put-lifecycle-policy")
    (rule,) = json.loads(options(policy)["--lifecycle-policy-text"])["rules"]
    assert (rule["selection"]["countType"], rule["selection"]["countNumber"]) == ("imageCountMoreThan", 20)


def test_image_that_is_there_is_deployed_as_it_is(machine: Machine) -> None:
    done = machine.make("deploy", "TAG=0123456789ab", "ROLLOUT=AllAtOnce", CHANGED="1")
    assert done.returncode == 0, done.stderr
    assert machine.ran("docker") == []
    (deploy,) = machine.ran("sam")
    assert f"ImageUri={REPOSITORY}:0123456789ab" in deploy
    assert "Rollout=AllAtOnce" in deploy


@pytest.mark.parametrize(
    ("chosen", "platform", "tags"),
    [
        ({"ENGINE": "torch"}, "linux/amd64", {"torch": COMMIT}),
        ({"ENGINE": "onnx"}, "linux/amd64", {"torch": COMMIT, "onnx": f"{COMMIT}-onnx"}),
        ({"ARCHITECTURE": "arm64"}, "linux/arm64", {"torch": f"{COMMIT}-arm64"}),
        (
            {"ENGINE": "onnx", "ARCHITECTURE": "arm64"},
            "linux/arm64",
            {"torch": f"{COMMIT}-arm64", "onnx": f"{COMMIT}-onnx-arm64"},
        ),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else value,
)
def test_images_are_built_and_named_for_engine_and_architecture(
    machine: Machine, chosen: dict[str, str], platform: str, tags: dict[str, str]
) -> None:
    done = machine.make("deploy", *(f"{name}={value}" for name, value in chosen.items()), NO_IMAGE="254")
    assert done.returncode == 0, done.stderr
    built = machine.ran("docker", "build")
    assert [(options(one)["--platform"], options(one)["--build-arg"]) for one in built] == [
        (platform, f"ENGINE={engine}") for engine in tags
    ]
    images = {engine: f"{REPOSITORY}:{tag}" for engine, tag in tags.items()}
    assert [options(one)["--tag"] for one in built] == [*images.values()]
    assert [command[2] for command in machine.ran("docker", "push")] == [*images.values()]
    (deploy,) = machine.ran("sam")
    given = dict(word.split("=", 1) for word in deploy if word[0] != "-" and "=" in word)
    names = {"torch": "ImageUri", "onnx": "OnnxImageUri"}
    expected = {names[engine]: image for engine, image in images.items()} | {"Engine": "torch"}
    expected |= {name.title(): value for name, value in chosen.items()}
    assert given.items() >= expected.items()
    assert ("OnnxImageUri" in given) == ("onnx" in tags)


def test_an_earlier_image_without_torch_is_deployed_with_the_one_that_promotes(machine: Machine) -> None:
    done = machine.make("deploy", "TAG=0123456789ab", "ENGINE=onnx", CHANGED="1")
    assert done.returncode == 0, done.stderr
    assert machine.ran("docker") == []
    (deploy,) = machine.ran("sam")
    assert {f"ImageUri={REPOSITORY}:0123456789ab", f"OnnxImageUri={REPOSITORY}:0123456789ab-onnx"} <= {*deploy}


def test_settings_and_region_reach_the_stack(machine: Machine) -> None:
    parameters = "UrlAuthorization=NONE CorsOrigins=https://a.example,https://b.example"
    done = machine.make("deploy", "STACK=xrays", f"PARAMETERS={parameters}", AWS_REGION="eu-west-1")
    assert done.returncode == 0, done.stderr
    (deploy,) = machine.ran("sam")
    assert deploy[-2:] == parameters.split()
    assert options(deploy)["--stack-name"] == "xrays"
    assert machine.ran("region") == [["region", "eu-west-1"]]


def test_versions_whose_snapshot_is_charged_for_and_that_do_not_serve_are_deleted(machine: Machine) -> None:
    done = machine.make("deploy", "STACK=xrays", SNAPSHOTS="5 6")
    assert done.returncode == 0, done.stderr
    (listing,) = machine.ran("aws", "lambda", "list-versions-by-function")
    versions = [
        {"Version": version, "SnapStart": {"ApplyOn": choice}}
        for choice, *versions in (("None", "1", "2"), ("PublishedVersions", "$LATEST", "5", "6", "7"))
        for version in versions
    ]
    assert jmespath.search(options(listing)["--query"], {"Versions": versions}) == ["5", "6"]  # the alias has 7
    deleted = machine.ran("aws", "lambda", "delete-function")
    assert [options(command) for command in deleted] == [
        {"--function-name": "xrays-inference", "--qualifier": version} for version in ("5", "6")
    ]
    order = [command[:3] for command in machine.commands() if command[0] in {"sam", "aws"}]
    assert order.index(["sam", "deploy", "--template-file"]) < order.index(deleted[0][:3])


def test_without_snapshots_no_version_is_deleted(machine: Machine) -> None:
    assert machine.make("deploy").returncode == 0
    assert machine.ran("aws", "lambda", "delete-function") == []


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (
            ["TAG=0123456789ab"],
            {"NO_IMAGE": "254"},
            f"There is no image {REPOSITORY}:0123456789ab: check out that commit and run 'make deploy' there.",
        ),
        (
            [],
            {"NO_IMAGE": "254", "CHANGED": "1"},
            "There are changes that are not committed: commit them, as the image is named by its commit.",
        ),
        (
            [],
            {"CREDENTIALS": "253"},
            "No valid AWS credentials were found: run 'aws configure' or 'aws sso login', or set AWS_PROFILE.",
        ),
        ([], {"REGION": ""}, "The region is missing: set AWS_REGION, for example to eu-central-1."),
        (["ENGINE=tensorflow"], {}, "ENGINE is tensorflow: set it to torch or onnx."),
        ([], {"ARCHITECTURE": "aarch64"}, "ARCHITECTURE is aarch64: set it to x86_64 or arm64."),
        (["TAG="], {}, "The image is named by its commit, and this is not a git checkout: clone the repository."),
    ],
)
def test_what_keeps_from_deploying_is_told_in_one_sentence(
    machine: Machine, arguments: list[str], environment: dict[str, str], sentence: str
) -> None:
    done = machine.make("deploy", *arguments, **environment)
    assert done.returncode != 0
    first, *rest = done.stderr.splitlines()
    assert first == sentence
    assert all(line.startswith("make: ***") for line in rest)
    assert machine.ran("docker") == machine.ran("sam") == []


@pytest.mark.parametrize(
    ("target", "tool"),
    [*(("deploy", tool) for tool in ("git", "docker", "aws", "sam")), ("destroy", "aws"), ("destroy", "sam")],
)
def test_tool_that_is_missing_is_named_before_anything_is_done(machine: Machine, target: str, tool: str) -> None:
    (machine.folder / tool).unlink()
    done = machine.make(target, "TAG=0123456789ab")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == f"{tool} is missing: docs/deployment.md says what to install."
    assert [command for command in machine.commands() if command[0] != "git"] == []


def test_image_that_cannot_be_built_is_not_deployed(machine: Machine) -> None:
    assert machine.make("deploy", NO_IMAGE="254", BUILD="1").returncode != 0
    assert [command[1] for command in machine.ran("docker")] == ["login", "build"]
    assert machine.ran("sam") == []


def test_destroying_tells_what_is_left(machine: Machine) -> None:
    done = machine.make("destroy")
    assert done.returncode == 0, done.stderr
    assert machine.ran("sam") == [["sam", "delete", "--stack-name", "pneumonia", "--no-prompts"]]
    left = done.stdout.splitlines()[1:]
    assert [line.strip() for line in left] == [
        "the bucket pneumonia-data",
        "the bucket pneumonia-weights",
        "the image repository pneumonia",
        "the log group /aws/sagemaker/TrainingJobs, which all training jobs of the account share",
    ]


@pytest.mark.parametrize("target", ["deploy", "destroy"])
def test_recipes_have_no_finding_of_shellcheck(machine: Machine, target: str, tmp_path: Path) -> None:
    script = tmp_path / f"{target}.sh"
    script.write_text(machine.make("--dry-run", target).stdout)
    assert "sam" in script.read_text()
    checked = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "--shell=sh", script, PROJECT / "tools/push_image.sh"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.stdout == ""
    assert checked.returncode == 0
