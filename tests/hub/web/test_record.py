"""The record of acts, for people and programs: who may see it, what is found in it, what is handed over and erased."""

import re
from pathlib import Path
from typing import Any

import pytest

from contract.actions import Action
from contract.dsse import public_bytes
from hub.audit import ERASE_ACT, ERASE_PERSON, Act, Person
from hub.audit_export import audit_key, verify_export
from hub.rights.permissions import Role
from hub.storage.announcements import UNKNOWN_ORDER
from hub.web.acts import ACTS

OWN = {"Origin": "http://127.0.0.1:8080"}
LAN = Person(account="p-lan", name="Nguyễn Thị Lan", address="192.0.2.7")


@pytest.fixture
def told(hub: Any) -> Any:
    """Let somebody have done something."""
    after = {"text": "Mời bà con <script>alert(1)</script>", "volume": 60}
    hub.state.hub.audit.record(
        Act(at=hub.state.hub.clock.now_ms(), by=LAN, what="announcement.make", subject="a-1", why="lũ", after=after)
    )
    return hub


async def test_the_page_tells_who_did_what_and_why_and_lets_no_script_in(told: Any, sign_in: Any) -> None:
    page = (await sign_in(Role.ADMINISTRATOR).get("/audit?lang=vi")).text
    assert "Nguyễn Thị Lan" in page
    assert "phát thanh" in page
    assert "Lý do: lũ" in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("text=bà con", True),
        ("text=sơ tán", False),
        ("what=announcement.make", True),
        ("what=announcement.stop", False),
        ("account=p-lan", True),
        ("account=p-minh", False),
        ("from=2020-01-01", True),
        ("to=2020-01-02", False),
        ("before=1", False),
    ],
)
async def test_the_page_shows_what_is_asked_for(told: Any, sign_in: Any, question: str, found: bool) -> None:
    answer = await sign_in(Role.ADMINISTRATOR).get(f"/audit?{question}&lang=en")
    assert answer.status_code == 200
    assert ("Reason: lũ" in answer.text or "Why: lũ" in answer.text) is found


@pytest.mark.parametrize("day", ["yesterday", "2026-13-01", "0001-01-01", "9999-12-31", "'; DROP TABLE acts"])
async def test_a_day_that_is_none_is_said(told: Any, sign_in: Any, day: str) -> None:
    answer = await sign_in(Role.ADMINISTRATOR).get("/audit", params={"from": day, "lang": "en"})
    assert (answer.status_code, "That is no day." in answer.text) == (422, True)


@pytest.mark.parametrize("role", [one for one in Role if one not in {Role.ADMINISTRATOR, Role.PROVINCE_SUPERVISOR}])
async def test_nobody_else_sees_the_record(told: Any, sign_in: Any, role: Role) -> None:
    client = sign_in(role)
    assert (await client.get("/audit")).status_code == 403
    assert (await client.get("/api/audit")).status_code == 403
    assert (await client.get("/api/audit/export")).status_code == 403


async def test_programs_page_through_the_record(told: Any, sign_in: Any) -> None:
    client = sign_in(Role.PROVINCE_SUPERVISOR)
    first = (await client.get("/api/audit?limit=1")).json()
    second = (await client.get(f"/api/audit?limit=1&before={first['next']}")).json()
    assert first["acts"][0]["number"] == second["acts"][0]["number"] + 1
    named = (await client.get("/api/audit?account=p-lan")).json()["acts"]
    assert [(one["what"], one["details"]["why"]) for one in named] == [("announcement.make", "lũ")]


async def test_what_is_handed_over_is_signed_and_tells_that_it_was(told: Any, sign_in: Any, tmp_path: Path) -> None:
    answer = await sign_in(Role.PROVINCE_SUPERVISOR).get("/api/audit/export")
    file = tmp_path / "acts.jsonl"
    file.write_bytes(answer.content)
    found = verify_export(file, public_bytes(audit_key(told.state.hub.config.hub.state_dir)))
    assert found.difference is None
    assert b"audit.export" in answer.content
    assert answer.headers["content-disposition"].startswith('attachment; filename="audit_')


async def test_an_export_turned_round_is_refused(told: Any, sign_in: Any) -> None:
    answer = await sign_in(Role.PROVINCE_SUPERVISOR).get("/api/audit/export?first=5&last=2")
    assert (answer.status_code, "must not be after" in answer.json()["detail"]) == (422, True)


async def test_a_persons_name_is_erased_with_a_reason_and_the_act_of_erasing_stays(told: Any, sign_in: Any) -> None:
    client = sign_in(Role.ADMINISTRATOR)
    refused = await client.post("/api/audit/erase", json={"account": "p-lan", "why": ""}, headers=OWN)
    assert refused.status_code == 422
    done = await client.post("/api/audit/erase", json={"account": "p-lan", "why": "yêu cầu của bà Lan"}, headers=OWN)
    assert (done.status_code, done.json()) == (200, {"erased": 2})
    page = (await client.get("/audit?account=p-lan&lang=vi")).text
    assert "Nguyễn Thị Lan" not in page
    assert "Đã xóa: tên, địa chỉ." in page
    named = (await client.get("/api/audit?what=audit.erase_person")).json()["acts"]
    assert [(one["subject"], one["details"]["why"]) for one in named] == [("p-lan", "yêu cầu của bà Lan")]


async def test_a_supervisor_sees_but_does_not_erase(told: Any, sign_in: Any) -> None:
    client = sign_in(Role.PROVINCE_SUPERVISOR)
    assert (
        await client.post("/api/audit/erase", json={"account": "p-lan", "why": "x"}, headers=OWN)
    ).status_code == 403
    assert "/audit/erase" not in (await client.get("/audit?account=p-lan")).text


def test_every_act_the_hub_records_has_a_name_for_people() -> None:
    sources = "".join(one.read_text(encoding="utf-8") for one in sorted(Path("hub").rglob("*.py")))
    recorded = set(re.findall(r'what="([a-z_]+\.[a-z_]+)"', sources))
    recorded |= set(re.findall(r'_act\(caller, "([a-z_.]+)"', sources))
    recorded |= {f"command.{action}" for action in Action}
    assert recorded | {ERASE_ACT, ERASE_PERSON, UNKNOWN_ORDER} == set(ACTS)
