"""What people see, in both languages."""

import re
from typing import Any

import pytest

from contract.metrics import DataType
from hub.devices import DeviceKey, device_id

PROBE = device_id(DeviceKey("g", "n-01", "probe-01"))
OURS = {"Origin": "http://127.0.0.1:8080"}


def text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


@pytest.mark.parametrize(
    ("language", "sentence", "value"),
    [
        ("vi", "2/4 thiết bị có vấn đề, lâu nhất 12 phút.", "28,5 °C"),
        ("en", "2 of 4 devices have a problem, the longest for 12 minutes.", "28.5 °C"),
    ],
)
async def test_the_first_page_says_in_one_sentence_how_things_stand(
    client: Any, language: str, sentence: str, value: str
) -> None:
    page = (await client.get("/", params={"lang": language})).text
    assert sentence in text(page)
    assert value in text(page)
    assert f'<html lang="{language}">' in page
    assert "Ấp Bình Hòa" in page


async def test_worst_comes_first(client: Any) -> None:
    page = (await client.get("/", params={"lang": "vi"})).text
    order = [page.index(name) for name in ("loa-02", "probe-02", "loa-01", "probe-01")]
    assert order == sorted(order)
    assert "mất kết nối" in page
    assert "không trả lời" in page


async def test_the_language_is_asked_for_kept_or_the_browsers(client: Any) -> None:
    assert 'lang="en"' in (await client.get("/", headers={"Accept-Language": "en-GB,vi;q=0.5"})).text[:200]
    assert 'lang="vi"' in (await client.get("/", headers={"Accept-Language": "fr"})).text[:200]
    await client.get("/", params={"lang": "en"})
    assert 'lang="en"' in (await client.get("/", headers={"Accept-Language": "vi"})).text[:200]


async def test_a_device_page_shows_values_with_unit_age_and_a_chart(client: Any) -> None:
    page = (await client.get(f"/devices/{PROBE}", params={"lang": "vi"})).text
    assert "7,21" in page
    assert "giây trước" in page or "vừa xong" in page
    assert 'data-device="' in page


async def test_an_unknown_device_is_a_page_too(client: Any) -> None:
    response = await client.get("/devices/none", params={"lang": "vi"})
    assert response.status_code == 404
    assert "Ở đây không có mục này" in response.text


async def test_a_value_past_its_time_is_marked_old(hub: Any, client: Any) -> None:
    state = hub.state.hub.live.state(DeviceKey("g", "n-01", "probe-01"))
    state.slots["Water/pH"].at -= 400_000
    page = (await client.get("/", params={"lang": "vi"})).text
    assert "số liệu đã cũ" in page
    assert "Cảnh báo" in page


async def test_a_muted_or_unsupervised_loudspeaker_is_not_shown_as_working(hub: Any, client: Any) -> None:
    state = hub.state.hub.live.state(DeviceKey("g", "n-01", "loa-01"))
    said = state.slot("Device/State", DataType.STRING, "")
    said.at, said.value = state.slots["Audio/Volume"].at, "muted"
    assert "đang tắt tiếng" in (await client.get("/", params={"lang": "vi"})).text
    said.value = "ok"
    del state.slots["Line/OK"]
    assert "không có giám sát tiếng" in (await client.get("/", params={"lang": "vi"})).text


async def test_a_box_without_mains_says_so_before_its_battery_is_empty(hub: Any, client: Any) -> None:
    told = hub.state.hub.live.state(DeviceKey("g", "n-01", "")).slot("Power/Mains", DataType.BOOLEAN, "")
    told.at, told.value = hub.state.hub.live._clock.now_ms(), False
    page = (await client.get("/", params={"lang": "vi"})).text
    assert "mất điện lưới" in page
    assert "Cảnh báo" in page
    told.value = True
    assert "mất điện lưới" not in (await client.get("/", params={"lang": "vi"})).text


async def test_hostile_names_are_shown_as_text(hub: Any, client: Any) -> None:
    key = DeviceKey("g", "n-01", "<script>alert(1)</script>")
    hub.state.hub.live.state(key)
    page = (await client.get("/")).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


async def test_what_was_typed_survives_a_refusal(client: Any) -> None:
    form = {"text": "Họp dân lúc 7 giờ", "volume": "40"}
    response = await client.post("/announce?lang=vi", data=form, headers=OURS)
    assert response.status_code == 422
    assert "Họp dân lúc 7 giờ" in response.text
    assert "CHƯA PHÁT." in response.text


async def test_a_page_has_no_inline_script_and_no_foreign_address(client: Any) -> None:
    for path in ("/", f"/devices/{PROBE}", "/announce"):
        page = (await client.get(path)).text
        assert not re.search(r"<script(?![^>]*src=)", page)
        assert not re.search(r"""(src|href|action)=["'](https?:)?//""", page)
        assert not re.search(r"\son\w+=", page)
        assert not re.search(r"{{|{%", page)


async def test_frames_are_sent_when_something_changed_and_end_with_the_hub(hub: Any) -> None:
    frames = hub.state.frames
    count = 0

    def render() -> str:
        nonlocal count
        count += 1
        return f"frame {hub.state.hub.live.version}"

    first, second = frames.watch("x", render), frames.watch("x", render)
    assert await anext(first) == await anext(second)
    hub.state.hub.live.touch()
    assert await anext(first) == await anext(second) == f"frame {hub.state.hub.live.version}"
    assert count == 3, "one frame is rendered for all who watch"
    hub.state.hub.closing.set()
    with pytest.raises(StopAsyncIteration):
        await anext(first)
    await second.aclose()
