"""What is measured of a picture tells the cases apart that it is measured for."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.camera.measures import measures
from edge.drivers.onvif_camera import BLACK
from simulators.camera.picture import picture

Luma = NDArray[np.uint8]


def road(number: int = 0) -> Luma:
    return np.asarray(cv2.cvtColor(picture("road", number), cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def test_a_road_by_day_is_bright_sharp_and_never_the_same_twice() -> None:
    first, second = measures(road(0)), measures(road(1))
    assert 30 < first.brightness < 70
    assert first.dark < 5
    assert first.digest != second.digest
    assert first.digest == measures(road(0)).digest


def test_a_lens_that_is_covered_is_black_and_dusk_is_not() -> None:
    covered = np.full((180, 320), 6, dtype=np.uint8)
    dusk = (road() * 0.35).astype(np.uint8)
    assert measures(covered).dark >= BLACK
    assert measures(dusk).dark < BLACK


def test_a_blurred_picture_loses_its_sharpness_and_keeps_its_brightness() -> None:
    sharp = measures(road())
    blurred = measures(np.asarray(cv2.GaussianBlur(road(), (0, 0), 5), dtype=np.uint8))
    assert blurred.sharpness < sharp.sharpness / 4
    assert blurred.brightness == pytest.approx(sharp.brightness, abs=1)


def test_sharpness_does_not_depend_on_which_stream_was_looked_at() -> None:
    large = np.asarray(cv2.resize(road(), (1280, 720), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    larger = np.asarray(cv2.resize(road(), (1920, 1080), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    assert measures(large).sharpness == pytest.approx(measures(larger).sharpness, rel=0.15)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_any_size_is_measured(height: int, width: int, value: int) -> None:
    found = measures(np.full((height, width), value, dtype=np.uint8))
    assert found.brightness == pytest.approx(value / 2.55, abs=0.1)
    assert found.sharpness == 0
