"""One question to a device over HTTP: a bounded answer, no redirects, and every way to fail told apart."""

import aiohttp

from contract.catalog import Cause
from edge.poller import DeviceUnavailable


async def exchange(
    session: aiohttp.ClientSession, method: str, url: str, *, body: object = None, most: int
) -> tuple[int, bytes]:
    """Return status and body of at most `most` bytes; raise DeviceUnavailable where no whole answer came."""
    what = f"{method} {url}"
    try:
        async with session.request(method, url, json=body, allow_redirects=False) as response:
            raw = bytearray()
            async for piece in response.content.iter_any():
                raw += piece
                if len(raw) > most:
                    raise DeviceUnavailable(Cause.NONSENSE, f"{what}: answered more than {most} bytes")
            return response.status, bytes(raw)
    except aiohttp.ConnectionTimeoutError as exc:
        raise DeviceUnavailable(Cause.UNREACHABLE, f"{what}: nobody there") from exc
    except TimeoutError as exc:
        raise DeviceUnavailable(Cause.SILENT, f"{what}: no answer within {session.timeout.total:g} s") from exc
    except aiohttp.ClientConnectorError as exc:
        turned_away = isinstance(exc.os_error, (ConnectionRefusedError, ConnectionResetError))
        cause = Cause.REFUSED if turned_away else Cause.UNREACHABLE
        raise DeviceUnavailable(cause, f"{what}: {exc.os_error.strerror or exc}") from exc
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as exc:
        raise DeviceUnavailable(Cause.REFUSED, f"{what}: it hung up") from exc
    except aiohttp.ClientError as exc:
        raise DeviceUnavailable(Cause.NONSENSE, f"{what}: {type(exc).__name__}") from exc
