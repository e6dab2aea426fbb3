"""The people of the demonstration: one for each role, added by the hub's command, signed in as people are."""

import asyncio
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pyotp
from yarl import URL

from simulators.demo_commune import GROUP, HAMLETS

STEP_SECONDS = 30
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True)
class Somebody:
    """A person of the demonstration; `scope` as the hub's command wants it."""

    name: str
    full_name: str
    roles: Sequence[str]
    scope: str


PEOPLE = (
    Somebody("vanhanh", "Nguyễn Thị Lan (vận hành)", ["operator"], GROUP),
    Somebody("lanhdao", "Trần Văn Minh (lãnh đạo duyệt)", ["approver"], GROUP),
    Somebody("trucban", "Lê Văn Hùng (trực ban)", ["duty_officer"], GROUP),
    Somebody("congan", "Phạm Quốc Bảo (công an)", ["police"], GROUP),
    Somebody("kythuat", "Võ Thành Đạt (kỹ thuật)", ["technician"], ""),
    Somebody("moitruong", "Đặng Thu Hà (môi trường)", ["environment_officer"], ""),
    Somebody("tinhnguyen", "Bùi Thị Sáu (tình nguyện)", ["volunteer"], f"{GROUP}/{HAMLETS[0].node}"),
    Somebody("giamsat", "Huỳnh Ngọc Ánh (giám sát tỉnh)", ["province_supervisor"], ""),
    Somebody("kiemthu", "Mai Anh Tuấn (kiểm thử)", ["tester"], ""),
    Somebody("quantri", "Dương Mỹ Linh (quản trị)", ["administrator"], ""),
)

JUDGE = Somebody("giamkhao", "Giám khảo (chạy tự động)", ["operator", "technician"], "")
"""Who runs it unattended: announces, and counts what is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Somebody who has set up how they sign in."""

    who: Somebody
    password: str
    secret: str

    def code(self, later: int = 0) -> str:
        """Return the code of now, or of so many steps later."""
        return pyotp.TOTP(self.secret).generate_otp(int(time.time()) // STEP_SECONDS + later)


async def add(people: Sequence[Somebody], config: Path) -> dict[str, str]:
    """Add people by the hub's command; return by name the link with which each sets up their sign-in."""
    file = config.with_name("people.csv")
    rows = [f"{one.name},{one.full_name},{role},{one.scope}" for one in people for role in one.roles]
    file.write_text("\n".join(["name,full_name,role,scope", *rows]), encoding="utf-8")
    out = await _command("add-accounts", str(config), str(file))
    return dict(line.split(",", 1) for line in out.split())


async def recovered(who: Somebody, config: Path) -> str:
    """Return a new link for somebody who is known already."""
    return (await _command("recover-account", str(config), "--name", who.name)).strip()


async def set_up(session: aiohttp.ClientSession, url: str, who: Somebody, link: str) -> Known:
    """Set up how somebody signs in, as their link allows once."""
    path = f"{url}/api/set-up/{link.rpartition('/')[2]}"
    async with session.get(path) as response:
        told = await response.json()
        if response.status != 200:
            raise RuntimeError(f"the link of {who.name} does not open: {told}")
    password = "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(4))
    known = Known(who=who, password=password, secret=told["secret"])
    await _early_in_a_step()
    # The code of the step before, so that the first sign-in need not wait for a new one.
    body = {"password": password, "code": known.code(-1)}
    async with session.post(path, json=body, headers={"Origin": url}) as response:
        if response.status != 204:
            raise RuntimeError(f"{who.name} could not be set up: {await response.text()}")
    return known


async def sign_in(session: aiohttp.ClientSession, url: str, known: Known) -> None:
    """Sign in; the session's cookie jar keeps it."""
    body = {"name": known.who.name, "password": known.password, "code": known.code()}
    async with session.post(f"{url}/api/session", json=body, headers={"Origin": url}) as response:
        if response.status != 204:
            raise RuntimeError(f"{known.who.name} could not sign in: {await response.text()}")


async def come_in(session: aiohttp.ClientSession, url: str, config: Path, who: Somebody) -> None:
    """Add somebody and sign them in; the session's cookie jar keeps it."""
    links = await add([who], config)
    await sign_in(session, url, await set_up(session, url, who, links[who.name]))


async def cookie(url: str, config: Path, who: Somebody) -> str:
    """Add somebody, sign them in, and return the Cookie header of their session."""
    async with aiohttp.ClientSession(cookie_jar=jar()) as session:
        await come_in(session, url, config, who)
        found = session.cookie_jar.filter_cookies(URL(url))["session"]
    return f"session={found.value}"


def jar() -> aiohttp.CookieJar:
    """Return a cookie jar that keeps cookies of a bare address too."""
    return aiohttp.CookieJar(unsafe=True)


def table(people: Sequence[Known], *, codes: bool) -> list[str]:
    """Return the lines that tell who can sign in: with the codes of now, or with the secrets they come from."""
    head = ("name", "password", "code now" if codes else "secret for the authenticator app", "who")
    rows = [(one.who.name, one.password, one.code() if codes else one.secret, one.who.full_name) for one in people]
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(4)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]


async def _command(*words: str) -> str:
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hub", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await running.communicate()
    if running.returncode:
        raise RuntimeError(f"{words[0]}: {err.decode().strip()}")
    return out.decode()


async def _early_in_a_step() -> None:
    """Return when the step that now runs will run for some seconds more."""
    left = STEP_SECONDS - time.time() % STEP_SECONDS
    if left < 8:
        await asyncio.sleep(left + 0.1)
