"""The workflows: what GitHub takes, what they name, and what keeps their credentials safe."""

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import save_weights
from tests.builders.checkout import PROJECT
from tools.stand_ins.moto import Moto

WORKFLOWS = sorted((PROJECT / ".github/workflows").glob("*.yml"))
PINNED = re.compile(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
Step = dict[str, Any]


def jobs(workflow: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(workflow.read_text())["jobs"]
    return found


def steps() -> Iterator[Step]:
    for workflow in WORKFLOWS:
        for job in jobs(workflow).values():
            yield from job.get("steps", [])


def commands() -> list[str]:
    return [step["run"] for step in steps() if "run" in step]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("schema", "files"),
    [("github-workflows", WORKFLOWS), ("dependabot", [PROJECT / ".github/dependabot.yml"])],
    ids=["workflows", "dependabot"],
)
def test_github_takes_them(schema: str, files: list[Path]) -> None:
    validate = str(Path(sys.executable).with_name("check-jsonschema"))
    command = [validate, "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


def test_whatever_is_pinned_is_watched_and_new_versions_ripen_for_a_week() -> None:
    updates = yaml.safe_load((PROJECT / ".github/dependabot.yml").read_text())["updates"]

    assert {update["package-ecosystem"] for update in updates} == {"github-actions", "pip", "docker"}
    assert all(update["directory"] == "/" and update["cooldown"]["default-days"] == 7 for update in updates)


def test_dependabot_can_read_the_base_image() -> None:
    images = re.findall(r"^FROM (\S+)", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)

    # It looks for a name and a version in `FROM`, and knows no build arguments.
    assert [image for image in images if re.fullmatch(r"[\w./-]+:\d+\.\d+", image)] == images[:1]


def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it() -> None:
    uses = [line.partition("uses: ")[2] for file in WORKFLOWS for line in file.read_text().splitlines()]
    actions = [use for use in uses if use and not use.startswith("./")]

    assert actions
    assert [action for action in actions if not PINNED.fullmatch(action)] == []


def test_a_version_is_the_same_commit_everywhere() -> None:
    actions = {action for file in WORKFLOWS for action in re.findall(r"uses: (\S+@.+)", file.read_text())}
    assert len(actions) == len({action.partition("@")[0] for action in actions})


def test_workflows_of_this_repository_are_there() -> None:
    called = [job["uses"] for file in WORKFLOWS for job in jobs(file).values() if "uses" in job]

    assert called
    assert [use for use in called if PROJECT / use not in WORKFLOWS] == []


def test_no_secret_is_used_and_no_checkout_keeps_its_token() -> None:
    checkouts = [step for step in steps() if step.get("uses", "").startswith("actions/checkout@")]

    assert not any("secrets" in file.read_text() for file in WORKFLOWS)
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_nothing_is_put_into_the_text_of_a_script() -> None:
    assert commands()
    assert [command for command in commands() if "${{" in command] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.stem)
def test_a_job_has_the_permissions_it_names_and_a_limit(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text())["permissions"] == {}
    for job in jobs(workflow).values():
        assert set(job["permissions"].items()) <= {("contents", "read"), ("id-token", "write")}
        assert "uses" in job or job["timeout-minutes"] <= 90


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.stem)
def test_only_a_protected_environment_gets_credentials_and_one_job_at_a_time(workflow: Path) -> None:
    with_credentials = [job for job in jobs(workflow).values() if "id-token" in job["permissions"]]

    assert all("environment" in job for job in with_credentials)
    assert not with_credentials or yaml.safe_load(workflow.read_text())["concurrency"]["cancel-in-progress"] is False


def test_pull_requests_get_no_credentials() -> None:
    # YAML 1.1 reads `on` as true.
    triggers = {file.stem: set(yaml.safe_load(file.read_text())[True]) for file in WORKFLOWS}

    assert triggers == {
        "check": {"pull_request", "workflow_call"},
        "deploy": {"push"},
        "promote": {"workflow_dispatch"},
    }
    assert not any("id-token" in job["permissions"] for job in jobs(PROJECT / ".github/workflows/check.yml").values())


def test_the_scripts_and_make_targets_they_run_are_there() -> None:
    targets = set(re.findall(r"^([\w./-]+)(?= *[\w./ -]*:(?!=))", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    words = [command.split() for command in commands()]
    scripts = [command[0] for command in words if command[0] != "make"]

    assert scripts
    assert [script for script in scripts if not os.access(PROJECT / script, os.X_OK)] == []
    assert {target for command in words if command[0] == "make" for target in command[1:]} <= targets


def test_what_they_need_from_the_repository_is_documented() -> None:
    text = "".join(file.read_text() for file in WORKFLOWS)
    environments = {job["environment"] for file in WORKFLOWS for job in jobs(file).values() if "environment" in job}
    guide = (PROJECT / "docs/delivery.md").read_text()

    assert set(re.findall(r"^\| `([A-Z_]+)` \|", guide, re.MULTILINE)) == set(re.findall(r"\bvars\.(\w+)", text))
    assert set(re.findall(r"\$\(trust (\w+)\)", guide)) == environments
    assert set(re.findall(r"for environment in (.+); do", guide)[0].split()) == environments
    assert set(re.findall(r"TRAIN_BUCKET'/\*/output/([^\"]+)\"", guide)) == {"model.tar.gz", "model/*"}


def promote(moto: Moto, bucket: str, **inputs: str) -> "subprocess.CompletedProcess[str]":
    """Run what the manual workflow runs, with what would be typed into its form."""
    typed = {"ACTION": "list", "SOURCE": "", "VERSION": "", "FORCE": "false"} | inputs
    environment = os.environ | moto.environment | {"MODEL_BUCKET": bucket} | typed
    return subprocess.run([PROJECT / ".ci/promote"], env=environment, check=False, capture_output=True, text=True)


def test_the_manual_workflow_sets_what_its_script_reads() -> None:
    [step] = [step for step in steps() if step.get("run") == ".ci/promote"]
    inputs = yaml.safe_load((PROJECT / ".github/workflows/promote.yml").read_text())[True]["workflow_dispatch"][
        "inputs"
    ]

    assert step["env"] == {"MODEL_BUCKET": "${{ vars.MODEL_BUCKET }}"} | {
        name.upper(): f"${{{{ inputs.{name} }}}}" for name in inputs
    }


def served(moto: Moto, bucket: str) -> str:
    version: str = json.loads(moto.s3().get_object(Bucket=bucket, Key="current.json")["Body"].read())["version"]
    return version


def promote_new_weights(moto: Moto, bucket: str, folder: Path, seed: int) -> str:
    """Train nothing, promote the random weights all the same, and return the release's version."""
    torch.manual_seed(seed)
    save_weights(ResNet18().state_dict(), folder / WEIGHTS_NAME)
    with tarfile.open(folder / "model.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(folder / WEIGHTS_NAME, WEIGHTS_NAME)
    moto.s3().upload_file(str(folder / "model.tar.gz"), bucket, "job/output/model.tar.gz")
    done = promote(moto, bucket, ACTION="promote", SOURCE=f"s3://{bucket}/job/output/model.tar.gz", FORCE="true")
    assert done.returncode == 0, done.stderr
    return served(moto, bucket)


@pytest.mark.slow
def test_the_manual_workflow_promotes_lists_and_goes_back(moto: Moto, bucket: str, tmp_path: Path) -> None:
    older = promote_new_weights(moto, bucket, tmp_path, seed=0)
    newer = promote_new_weights(moto, bucket, tmp_path, seed=1)
    assert older != newer

    releases = promote(moto, bucket, ACTION="list").stdout
    assert older in releases
    assert newer in releases

    assert promote(moto, bucket, ACTION="rollback").returncode == 0
    assert served(moto, bucket) == older
    assert promote(moto, bucket, ACTION="rollback", VERSION=newer).returncode == 0
    assert served(moto, bucket) == newer


@pytest.mark.parametrize(
    "inputs",
    [
        {"ACTION": "promote", "SOURCE": "model.tar.gz"},
        {"ACTION": "promote", "SOURCE": "--help"},
        {"ACTION": "promote", "SOURCE": ""},
        {"ACTION": "remove"},
    ],
    ids=lambda inputs: " ".join(inputs.values()),
)
def test_the_manual_workflow_refuses_what_makes_no_sense_in_one_sentence(
    moto: Moto, bucket: str, inputs: dict[str, str]
) -> None:
    done = promote(moto, bucket, **inputs)

    assert done.returncode != 0
    assert done.stderr.strip().count("\n") == 0
    assert moto.keys(bucket) == []
