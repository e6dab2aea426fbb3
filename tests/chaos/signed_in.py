"""Whom a run asks the hub as: somebody with a token, made anew when a restored hub has forgotten it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aiohttp

from simulators import demo_people

RIGHTS = ["device see", "announcement see", "announcement make", "history export"]
LASTS_MS = 300 * 86_400_000


class SignedIn:
    """Keeps a token; `headers` sends it, `renew` gets another one."""

    def __init__(self, url: str, config: Path, now_ms: Callable[[], int]) -> None:
        self._url = url
        self._config = config
        self._now_ms = now_ms
        self._turn = asyncio.Lock()
        self._token = ""

    @property
    def headers(self) -> dict[str, str]:
        """Return what a request must bring."""
        return {"Authorization": f"Bearer {self._token}"}

    async def renew(self, refused: str) -> None:
        """Get another token, unless somebody did since `refused` was sent; a hub that is away gives none."""
        async with self._turn:
            if self.headers["Authorization"] != refused:
                return
            # A hub whose clock was put back takes no code of now, and one that was killed answers nobody.
            with suppress(RuntimeError, aiohttp.ClientError, TimeoutError, OSError, KeyError):
                self._token = await self._made()

    async def _made(self) -> str:
        who = demo_people.JUDGE
        try:
            links = await demo_people.add([who], self._config)
        except RuntimeError:
            links = {who.name: await demo_people.recovered(who, self._config)}
        async with aiohttp.ClientSession(
            cookie_jar=demo_people.jar(), timeout=aiohttp.ClientTimeout(total=20)
        ) as session:
            known = await demo_people.set_up(session, self._url, who, links[who.name])
            await demo_people.sign_in(session, self._url, known)
            body = {"label": "a run", "rights": RIGHTS, "expires_at": self._now_ms() + LASTS_MS}
            async with session.post(f"{self._url}/api/me/tokens", json=body, headers={"Origin": self._url}) as answer:
                told = await answer.json()
                return str(told["token"])
