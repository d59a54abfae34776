"""Pages are true: links lead somewhere, generated pages are as the code says, examples of kinds validate."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import fazai
from fazai.cli.main import main, root
from fazai.registry import Registry
from fazai.yamltext import loads_yaml

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def _anchors(page: Path) -> set[str]:
    """The anchors that a Git host makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_sections_lead_to_one(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        found = page.parent / target if target else page
        assert anchor in _anchors(found), f"{page.name} links to {target}#{anchor}"


def test_generated_pages_are_what_the_code_says() -> None:
    found = subprocess.run(
        [sys.executable, str(ROOT / "tools/reference.py"), "--check"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("kind", list(Registry().kinds()), ids=lambda k: str(k.name))
def test_the_example_of_every_kind_validates(kind: object) -> None:
    registry = Registry()
    found = registry.kind(kind.name)  # type: ignore[attr-defined]
    resource = loads_yaml(found.example, "example")
    assert isinstance(resource, dict)
    fields = resource[found.name]
    assert isinstance(found.identify(fields), str)
    _, problems = found.normalise(fields, "present")
    assert problems == []


#: What pages may name that is made on the way, or was once.
_MADE = ("docs/adr/", "CHANGELOG.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_that_pages_name_are_there(page: Path) -> None:
    """`fazai/apply/target.py`, `tests/hosts/`, `fazai/providers/*`: all but decisions and the changelog,
    which speak of their day."""
    if str(page.relative_to(ROOT)).startswith(_MADE):
        return
    named = re.findall(r"`((?:fazai|tests|tools|docs|native|deploy|bench)/[\w./*-]*)`", page.read_text())
    named = [name for name in named if not re.search("[A-Z]{3}", name)]  # fazai/lab/models/SUBJECT.py
    assert [name for name in named if not any(ROOT.glob(name.rstrip("/")))] == []


def test_the_layout_names_every_folder() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    folders = {path.parent for path in (ROOT / "fazai").glob("*/__init__.py")}
    assert [folder.name for folder in sorted(folders) if f"`fazai/{folder.name}/" not in page] == []


def test_every_setting_is_in_a_page() -> None:
    code = "".join(path.read_text() for path in (ROOT / "fazai").rglob("*.py"))
    pages = "".join(path.read_text() for path in PAGES)
    names = set(re.findall(r"\bFAZAI_[A-Z_]+\b", code)) - {"FAZAI_COMPLETE"}
    assert names
    assert {name for name in names if name not in pages} == set()


def test_the_tests_that_the_faults_name_are_there() -> None:
    """Each wait and buffer of the page has its test, and each test of the page is there."""
    waits = (ROOT / "docs/faults.md").read_text().split("## Every wait and every buffer")[1]
    rows = [line for line in waits.splitlines() if line.startswith("| ") and "who waits for what" not in line]
    assert len(rows) > 60
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        assert named, f"no test: {row}"
        for file, name in named:
            code = (ROOT / "tests" / file).read_text()
            assert re.search(rf"^(async )?def {name}\(", code, re.M), f"{file} has no {name}"


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    (version,) = re.findall(r"^## \[(\d[^\]]*)\]", text, re.M)[:1]
    assert version == fazai.__version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"] == ["version"]


def test_every_decision_is_listed() -> None:
    listed = (ROOT / "docs/adr/README.md").read_text()
    assert [p.name for p in (ROOT / "docs/adr").glob("0*.md") if p.name not in listed] == []


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a page in one of the languages; "" is a block without one."""
    for language, text in re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", page.read_text(), re.M | re.S):
        if language in languages:
            yield text


def command_lines(page: Path) -> Iterator[list[str]]:
    """Every `fazai …` that a page tells its reader to type, but those with parts left out ("…", "[…]")."""
    for text in blocks(page, "", "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
            words.whitespace_split = True
            try:
                found = list(words)
            except ValueError:  # no shell: a report, a diff
                continue
            while found:
                end = next((at for at, word in enumerate(found) if set(word) <= set(";|&<>()")), len(found))
                part, found = found[:end], found[end + 1 :]
                if part and part[0] == "fazai" and not re.search(r"[…\[]|\.\.\.", " ".join(part)):
                    yield part[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_in_pages_are_understood(page: Path) -> None:
    """By the parser: each command and option is there, each value is of its type."""
    for words in command_lines(page):
        try:
            command: click.Command = root
            while isinstance(command, click.Group) and words and not words[0].startswith("-"):
                found = command.get_command(click.Context(command), words[0])
                assert found is not None, words
                command, words = found, words[1:]
            command.make_context("fazai", list(words))
        except click.exceptions.Exit:  # --help, --version
            pass
        except click.UsageError as error:
            if not error.format_message().endswith(" does not exist."):  # the reader's own file
                pytest.fail(f"{words}: {error.format_message()}")


def test_the_pages_commands_are_found() -> None:
    known = [words[0] for words in command_lines(ROOT / "README.md")]
    assert set(known) >= {
        "validate",
        "plan",
        "apply",
        "drift",
        "history",
        "show",
        "daemon",
        "tail",
        "generate",
    }


@pytest.mark.parametrize("page", ["README.md", "README.pt-BR.md", "docs/hosts.md"])
def test_the_inventories_of_pages_are_valid(
    page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, said, mode in (
        ("secrets/fw-01.json", '{"api_key": "k", "api_secret": "s"}', 0o600),
        ("playbooks/firewall-baseline.yml", "- {hosts: all, resources: []}", 0o644),
    ):
        (tmp_path / name).parent.mkdir(mode=0o700)
        (tmp_path / name).write_text(said)
        (tmp_path / name).chmod(mode)
    inventories = [text for text in blocks(ROOT / page, "yaml") if re.search("^all:", text, re.M)]
    assert inventories
    for text in inventories:
        (tmp_path / "inventory.yml").write_text(text)
        assert main(["validate", str(tmp_path / "inventory.yml")]) == 0, capsys.readouterr().err


def test_the_two_readmes_say_the_same() -> None:
    """The Portuguese one has every section, every link and every command of the English one."""

    def bones(page: str) -> tuple[int, list[str], list[str], list[str]]:
        text = (ROOT / page).read_text()
        blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        code = [line.split(" #")[0].rstrip() for line in blocks.splitlines()]
        links = sorted(re.findall(r"\]\(((?:docs/|AGENTS|SPEC)[^)]*)\)", text))
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        spans = sorted(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))
        return text.count("\n## "), code, links, spans

    assert bones("README.md") == bones("README.pt-BR.md")


def test_the_readme_fits_on_a_screen() -> None:
    for page, more in (("README.md", "## More"), ("README.pt-BR.md", "## Mais")):
        assert (ROOT / page).read_text().split(more)[0].count("\n") <= 54


def test_the_schema_does_not_tell_who_made_it() -> None:
    """Releases of msgspec order alternatives in two ways."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    one, null = {"$ref": "#/$defs/Totals"}, {"type": "null"}
    assert [
        module._published({"anyOf": found, "description": text}, {})
        for found, text in (([one, null], "A\nb."), ([null, one], "A\n    b."))
    ] == [{"anyOf": [one, null], "description": "A\nb."}] * 2


SAFETY = ROOT / "docs/safety.md"


def _lines_of_safety() -> list[tuple[str, list[str]]]:
    """Each line of the page's tables, and the tests that it names."""
    rows = re.findall(r"^\| (?!line \|)([^|\n]+) \| (.+) \|$", SAFETY.read_text(), re.M)
    return [(line, re.findall(r"`(tests/[\w/]+\.py::\w+)`", tests)) for line, tests in rows]


def test_every_line_on_safety_names_a_test_that_there_is() -> None:
    lines = _lines_of_safety()
    assert len(lines) >= 40
    assert [line for line, tests in lines if not tests] == []
    for named in sorted({one for _, tests in lines for one in tests}):
        path, name = named.split("::")
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M), f"there is no test {named}"
