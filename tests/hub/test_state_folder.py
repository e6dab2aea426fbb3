"""Key files of the hub: made once, for its owner alone, whole or not there."""

from pathlib import Path

from hub.state_folder import secret_file


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "key"
    assert secret_file(file, lambda: b"first") == b"first"
    assert secret_file(file, lambda: b"second") == b"first"
    assert file.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [file]


def test_of_two_that_make_a_key_at_once_the_quicker_ones_counts_for_both(tmp_path: Path) -> None:
    file = tmp_path / "key"

    def while_another_is_quicker() -> bytes:
        secret_file(file, lambda: b"the other one's")
        return b"mine"

    assert secret_file(file, while_another_is_quicker) == b"the other one's"
    assert list(tmp_path.iterdir()) == [file]
