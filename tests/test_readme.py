"""What the README tells people to type, typed."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_python_of_the_readme(ioc, catalog):
    """Detector, RunEngine and reader as they stand there, typed into one Python; only the addresses are this test's."""
    define, subscribe, read = (
        block.replace('"/data', f'"{ioc.directory}')
        .replace('"http://localhost:8000"', repr(catalog.uri))
        .replace('"secret"', repr(catalog.api_key))
        for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    )
    take = "from bluesky.plans import count\n(uid,) = RE(count([det], num=6))\n"
    show = 'print(client[uid]["primary"]["det_image"].shape[:2], client[uid]["primary"]["det_image"][5].shape[0])\n'
    shown = subprocess.run(
        [sys.executable, "-c", "\n".join([define, subscribe, take, read, show])],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[-1] == "(6, 1) 1"


def test_shell_commands_of_the_readme():
    """One line each, ending in what they are for; CI runs the second as it stands."""
    commands = [line.strip() for line in README.splitlines() if line.startswith("    python3 ")]
    assert [command.split("/")[-1] for command in commands] == ["bluesky-filestore demo", "pytest"]
