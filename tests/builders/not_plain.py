"""What may lie among files and is not one that can be read: pipes, devices, sockets, links in a circle, huge files."""

import os
import socket
from pathlib import Path

HUGE = 3 * 1024**3
# Names to what the sentence says about them.
TOLD = {
    "pipe.jpeg": "This is not a plain file: name an image.",
    "socket.jpeg": "This is not a plain file: name an image.",
    "zero.jpeg": "This is not a plain file: name an image.",
    "huge.jpeg": "The file is larger than 20,971,520 bytes",
    "circle.jpeg": "Too many levels of symbolic links",
    "gone.jpeg": "No such file or directory",
}


def put_into(folder: Path) -> None:
    """Make one of each in a folder; the huge file takes no space."""
    os.mkfifo(folder / "pipe.jpeg")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "socket.jpeg"))  # it stays when the socket is closed
    (folder / "zero.jpeg").symlink_to("/dev/zero")
    with (folder / "huge.jpeg").open("wb") as file:
        file.truncate(HUGE)
    (folder / "circle.jpeg").symlink_to("circle.jpeg")
    (folder / "gone.jpeg").symlink_to("nowhere")
