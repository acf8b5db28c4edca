"""One command prints all figures of the weights' README."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

from PIL import Image

from tests.pictures import draw_picture
from training.figures import MEASUREMENTS

ROOT = Path(__file__).resolve().parents[2]


def test_a_measurement_becomes_markdown(tmp_path):
    with zipfile.ZipFile(tmp_path / "lfw.zip", "w") as archive:
        for number in range(12):
            for copy in (1, 2):
                content = draw_picture(seed=number, size=(112 + copy, 112))
                file = io.BytesIO()
                Image.open(io.BytesIO(content)).save(file, "PNG")
                archive.writestr(f"val/p{number}/p{number}_{copy}.png", file.getvalue())
    command = [sys.executable, "-m", "training.figures", str(tmp_path), "--only", "1"]
    command += ["--model", "mobilenetv3_large", "--plots", str(tmp_path / "plots")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"## {MEASUREMENTS[0].title}" in done.stdout
    assert "| TAR at FMR 1 % |" in done.stdout and "| eyes covered |" in done.stdout
    assert (tmp_path / "plots" / "1.png").exists()
