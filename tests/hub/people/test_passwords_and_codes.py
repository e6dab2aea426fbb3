"""Which passwords are good enough; a code serves once; what is sealed opens with the right key only."""

import stat
import unicodedata
from pathlib import Path

import pyotp
import pytest

from hub.people import passwords, totp
from hub.people.lifetimes import ABSOLUTE_MS, IDLE_MS, alive
from hub.people.sealing import Seal, SealBroken

NOW = 1_790_000_000_000
GOOD = "bốn con trâu uống nước"


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("ngắn quá", "password_short"),
        ("x" * 129, "password_long"),
        ("password1234", "password_known"),
        ("123456789012", "password_known"),
        ("qwertyuiop12", "password_known"),
        ("matkhau12345", "password_known"),
        ("nguyenthilan", "password_known"),
        ("aaaaaaaaaaaaaaaa", "password_known"),
        ("iloveyou1234", "password_known"),
    ],
)
def test_a_bad_password_is_refused_with_the_reason(password: str, code: str) -> None:
    with pytest.raises(passwords.PasswordRefused) as refused:
        passwords.check(password, about=("lan", "Nguyen Thi Lan", "nguyenthilan"))
    assert refused.value.code == code


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "k7#mQ2vX!pL9",
        "một cái ấm đất nung màu nâu nằm bên bờ ao cạn, hai con vịt trắng lội qua mà không kêu tiếng nào cả",
    ],
)
def test_a_good_password_is_taken(password: str) -> None:
    passwords.check(password, about=("lan",))


def test_a_password_is_kept_as_argon2id_and_found_again_however_it_was_typed(real_hashes: None) -> None:
    kept = passwords.hashed(unicodedata.normalize("NFD", GOOD))
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert passwords.matches(kept, unicodedata.normalize("NFC", GOOD))
    assert not passwords.matches(kept, GOOD + "!")
    assert not passwords.matches(None, GOOD)
    assert not passwords.matches("no hash", GOOD)
    assert not passwords.outdated(kept)


def test_a_code_is_told_by_its_step_within_a_phones_drift() -> None:
    secret = totp.new_secret()
    codes = {step: pyotp.TOTP(secret).generate_otp(NOW // 30_000 + step) for step in range(-3, 4)}
    found = {step: totp.matched_step(secret, code, NOW) for step, code in codes.items()}
    assert {step for step, one in found.items() if one is not None} == {-1, 0, 1}
    assert found[-1] == NOW // 30_000 - 1
    assert totp.matched_step(secret, f" {codes[0][:3]} {codes[0][3:]} ", NOW) == NOW // 30_000
    assert totp.matched_step(secret, "", NOW) is None
    assert totp.matched_step(secret, "ሴ" * 6, NOW) is None


def test_the_picture_has_neither_style_nor_script() -> None:
    picture = totp.picture(totp.uri(totp.new_secret(), "lan"))
    assert picture.startswith("<svg")
    assert "style" not in picture
    assert "script" not in picture


def test_what_is_sealed_opens_for_its_account_with_its_key_only(tmp_path: Path) -> None:
    one, other = Seal(tmp_path / "a.key"), Seal(tmp_path / "b.key")
    sealed = one.seal("secret", about="lan")
    assert Seal(tmp_path / "a.key").open(sealed, about="lan") == "secret"
    for wrong, about in ((other, "lan"), (one, "minh")):
        with pytest.raises(SealBroken, match="bring back the right file"):
            wrong.open(sealed, about=about)
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    assert one.seal("secret", about="lan") != sealed
    assert one.mark("form", "x") != one.mark("browser", "x")


def test_a_key_file_that_was_cut_off_is_said_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.key").write_bytes(b"short")
    with pytest.raises(SealBroken, match="no key of 32 bytes"):
        Seal(tmp_path / "a.key")


@pytest.mark.parametrize(
    ("created", "seen", "living"),
    [
        (NOW, NOW, True),
        (NOW - IDLE_MS, NOW - IDLE_MS + 1, True),
        (NOW - IDLE_MS, NOW - IDLE_MS, False),
        (NOW - ABSOLUTE_MS + 1, NOW, True),
        (NOW - ABSOLUTE_MS, NOW, False),
        (NOW + 3_600_000, NOW, False),
    ],
)
def test_a_session_ends_when_unused_and_in_any_case(created: int, seen: int, living: bool) -> None:
    assert alive(created_at=created, seen_at=seen, now=NOW) is living
