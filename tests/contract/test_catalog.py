"""The catalogue is complete and does not contradict itself."""

import pytest

from contract.catalog import CATALOG, NEVER_LOGGED_PREFIXES, DeviceKind, Kind, metric, node_metrics


@pytest.mark.parametrize("row", CATALOG.values(), ids=lambda row: row.kind)
def test_every_metric_has_words_in_both_languages_and_a_name_of_its_own(row: DeviceKind) -> None:
    assert row.label_vi
    assert row.label_en
    names = [one.name.lower() for one in row.metrics]
    assert len(set(names)) == len(names), "two names of one node may not differ only in case"
    for one in row.metrics:
        assert one.label_vi, one.name
        assert one.label_en, one.name
        assert not one.name.startswith(NEVER_LOGGED_PREFIXES), one.name


def test_every_kind_has_a_row() -> None:
    assert set(CATALOG) == set(Kind)


def test_the_node_declares_a_presence_for_each_device() -> None:
    names = {one.name for one in node_metrics(["a", "b"])}
    assert {"Presence/a", "Presence/b"} <= names
    assert metric(Kind.WATER_PROBE, "Water/pH") is not None
