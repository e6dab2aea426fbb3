"""From pressing play to the programme at the horn: the whole demonstration, pressed again and again.

Counted from the request that presses play to the first 20 ms at the simulated horn that belong to the programme, at the
one lag fitted to the whole recording. With a free lag 20 ms of any speech would match somewhere.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
import wave
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import numpy as np

from simulators import demo, demo_people
from simulators.demo_commune import HAMLETS
from simulators.hearing import heard

PRESSES = 7


async def measure() -> None:
    """Start everything, press play, listen, print the figures."""
    broker = next(one for one in demo.MOSQUITTO if one and Path(one).is_file())
    with tempfile.TemporaryDirectory(prefix="hamlet-bench-") as folder:
        commune = demo.Commune(folder=Path(folder), port=0, mqtt_port=demo._free(0), box_mqtt_port=demo._free(0))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(demo._stop_all, commune)
            session = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=demo_people.jar()))
            await demo._start_all(commune, broker, session, asyncio.Event())
            devices = (await demo._get(commune, session, "/api/devices"))["devices"]
            speaker = HAMLETS[0].speakers[0]
            by_name = {one["device"]: one["id"] for one in devices}
            delays, answers = [], []
            for number in range(1, PRESSES + 1):
                pressed = time.time()
                form = {"text": HAMLETS[0].sentence, "speakers": by_name[speaker], "volume": "60"}
                async with session.post(
                    f"{commune.url}/api/announcements", data=form, headers={"Origin": commune.url}
                ) as response:
                    told = await response.json()
                answers.append(time.time() - pressed)
                facts = commune.folder / "recordings" / f"{speaker}-{number}.json"
                async with asyncio.timeout(60):
                    while not facts.exists():
                        await asyncio.sleep(0.05)
                programme = await demo._bytes(commune, session, f"/audio/{told['sha256']}")
                with wave.open(str(facts.with_suffix(".wav"))) as recorded:
                    rate = recorded.getframerate()
                    recording = np.frombuffer(recorded.readframes(recorded.getnframes()), dtype="<i2")
                found = heard(recording, demo._decoded(commune.folder, programme, rate), rate=rate)
                assert found.heard, "a programme that is not heard has no delay"
                assert found.onset_seconds is not None
                started = json.loads(facts.read_text(encoding="utf-8"))["started_at_ms"] / 1000
                delays.append(started + found.onset_seconds - pressed)
    detail = {
        "reference": "speech made, levelled and signed: the API's answer",
        "presses": PRESSES,
        "least": round(min(delays), 3),
        "most": round(max(delays), 3),
        "text": HAMLETS[0].sentence,
    }
    signed = statistics.median(answers)
    told = {
        "bench": "announce",
        "figure": round(statistics.median(delays), 3),
        "unit": "s",
        "reference": round(signed, 3),
        "ratio": round(statistics.median(delays) / signed, 2),
        "detail": detail,
    }
    print(json.dumps(told, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(asyncio.run(measure()))
