"""Somebody else's package, really installed: its modules lie beside this file, entry points bring them in."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
ENTRY_POINTS = """[offbeat.agents]
linear_q = outside.linear_q
gone = outside.gone
empty = outside
broken = outside.broken
[offbeat.samplers]
vitter = outside.vitter
gone = outside.gone
[offbeat.envs]
corridor = outside.corridor:Corridor
[offbeat.torsos]
squares = outside.squares:Squares
gone = outside.squares:Gone
[offbeat.hooks]
notes = outside.notes:Notes
enough = outside.notes
clumsy = outside.notes:Clumsy
unmakeable = outside.notes:unmakeable
nothing = outside
gone = outside.gone
"""


def install(folder: Path) -> Path:
    """Build a wheel of the package ``outside``, install it with pip, and return the folder for PYTHONPATH."""
    wheel, info, target = folder / "outside-1.0-py3-none-any.whl", "outside-1.0.dist-info", folder / "installed"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("outside/__init__.py", "")
        file.writestr("outside/broken.py", "raise SystemExit('no\\nluck')\n")
        for name in ("linear_q", "vitter", "squares", "corridor", "notes"):
            file.write(HERE / f"{name}.py", f"outside/{name}.py")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/entry_points.txt", ENTRY_POINTS)
        file.writestr(f"{info}/RECORD", "")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    return target
