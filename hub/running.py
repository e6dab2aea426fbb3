"""Speaks to the hub that runs, over its loopback address: for commands that must not write beside it."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from hub.config import Config

DEADLINE = 600.0
"""Seconds until an answer: the hub may have a lot to look at."""


class HubSilent(Exception):
    """No hub answers, or it refuses; says why and what to do."""


class RunningHub:
    """The hub that `hamlet-hub serve` runs with the same file."""

    def __init__(self, config: Config) -> None:
        hub = config.hub
        url = f"http://{hub.listen}:{hub.port}"
        if hub.status_file is not None and hub.status_file.exists():
            try:
                url = str(json.loads(hub.status_file.read_text(encoding="utf-8"))["url"])
            except (OSError, ValueError, KeyError, TypeError) as exc:
                raise HubSilent(f"{hub.status_file}: cannot be read ({exc}); is the hub running?") from exc
        where = urlsplit(url)
        self._host, self._port = where.hostname or hub.listen, where.port or 80
        if hub.port == 0 and hub.status_file is None:
            raise HubSilent("hub port is 0 and there is no status_file to find the address in; set one of them")

    def get(self, path: str) -> Any:
        """Return what the API answers to GET; raise HubSilent."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: object) -> Any:
        """Return what the API answers to POST; raise HubSilent."""
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: object) -> Any:
        name = f"localhost:{self._port}"
        headers = {"Host": name, "Origin": f"http://{name}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(self._host, self._port, timeout=DEADLINE)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            said = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise HubSilent(
                f"no hub answers at {self._host}:{self._port} ({exc}); start it with `hamlet-hub serve`: "
                "only the hub itself writes its store"
            ) from exc
        finally:
            connection.close()
        if response.status >= 400:
            raise HubSilent(str(said.get("detail", response.reason)) if isinstance(said, dict) else response.reason)
        return said
