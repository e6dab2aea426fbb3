"""Writes the table of modules in docs/architecture.md from their first lines: `python tests/tree/architecture.py`."""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"


def table() -> str:
    lines = ["| file | what it is for |", "| --- | --- |"]
    names = subprocess.run(
        ["git", "ls-files", "contract", "edge", "hub", "simulators"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in sorted(names.stdout.splitlines()):
        if name.endswith(".py") and not name.endswith("_pb2.py"):
            text = ast.get_docstring(ast.parse((ROOT / name).read_text(encoding="utf-8"))) or ""
            lines.append(f"| `{name}` | {text.splitlines()[0]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    marked = re.sub(
        r"(<!-- modules -->\n).*?(\n<!-- end -->)", lambda one: f"{one[1]}{table()}{one[2]}", page, flags=re.DOTALL
    )
    PAGE.write_text(marked, encoding="utf-8")
