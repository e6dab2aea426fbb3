"""Speaks to the hub that runs, over its loopback address: for commands that must not write beside it."""

import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from contract.clock import Clock
from hub.config import Config
from hub.people.reception import KEY_FILE
from hub.people.sealing import Seal
from hub.people.shell_pass import pass_of

DEADLINE = 600.0
"""Seconds until an answer: the hub may have a lot to look at."""


class HubSilent(Exception):
    """No hub answers, or it refuses; says why and what to do."""


class RunningHub:
    """The hub that `hamlet-hub serve` runs with the same file; `who` asks, by the key file that both can read."""

    def __init__(self, config: Config, clock: Clock, *, who: str) -> None:
        hub = config.hub
        self._clock, self._who, self._seal = clock, who, Seal(hub.state_dir / KEY_FILE)
        self._certificate = hub.tls_certificate
        url = f"http://{hub.listen}:{hub.port}"
        if hub.status_file is not None and hub.status_file.exists():
            try:
                url = str(json.loads(hub.status_file.read_text(encoding="utf-8"))["url"])
            except (OSError, ValueError, KeyError, TypeError) as exc:
                raise HubSilent(f"{hub.status_file}: cannot be read ({exc}); is the hub running?") from exc
        where = urlsplit(url)
        self._host, self._port = hub.listen, where.port or 80
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
        headers = {
            "Host": name,
            "Authorization": f"Shell {pass_of(self._seal, self._who, self._clock.now_ms())}",
            "Content-Type": "application/json",
        }
        connection = self._connection()
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

    def _connection(self) -> http.client.HTTPConnection:
        # Listening everywhere is listening here too; and here it is where the pass is good for.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104  # compared, not bound
        if self._certificate is None:
            return http.client.HTTPConnection(host, self._port, timeout=DEADLINE)
        context = ssl.create_default_context(cafile=str(self._certificate))
        # It must be that very certificate; for whose name it was made does not matter here.
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return http.client.HTTPSConnection(host, self._port, timeout=DEADLINE, context=context)
