"""Check that the SageMaker Python SDK is installed and usable, and open its session."""

import contextlib
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumonia.errors import ConfigurationError, TrainingError, first_line
from pneumonia.storage.refusals import refusals_as

if TYPE_CHECKING:
    import boto3

MAJOR_VERSION = "3"
INSTALLING = f"run `make develop`, or pip install 'sagemaker>={MAJOR_VERSION}'"


def check_sdk() -> None:
    """Check that the SDK is installed in a version with these interfaces, and that its configuration can be read.

    Raises:
        ConfigurationError: it is not, or cannot.
    """
    try:
        version = importlib.metadata.version("sagemaker")
    except importlib.metadata.PackageNotFoundError:
        version = None
    needed = f"Launching a job needs version {MAJOR_VERSION} of the SageMaker Python SDK"
    if version and version.partition(".")[0] != MAJOR_VERSION:
        raise ConfigurationError(f"{needed}, and {version} is installed: {INSTALLING}.")
    try:
        with refusals_as(ConfigurationError, "The AWS configuration cannot be used"):  # which the SDK reads at once
            import sagemaker.core.helper.session_helper  # noqa: PLC0415  # takes seconds: only where it is needed
            import sagemaker.train.tuner  # noqa: F401, PLC0415
    except ImportError as error:
        found = f"{version} is installed but cannot be used" if version else "it is not installed"
        raise ConfigurationError(f"{needed}, and {found} ({first_line(error)}): {INSTALLING}.") from error
    configuration()


@contextlib.contextmanager
def one_sentence(what: str) -> Iterator[None]:
    """Turn what AWS and the SDK raise into one sentence.

    Args:
        what: its beginning.

    Raises:
        TrainingError: with that sentence.
    """
    from sagemaker.core.utils.exceptions import SageMakerCoreError  # noqa: PLC0415

    try:
        with refusals_as(TrainingError, what, service="AWS"):
            yield
    except (SageMakerCoreError, ValueError, RuntimeError) as error:  # the SDK checks instance types and such
        raise TrainingError(f"{what}: {first_line(error)}") from error


def sdk_session(session: "boto3.Session", bucket: str) -> Any:  # noqa: ANN401  # the SDK has no types
    """Return the SDK's session, which reports no call to its makers unless its configuration says so.

    Args:
        session: the AWS session.
        bucket: gets what the SDK uploads.
    """
    from sagemaker.core.helper.session_helper import Session  # noqa: PLC0415

    config = {"SchemaVersion": "1.0"} | configuration()
    sdk = config.setdefault("SageMaker", {}).setdefault("PythonSDK", {}).setdefault("Modules", {})
    sdk.setdefault("TelemetryOptOut", True)
    return Session(boto_session=session, default_bucket=bucket, sagemaker_config=config)


def configuration() -> dict[str, Any]:
    """Return what the SDK's configuration files say, merged.

    Raises:
        ConfigurationError: one of them cannot be read, is no YAML, or does not follow the SDK's schema.
    """
    from sagemaker.core.config import config  # noqa: PLC0415

    what = f"The SageMaker SDK's configuration ({' or '.join(_configuration_files())}) cannot be used"
    try:
        with refusals_as(ConfigurationError, what):
            loaded: dict[str, Any] = config.load_sagemaker_config()
    except config.jsonschema.ValidationError as error:
        raise ConfigurationError(
            f"{what}: {error.message}, at {error.json_path}. Correct the file, or remove it."
        ) from error
    except (config.yaml.YAMLError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigurationError(f"{what}: {reason}. Correct the file, or remove it.") from error
    return loaded


def _configuration_files() -> list[str]:
    """Return where the SDK reads: the paths that the environment names, and of its own paths those with a file."""
    from sagemaker.core.config import config  # noqa: PLC0415

    named = (config.ENV_VARIABLE_ADMIN_CONFIG_OVERRIDE, config.ENV_VARIABLE_USER_CONFIG_OVERRIDE)
    own = (config._DEFAULT_ADMIN_CONFIG_FILE_PATH, config._DEFAULT_USER_CONFIG_FILE_PATH)  # noqa: SLF001
    places = [(os.environ.get(name), default) for name, default in zip(named, own, strict=True)]
    return [given or default for given, default in places if given or Path(default).exists()]
