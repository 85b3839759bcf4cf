"""Plots as SVG and pages that hold them: what every picture of mohole is drawn with, outside the app. Knows no stage."""

from mohole.drawing.axis import Axis, Scale
from mohole.drawing.page import Sheet, write_drawing, write_page
from mohole.drawing.plot import LARGE, SMALL, Figure, Level, Series, plot

__all__ = [
    "LARGE",
    "SMALL",
    "Axis",
    "Figure",
    "Level",
    "Scale",
    "Series",
    "Sheet",
    "plot",
    "write_drawing",
    "write_page",
]
