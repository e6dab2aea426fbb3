"""An answer that is sent piece by piece as it is worked out, and broken off rather than ended where it cannot be."""

import asyncio
import logging
from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from hub.exports import Export
from hub.storage.timeseries import StoreUnavailable

PATIENCE_SECONDS = 60.0
"""A reader that takes nothing for so long is gone; it must not hold the store as it was for ever."""

log = logging.getLogger(__name__)


class Streamed(StreamingResponse):
    """An export on its way to one reader; however that ends, the store is let go."""

    def __init__(self, export: Export, first: bytes, filename: str, media_type: str) -> None:
        headers = {"Content-Disposition": f'attachment; filename="{filename}"', "Cache-Control": "no-store"}
        super().__init__(self._body(export, first), media_type=media_type, headers=headers)
        self._export = export

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await send(message)

        # Without its last chunk the answer is broken off; the server closes the connection.
        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            log.warning("an export was given up: its reader took nothing for %.0f s", PATIENCE_SECONDS)
        except StoreUnavailable as exc:
            log.error("an export was broken off: %s", exc)
        finally:
            self._export.end()

    @staticmethod
    async def _body(export: Export, first: bytes) -> AsyncIterator[bytes]:
        piece = first
        while piece:
            yield piece
            piece = await export.read()
