"""What a server that many clients share asks of their uploads: to go on, and to fit into memory together.

Nothing imports this on Lambda, where a body is whole before the function sees it, and alone.
"""

import asyncio

from fastapi.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumonia.serving.middleware import BODY_BYTES

STEP = 64 * 1024  # bytes
PATIENCE = 10.0  # seconds that a client has for each STEP: 52 kbit/s will do, and a break of some seconds
UPLOADS_BYTES = 10 * BODY_BYTES  # of all bodies in memory at once
WAITING = 128  # most bodies that are whole and not answered: some five seconds of work, also for clients that have left


class Upload:
    """The body of one request, while it is read and until it is answered.

    Attributes:
        held: its bytes in memory.
        since: when the client began the STEP that it is at, by the event loop's clock.
        is_whole: whether the last byte is there.
        gave_way: whether it is refused, as others need the memory.
    """

    def __init__(self, receive: Receive, patience: float) -> None:
        self.held = 0
        self.since = asyncio.get_running_loop().time()
        self.is_whole = False
        self.gave_way = False
        self._receive = receive
        self._patience = patience
        self._stepped = 0  # bytes at the time `since`
        self._timeout: asyncio.Timeout | None = None  # while the next bytes are waited for

    async def receive(self) -> Message:
        """Return the body's next message.

        Raises:
            HTTPException: 408, the client is too slow; 503, the upload gave way.
        """
        try:
            async with asyncio.timeout_at(self.since + self._patience) as self._timeout:
                message = await self._receive()
        except TimeoutError:
            self.check()
            raise HTTPException(408, headers={"Connection": "close"}) from None
        finally:
            self._timeout = None
        self._count(message)
        return message

    def _count(self, message: Message) -> None:
        self.held += len(message.get("body", b""))
        self.is_whole = not message.get("more_body", False)
        if self.held - self._stepped >= STEP:
            self.since, self._stepped = asyncio.get_running_loop().time(), self.held

    def give_way(self) -> None:
        """Refuse the upload, even while its next bytes are waited for."""
        self.gave_way = True
        if self._timeout:
            self._timeout.reschedule(0)

    def check(self) -> None:
        """Check that the upload need not give way.

        Raises:
            HTTPException: 503, it must.
        """
        if self.gave_way:
            raise HTTPException(503, headers={"Retry-After": "1"})


class Uploads:
    """Refuse a body that stands still, the slowest if all take more than UPLOADS_BYTES, and any once WAITING are whole.

    Args:
        app: reads the bodies.
        patience: seconds that a client has for each STEP of its body.
    """

    def __init__(self, app: ASGIApp, patience: float = PATIENCE) -> None:
        self._app = app
        self._patience = patience
        self._uploads: set[Upload] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and refuse its body while it is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        upload = Upload(receive, self._patience)

        async def receive_some() -> Message:
            if upload.is_whole:
                return await receive()  # which comes when the client leaves, however late
            message = await upload.receive()
            self._make_room(upload)
            upload.check()
            return message

        self._uploads.add(upload)
        try:
            await self._app(scope, receive_some, send)
        finally:
            self._uploads.remove(upload)

    def _make_room(self, newest: Upload) -> None:
        """Let the newest upload give way if too many wait for answers, and the slowest if there is little memory."""
        kept = [upload for upload in self._uploads if not upload.gave_way]
        if newest.is_whole and sum(upload.is_whole and upload.held > 0 for upload in kept) > WAITING:
            newest.give_way()
        elif sum(upload.held for upload in kept) > UPLOADS_BYTES:
            unfinished = [upload for upload in kept if not upload.is_whole]
            min(unfinished, key=lambda upload: upload.since, default=newest).give_way()
