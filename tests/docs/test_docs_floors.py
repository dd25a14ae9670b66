"""Each floor's page says what the import contracts say and names files that exist; troubleshooting knows every code."""

from __future__ import annotations

import re
import tomllib

import pytest
from pages import REPOSITORY, pages

from tinytrain_dist.foundation.errors import ExitCode

FLOORS = REPOSITORY / "docs" / "floors"
PACKAGE = REPOSITORY / "tinytrain_dist"
CONTRACTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def layers() -> list[str]:
    """Return the floors, the uppermost first."""
    found = next(contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
    return [name.removeprefix("tinytrain_dist.") for name in found]


def forbidden(floor: str) -> set[str]:
    """Return the foreign packages a floor must not import itself."""
    kept = [c for c in CONTRACTS if c["type"] == "forbidden" and f"tinytrain_dist.{floor}" in c["source_modules"]]
    return {name for contract in kept for name in contract["forbidden_modules"]}


def test_there_is_a_page_for_every_floor() -> None:
    floors = {"doors"} | set(layers()) - {"cli", "verbs"}
    assert {path.stem for path in FLOORS.glob("*.md")} == floors
    index = (REPOSITORY / "docs" / "README.md").read_text()
    assert all(f"(floors/{name}.md)" in index for name in floors)


@pytest.mark.parametrize("path", sorted(FLOORS.glob("*.md")), ids=lambda path: path.stem)
def test_a_floors_page_agrees_with_the_code(path: object) -> None:
    page = FLOORS / f"{path.stem}.md"  # type: ignore[attr-defined]
    text, floor = page.read_text(), "verbs" if page.stem == "doors" else page.stem
    assert 20 <= len(text.splitlines()) <= 40
    imports = re.search(r"^Imports from: (.*)\.$", text, re.MULTILINE)
    assert imports and re.findall(r"`(\w+)`", imports[1]) == layers()[layers().index(floor) + 1 :]
    for name, shown in (("ray", "Ray"), ("torch", "torch"), ("wandb", "W&B")):
        may_not = text.split("**May not**")[1].split("\n\n")[0]
        if re.search(rf"import [^.;(]*{shown}\b", may_not):
            assert name in forbidden(floor), f"{page.name} says {floor} may not import {shown}"
    for word in re.findall(r"`([\w/]+\.py|[\w/]+/)`", text):
        places = (PACKAGE / floor / word, PACKAGE / word, REPOSITORY / word)
        assert any(place.exists() for place in places), f"{page.name}: {word} does not exist"


def test_troubleshooting_has_a_section_for_every_code() -> None:
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
    found = re.findall(r"^## (\d+): (.+)$", text, re.MULTILINE)
    assert found == [(str(int(code)), code.describe()) for code in ExitCode]


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = []
    for page in pages():
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(REPOSITORY)}: {target}")
    assert broken == []


def test_the_index_leads_to_every_page() -> None:
    index = (REPOSITORY / "docs" / "README.md").read_text()
    own = [path.relative_to(REPOSITORY / "docs").as_posix() for path in pages()[1:]]
    assert [name for name in own if name != "README.md" and f"({name})" not in index] == []
