"""The repository itself: what it says of itself is true, and what must not be in it is not."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel

import edge.config
import edge.device_configs
import hub.config
import hub.signer.config
import simulators.config

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if (ROOT / name).is_file()
]
SOURCES = [
    one
    for one in FILES
    if one.suffix == ".py" and one.relative_to(ROOT).parts[0] in {"contract", "edge", "hub", "simulators"}
]
SOURCES = [one for one in SOURCES if not one.name.endswith("_pb2.py")]


def first_line(source: Path) -> str:
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
    return text.splitlines()[0] if text else ""


@pytest.mark.parametrize("source", SOURCES, ids=lambda one: str(one.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(source: Path) -> None:
    assert len(first_line(source)) > 20


def test_the_architecture_page_tells_every_module_in_its_own_words() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [
        str(one.relative_to(ROOT)) for one in SOURCES if f"`{one.relative_to(ROOT)}` | {first_line(one)}" not in page
    ]
    assert missing == [], "run: python tests/tree/architecture.py"


@pytest.mark.parametrize(
    "word", ["manager", "helper", "util", "utils", "common", "base", "core", "misc", "handler", "processor", "service"]
)
def test_no_file_has_a_name_that_says_nothing(word: str) -> None:
    assert [one for one in FILES if one.stem.lower() == word] == []


THIRD_PARTY = {
    "aiomqtt": {"edge/broker.py", "simulators/mqtt_sensor.py"},
    "paho": {"hub/broker.py"},
    "duckdb": {"hub/storage/questions.py"},
    "pymodbus": {"edge/drivers/modbus_bus.py", "simulators/modbus_probe.py"},
    "serial": {"edge/drivers/uart_sensor.py"},
    "onvif": {"edge/camera/onvif_worker.py"},
    "cv2": {"edge/camera/measures.py"},
    "gufo": {"edge/drivers/snmp_hotspot.py"},
    "icmplib": {"edge/drivers/reachability.py"},
    "zeroconf": {"edge/discovery/mdns.py", "simulators/lan.py"},
    "pysnmp": {"simulators/snmp_hotspot.py"},
    "espeakng_loader": {"hub/speech_worker.py"},
    "av": {
        "edge/audio_worker.py",
        "edge/camera/frame_worker.py",
        "hub/sound_worker.py",
        "simulators/camera/picture.py",
        "simulators/demo.py",
    },
    "uvicorn": {"hub/serve.py"},
    "argon2": {"hub/people/passwords.py"},
    "zxcvbn": {"hub/people/passwords.py"},
    "pyotp": {"hub/people/totp.py", "simulators/demo_people.py"},
    "webauthn": {"hub/people/passkeys.py"},
    "segno": {"hub/people/totp.py", "simulators/lan.py"},
    "psutil": {"edge/drivers/box.py"},
}


@pytest.mark.parametrize("library", THIRD_PARTY)
def test_each_protocol_library_is_known_to_one_file_of_a_side(library: str) -> None:
    users = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == library for name in names):
                users.add(str(source.relative_to(ROOT)))
    assert users <= THIRD_PARTY[library]


def test_no_registry_stands_in_a_commit() -> None:
    # Assembled, so that this file does not find itself.
    hosts = ["pypi" + ".org", "files.python" + "hosted", "registry." + "npmjs", "npmjs" + ".com"]
    found = [
        (str(one.relative_to(ROOT)), host)
        for one in FILES
        if one.suffix not in {".png", ".woff2"}
        for host in hosts
        if host in one.read_text(encoding="utf-8", errors="ignore")
    ]
    assert found == []


@pytest.mark.parametrize("name", ["demo", "test"])
def test_what_is_installed_is_locked_by_hash(name: str) -> None:
    lock = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    packages = re.findall(r"^([a-z0-9][\w.-]*)(?:\[.*?\])?==", lock, re.MULTILINE)
    assert len(packages) > 40
    assert lock.count("--hash=sha256:") >= len(packages)
    assert "index-url" not in lock


def pinned(name: str) -> dict[str, str]:
    lock = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;\\]+)", lock, re.MULTILINE))


def test_the_locks_hold_what_the_project_file_asks_for_and_agree_with_each_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    demo, test = pinned("demo"), pinned("test")
    extras = project["optional-dependencies"]
    asked = {
        "demo": [*project["dependencies"], *(one for name in extras if name != "dev" for one in extras[name])],
        "test": [*project["dependencies"], *(one for name in extras for one in extras[name])],
    }
    unmet = [
        (lock, text)
        for lock, texts in asked.items()
        for text in texts
        for wanted in [Requirement(text)]
        if not wanted.specifier.contains(pinned(lock).get(canonicalize_name(wanted.name), "0"))
    ]
    assert unmet == [], "run: make lock"
    assert {name: version for name, version in demo.items() if test.get(name) != version} == {}


def test_npm_locks_hold_no_address() -> None:
    for lock in (one for one in FILES if one.name == "package-lock.json"):
        text = lock.read_text(encoding="utf-8")
        assert '"resolved"' not in text
        assert '"integrity"' in text


@pytest.mark.parametrize(
    ("module", "guide"),
    [
        (edge.config, "docs/operating.md"),
        (hub.config, "docs/operating.md"),
        (hub.signer.config, "docs/operating.md"),
        (simulators.config, "simulators/README.md"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_every_setting_is_in_the_sample_and_in_the_guide(module: ModuleType, guide: str) -> None:
    text = (ROOT / guide).read_text(encoding="utf-8")
    side = module.__name__.rsplit(".", 1)[0]
    fields = {
        name
        for thing in [*vars(module).values(), *(vars(edge.device_configs).values() if side == "edge" else ())]
        if isinstance(thing, type) and issubclass(thing, BaseModel) and thing.__module__.startswith(side)
        for name in thing.model_fields
    }
    assert len(fields) > 5
    assert [name for name in sorted(fields) if not re.search(rf"\b{name}\b", module.SAMPLE)] == []
    assert [name for name in sorted(fields) if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    "module",
    [edge.config, hub.config, hub.signer.config, simulators.config],
    ids=lambda one: one.__name__,
)
def test_the_sample_file_loads(module: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "sample"
    file.write_text(module.SAMPLE, encoding="utf-8")
    module.load(file)


@pytest.mark.parametrize(("name", "least"), [("contract.md", 15), ("security.md", 5)])
def test_a_page_that_names_tests_names_such_as_exist(name: str, least: int) -> None:
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    tests = set()
    for one in FILES:
        if one.name.startswith("test_") and one.suffix == ".py":
            tests |= set(re.findall(r"def (test_\w+)", one.read_text(encoding="utf-8")))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > least
    assert named - tests == set()


def test_every_link_in_the_documents_leads_somewhere() -> None:
    broken: list[tuple[str, str]] = []
    for page in (one for one in FILES if one.suffix == ".md"):
        targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        broken += [
            (str(page.relative_to(ROOT)), target)
            for target in targets
            if not target.startswith(("http", "mailto")) and not (page.parent / target).exists()
        ]
    assert broken == []


def test_the_changelog_speaks_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


PLAIN_YAML = [one for one in FILES if one.suffix in {".yaml", ".yml"} and one.parent.name != "esphome"]
"""ESPHome's own words are read by ESPHome."""


@pytest.mark.parametrize("file", PLAIN_YAML, ids=lambda one: one.name)
def test_every_yaml_file_parses(file: Path) -> None:
    assert yaml.safe_load(file.read_text(encoding="utf-8"))


def test_ci_runs_the_readmes_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for name in ("README.md", "README.vi.md"):
        page = (ROOT / name).read_text(encoding="utf-8")
        assert "make demo" in page
        assert "make test" in page


def test_every_target_of_the_makefile_explains_itself_and_is_no_file() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    assert targets == set(re.findall(r"^([a-z]+): +## \S", text, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    assert targets == set(phony[1].split())


BENCHES = [one for one in FILES if one.parent == ROOT / "tests" / "bench"]


@pytest.mark.parametrize("bench", BENCHES, ids=lambda one: one.stem)
def test_a_benchmark_finds_what_it_imports_the_way_make_starts_it(bench: Path) -> None:
    """A file edge.py beside it must not stand before the package of that name."""
    assert "$(PYTHON) -P tests/bench/" in (ROOT / "Makefile").read_text(encoding="utf-8")
    load = f"import runpy; runpy.run_path({str(bench)!r}, run_name='loaded')"
    subprocess.run([sys.executable, "-P", "-c", load], check=True, cwd=ROOT, timeout=40)


def test_make_bench_runs_every_benchmark() -> None:
    benches = {one.stem for one in FILES if one.parent == ROOT / "tests" / "bench"}
    named = re.search(r"\$\(if \$\(B\),\$\(B\),(.*?)\)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert named is not None
    assert set(named[1].split()) == benches


def test_what_the_threat_table_says_is_shown_by_tests_that_exist() -> None:
    tests = "\n".join(
        one.read_text(encoding="utf-8")
        for one in FILES
        if one.suffix == ".py" and one.relative_to(ROOT).parts[0] == "tests"
    )
    known = set(re.findall(r"^ *(?:async )?def (test_\w+)", tests, re.MULTILINE))
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text(encoding="utf-8"))
    assert named
    assert [one for one in named if one not in known] == []
