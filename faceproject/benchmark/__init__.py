"""Measure a server over HTTP, beside the parts that its answers are made of.

The parts are timed by `recognition.benchmark`; nothing of the installation is changed.
"""

from faceproject.benchmark.drawing import plot
from faceproject.benchmark.load import BenchmarkError, Target
from faceproject.benchmark.report import notes, row_heading, row_line, timing_heading, timing_line
from faceproject.benchmark.rows import QUICK, Plan, Row, measure_server

__all__ = [
    "QUICK",
    "BenchmarkError",
    "Plan",
    "Row",
    "Target",
    "measure_server",
    "notes",
    "plot",
    "row_heading",
    "row_line",
    "timing_heading",
    "timing_line",
]
