"""A PNG with a palette shows the pixels that were drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cbsbayes.plots.files import figure_files


def drawn(draw):
    figure = Figure(figsize=(3, 2))
    ax = figure.subplots()
    draw(ax)
    image = Image.open(io.BytesIO(figure_files(figure, ("png",))["png"]))
    assert image.mode == "P"
    return np.asarray(image.convert("RGB")).reshape(-1, 3)


def test_plain_colours_and_white_come_out_as_they_are():
    pixels = drawn(lambda ax: ax.axhspan(0, 0.5, color="#0072b2", lw=0))
    assert (pixels == [255, 255, 255]).all(axis=1).mean() > 0.3
    assert (pixels == [0x00, 0x72, 0xB2]).all(axis=1).mean() > 0.2


@pytest.mark.parametrize("face", ["white", "black"])
def test_a_figure_of_one_colour_has_that_colour(face):
    def draw(ax):
        ax.figure.set_facecolor(face)
        ax.set_axis_off()

    assert (drawn(draw) == (255 if face == "white" else 0)).all()


def test_many_colours_are_near_those_drawn():
    ramp = np.linspace(0.0, 1.0, 2000)[None, :]
    pixels = drawn(lambda ax: ax.imshow(ramp, aspect="auto", cmap="viridis"))
    dark, light = [0x44, 0x01, 0x54], [0xFD, 0xE7, 0x25]
    for end in (dark, light):
        assert np.abs(pixels - np.array(end)).max(axis=1).min() <= 6
