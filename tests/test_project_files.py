"""Files of the project that no other test reads: the workflow, hooks, documents and their links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = next(p for p in Path(__file__).parents if (p / "pyproject.toml").is_file())
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def make_targets() -> set[str]:
    return set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))


def test_the_workflow_calls_targets_of_make():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    commands = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    called = set(re.findall(r"\bmake ([a-z]+)", commands))
    assert {"setup", "test", "demo", "docs", "image"} <= called <= make_targets()


def test_documents_that_files_name_are_there():
    folders = ["configs", "examples", "maskstream", "pipeline", "tests", "trackers", "ui"]
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.[py][ya]*")]
    named = {
        (str(file.relative_to(ROOT)), page)
        for file in files
        if file.suffix in (".py", ".yaml")
        for page in re.findall(r"\bdocs/[\w/-]+\.md", file.read_text("utf-8"))
    }
    assert {(file, page) for file, page in named if not (ROOT / page).is_file()} == set()
    assert named


def test_hooks_are_readable():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]  # nothing is fetched


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(document):
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    there = [t for t in targets if "://" not in t]
    assert [t for t in there if not (document.parent / t).exists()] == []


def test_readme_is_short_and_begins_with_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 150
    assert any(line.startswith("make demo") for line in lines[:12])
    assert any(line.startswith("make test") for line in lines[:12])


def test_notice_names_every_dependency_of_the_package():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(d for e in extras if e not in ("dev", "docs") for d in extras[e]),
    ]
    names = {re.split(r"[\[<>=]", dependency)[0].lower() for dependency in wanted}
    notice = (ROOT / "NOTICE").read_text().lower()
    assert {name for name in names if name not in notice} == set()
