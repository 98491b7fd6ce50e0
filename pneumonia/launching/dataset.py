"""Check the channels in S3 before an instance is paid for: a bounded listing, judged by the job's own rules."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3

from pneumonia.command import say
from pneumonia.errors import DataError
from pneumonia.network.contract import CLASSES
from pneumonia.training.channels import SPLITS, folders_inside, is_hidden, no_images, swapped_names, wrong_folders

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PAGES = 5  # of at most 1,000 names, for each folder: the public data set's largest has 3,875 images
CANDIDATES = 10  # folders that are searched for channels that are not where they should be


@dataclass(frozen=True)
class Listing:
    """The names in a folder in S3, without hidden ones and those of its folders' content.

    Attributes:
        folders: names of folders.
        files: names of files.
        whole: whether these are all; if not, only the first PAGES were listed.
        empty: whether there is nothing at all, not even something hidden.
    """

    folders: list[str]
    files: list[str]
    whole: bool
    empty: bool


@dataclass(frozen=True)
class ListedChannel:
    """A channel in S3: its name and address, what lies in it, and what lies in each class folder."""

    name: str
    place: str
    top: Listing
    classes: dict[str, Listing]

    @property
    def folders(self) -> set[str]:
        """The folders in it, with those of the classes even if the listing ended before them."""
        return {*self.top.folders, *(label for label, inside in self.classes.items() if not inside.empty)}

    def images(self, label: str) -> list[str] | None:
        """Return the names that the job takes for a class's images; None if not all were listed."""
        inside = self.classes[label]
        return sorted(inside.files) if inside.whole else None

    def problems(self) -> list[str]:
        """Return what the job would refuse, except class folders without images."""
        inside = [folders_inside(f"{self.name}/{label}", self.classes[label].folders) for label in CLASSES]
        swapped = [swapped_names(self.name, label, self.images(label) or []) for label in CLASSES]
        return [problem for problem in (wrong_folders(self.place, self.folders), *inside, *swapped) if problem]

    def without_images(self) -> list[str]:
        """Return the class folders without images."""
        empty = [label for label in CLASSES if self.images(label) == [] and not self.classes[label].folders]
        return [f"{self.name}/{label}" for label in empty if label in self.folders]


def check_dataset(session: boto3.Session, bucket: str, prefix: str) -> None:
    """Check that the job will find images of both classes in every channel.

    Args:
        session: the AWS session.
        bucket: the bucket's name.
        prefix: the folder of the channels, "" for the bucket's root.

    Raises:
        DataError: with all that the job would refuse.
    """
    s3 = session.client("s3")
    channels = [listed_channel(s3, bucket, prefix, name) for name in SPLITS]
    empty = [channel for channel in channels if channel.top.empty]
    problems = [no_files(s3, bucket, prefix, empty)] if empty else []
    problems += [problem for channel in channels if channel not in empty for problem in channel.problems()]
    if places := [place for channel in channels for place in channel.without_images()]:
        problems.append(no_images(places))
    if problems:
        raise DataError(" ".join(problems))


def listed_channel(s3: "S3Client", bucket: str, prefix: str, name: str) -> ListedChannel:
    """List a channel and its class folders."""
    folder = below(prefix, name)
    classes = {label: listing(s3, bucket, f"{folder}{label}/") for label in CLASSES}
    return ListedChannel(name, f"s3://{bucket}/{folder}", listing(s3, bucket, folder), classes)


def below(prefix: str, name: str) -> str:
    """Return the key of a folder in another one, "" for the bucket's root."""
    return f"{prefix}/{name}/".lstrip("/")


def listing(s3: "S3Client", bucket: str, folder: str) -> Listing:
    """List a folder, PAGES of it at most, and say so if that is not all of it.

    Args:
        s3: a client.
        bucket: the bucket's name.
        folder: the folder's key, with a slash at its end; "" for the bucket's root.
    """
    keys: list[str] = []
    more: dict[str, str] = {}
    for _ in range(PAGES):
        page = s3.list_objects_v2(Bucket=bucket, Prefix=folder, Delimiter="/", **more)  # type: ignore[arg-type]
        keys += [item["Prefix"] for item in page.get("CommonPrefixes", [])]
        keys += [item["Key"] for item in page.get("Contents", [])]
        if not page["IsTruncated"]:
            break
        more = {"ContinuationToken": page["NextContinuationToken"]}
    else:
        say(f"Only the first {len(keys):,} names in s3://{bucket}/{folder} were checked.", file=sys.stderr)
    names = [key.removeprefix(folder) for key in keys if key != folder]  # a console makes an object of a folder's name
    visible = [name for name in names if not is_hidden(name.rstrip("/"))]
    return Listing(
        folders=[name.removesuffix("/") or "/" for name in visible if name.endswith("/")],
        files=[name for name in visible if not name.endswith("/")],
        whole=not page["IsTruncated"],
        empty=not keys,
    )


def no_files(s3: "S3Client", bucket: str, prefix: str, empty: list[ListedChannel]) -> str:
    """Return the sentence about channels with nothing in them, with the folder that was meant if there is one."""
    nothing = f"There are no files in {' and '.join(channel.place for channel in empty)}"
    meant = folder_of_channels(s3, bucket, prefix) if len(empty) == len(SPLITS) else None
    if meant is None:
        return f"{nothing}: upload the images there, or name another folder with --prefix."
    place, value = (f"{meant}/", meant) if meant else ("", '""')
    return f"{nothing}, but s3://{bucket}/{place} has these folders: pass --prefix {value}."


def folder_of_channels(s3: "S3Client", bucket: str, prefix: str) -> str | None:
    """Return the bucket's root, or a folder in it or in another one, if it has all channels; else None."""
    roots = ["", *([prefix] if prefix else [])]
    candidates = ["", *(below(root, name).rstrip("/") for root in roots for name in folders_in(s3, bucket, root))]
    return next((place for place in candidates if {*SPLITS} <= {*folders_in(s3, bucket, place)}), None)


def folders_in(s3: "S3Client", bucket: str, prefix: str) -> list[str]:
    """Return the names of the first folders in a folder, "" for the bucket's root."""
    page = s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/".lstrip("/"), Delimiter="/")
    start = len(f"{prefix}/".lstrip("/"))
    return [item["Prefix"][start:].rstrip("/") for item in page.get("CommonPrefixes", [])[:CANDIDATES]]
