"""Commands on the page of a device and in the API: who sees them, who presses, and what is said meanwhile."""

from typing import Any

import pytest

from contract.actions import ACTIONS
from contract.catalog import COMMAND_OUTCOME
from contract.commands import Outcome, Stage, written
from hub.devices import DeviceKey, device_id
from hub.rights.permissions import TABLE, Noun, Role, Verb
from hub.rights.scopes import Scope
from hub.storage.timeseries import Batch, EventRow

KEY = DeviceKey("g", "n-01", "probe-01")
PROBE = device_id(KEY)
OURS = {"Origin": "http://127.0.0.1:8080"}


async def ask(client: Any, device: str = PROBE) -> Any:
    return await client.post(f"/api/devices/{device}/commands", json={"action": "ask_now"}, headers=OURS)


async def section(client: Any, language: str = "en") -> str:
    page = (await client.get(f"/devices/{PROBE}", params={"lang": language})).text
    return str(page.partition('id="commands"')[2])


def test_every_action_has_a_right_in_the_table() -> None:
    assert {(Noun.COMMAND, Verb(action)) for action in ACTIONS} <= set(TABLE)


async def test_a_technician_asks_and_sees_who_asked_and_how_far_it_has_come(hub: Any, sign_in: Any) -> None:
    client = sign_in(Role.TECHNICIAN)
    assert "Nothing was asked of it yet." in await section(client)
    made = await ask(client)
    assert made.status_code == 202
    assert (made.json()["stage"], made.json()["sendings"]) == ("pending", 0)
    page = await section(client)
    assert "waiting" in page
    assert "Bà person-" in page
    assert "Hỏi ngay" in await section(client, "vi")
    listed = (await client.get(f"/api/devices/{PROBE}/commands")).json()["commands"]
    assert [one["id"] for one in listed] == [made.json()["id"]]


async def test_the_boxs_word_is_shown(hub: Any, sign_in: Any, eventually: Any) -> None:
    client, inside = sign_in(Role.TECHNICIAN), hub.state.hub
    made = (await ask(client)).json()["id"]
    at = inside.clock.now_ms()
    told = written(Outcome(command=made, stage=Stage.FAILED, reason="unauthorised", at=at))
    node = DeviceKey("g", "n-01", "")
    event = EventRow(key=node, metric=COMMAND_OUTCOME, at=at, received_at=at, value=told)
    inside.store.commit(Batch(events=[event]), at)
    inside.commands.outcomes_came()
    await eventually(lambda: inside.commands.of(KEY)[0].stage is Stage.FAILED)
    assert "could not be done: wants another password" in await section(client)


async def test_pressed_twice_it_is_asked_once(hub: Any, sign_in: Any) -> None:
    client = sign_in(Role.TECHNICIAN)
    for _ in range(2):
        pressed = await client.post(f"/devices/{PROBE}/ask-now", headers=OURS)
        assert (pressed.status_code, pressed.headers["location"]) == (303, f"/devices/{PROBE}")
    assert len(hub.state.hub.commands.of(KEY)) == 1
    again = await ask(client)
    assert (again.status_code, again.json()["code"]) == (409, "under_way")


@pytest.mark.parametrize("role", [Role.PROVINCE_SUPERVISOR, Role.TESTER])
async def test_who_may_only_see_has_no_button(sign_in: Any, role: Role) -> None:
    assert "Ask now" not in await section(sign_in(role))
    assert "Nothing was asked" in await section(sign_in(role))


async def test_who_may_not_see_them_is_shown_none(sign_in: Any) -> None:
    await ask(sign_in(Role.TECHNICIAN))
    assert await section(sign_in(Role.OPERATOR)) == ""


async def test_a_neighbour_finds_no_such_device(hub: Any, sign_in: Any) -> None:
    assert (await ask(sign_in(Role.TECHNICIAN, scope=Scope("h")))).status_code == 404
    assert hub.state.hub.commands.of(KEY) == []


@pytest.mark.parametrize("action", ["play", "restart", "set_volume", "ASK_NOW", "", None])
async def test_no_other_action_is_taken(sign_in: Any, action: Any) -> None:
    client = sign_in(Role.TECHNICIAN)
    answer = await client.post(f"/api/devices/{PROBE}/commands", json={"action": action}, headers=OURS)
    assert answer.status_code == 422


async def test_equipment_of_others_knows_no_commands(hub: Any, sign_in: Any) -> None:
    stranger = DeviceKey("x", "theirs", "plc")
    hub.state.hub.live.state(stranger).foreign = True
    answer = await ask(sign_in(Role.TECHNICIAN), device_id(stranger))
    assert (answer.status_code, answer.json()["code"]) == (409, "foreign")


async def test_a_new_stage_is_news_for_the_open_page(hub: Any, sign_in: Any) -> None:
    before = hub.state.hub.commands.version
    await ask(sign_in(Role.TECHNICIAN))
    assert await hub.state.hub.commands.changed(before) == before + 1
