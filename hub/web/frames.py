"""Pages that stay alive: one frame is rendered for all who watch a page with the same sight, and sent if it changed.

Whoever watches is asked again before each frame and each second whether they still may; if not, their stream ends.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Hashable
from dataclasses import dataclass, field

from contract.clock import Clock
from hub.announcements import Announcements
from hub.commands import Commands
from hub.live_state import LiveState

FRAME_SECONDS = 1.0
REFRESH_SECONDS = 5.0
"""Ages are said in words, so even an unchanged world needs a new frame now and then."""

ASK_SECONDS = 0.5
"""How often a watcher of a quiet page is asked whether they still may."""

MOST_WATCHERS = 200


@dataclass(slots=True)
class _Page:
    """One page as it looks to some, for as long as somebody watches it."""

    watchers: "set[asyncio.Queue[str]]" = field(default_factory=set)
    loop: "asyncio.Task[None] | None" = None
    last: str = ""


class Frames:
    """Hands frames to whoever watches; ends all of them when `closing` is set."""

    def __init__(
        self,
        *,
        live: LiveState,
        commands: Commands,
        announcements: Announcements | None,
        closing: asyncio.Event,
        clock: Clock,
    ) -> None:
        self._live = live
        self._commands = commands
        self._announcements = announcements
        self._closing = closing
        self._clock = clock
        self._pages: dict[Hashable, _Page] = {}

    async def watch(
        self, key: Hashable, render: Callable[[], str], still: Callable[[], bool] = lambda: True
    ) -> AsyncGenerator[str, None]:
        """Yield frames of a page from now on, at most one a second; a slow watcher misses frames, never order.

        Those with equal keys are shown the same. Ends within a second once `still` says no.

        An empty frame says that nothing changed: a page that hears nothing believes its link lost.
        """
        page = self._pages.setdefault(key, _Page())
        if len(page.watchers) >= MOST_WATCHERS:
            return
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
        page.watchers.add(queue)
        if page.loop is None:
            page.loop = asyncio.create_task(self._render(page, render), name="frames")
        closing = asyncio.create_task(self._closing.wait())
        frame = asyncio.create_task(queue.get())
        second = asyncio.create_task(self._clock.sleep(ASK_SECONDS))
        try:
            yield render()
            while not self._closing.is_set():
                done, _ = await asyncio.wait({frame, closing, second}, return_when=asyncio.FIRST_COMPLETED)
                if closing in done or not still():
                    break
                if second in done:
                    second = asyncio.create_task(self._clock.sleep(ASK_SECONDS))
                if frame in done:
                    shown, frame = frame.result(), asyncio.create_task(queue.get())
                    yield shown
        finally:
            for waiting in (closing, frame, second):
                waiting.cancel()
            page.watchers.discard(queue)
            if not page.watchers and page.loop is not None:
                page.loop.cancel()
                self._pages.pop(key, None)

    async def _render(self, page: _Page, render: Callable[[], str]) -> None:
        while True:
            await self._news()
            frame = render()
            news = "" if frame == page.last else frame
            page.last = frame
            for queue in page.watchers:
                if news:
                    with contextlib.suppress(asyncio.QueueEmpty):
                        queue.get_nowait()
                with contextlib.suppress(asyncio.QueueFull):  # what was not taken yet is sign enough
                    queue.put_nowait(news)
            await self._clock.sleep(FRAME_SECONDS)

    async def _news(self) -> None:
        """Return when something visible changed, or after REFRESH_SECONDS."""
        waiting = [
            asyncio.create_task(self._live.changed(self._live.version)),
            asyncio.create_task(self._commands.changed(self._commands.version)),
        ]
        if self._announcements is not None:
            waiting.append(asyncio.create_task(self._announcements.changed(self._announcements.version)))
        waiting_for_age = asyncio.create_task(self._clock.sleep(REFRESH_SECONDS))
        try:
            await asyncio.wait({*waiting, waiting_for_age}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (*waiting, waiting_for_age):
                one.cancel()
