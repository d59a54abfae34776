"""docs/secrets.md is true: its inventory resolves, and what it says of secrets in templates holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fazai.config import Config
from fazai.errors import Errors, TemplateError
from fazai.inventory import load
from fazai.model import Secret, Work
from fazai.playbook import Selection, resolve
from fazai.registry import Registry
from fazai.secrets import SecretReader
from fazai.template import Templates

PAGE = (Path(__file__).parents[2] / "docs/secrets.md").read_text()
INVENTORY = PAGE.split("```yaml\n")[1].split("```")[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the inventory of the page needs."""
    (tmp_path / "inventory.yml").write_text(INVENTORY)
    (tmp_path / "secrets/opnsense").mkdir(parents=True, mode=0o700)
    for name in ("opnsense/fw-01.json", "fw-03.json", "opnsense/fw-05.json"):
        path = tmp_path / "secrets" / name
        path.write_text(f'{{"api_key": "key of {name}", "api_secret": "secret"}}')
        path.chmod(0o600)
    (tmp_path / "password").write_text("correct horse battery staple")
    (tmp_path / "password").chmod(0o600)
    return tmp_path


def run(folder: Path) -> tuple[Work, ...]:
    registry = Registry()
    return resolve(
        load(folder / "inventory.yml"),
        (),
        providers=registry.provider,
        kinds=registry.kind,
        selection=Selection(),
        extra_vars={},
        secrets=SecretReader(
            environ={"PATH": "/usr/bin:/bin", "FW02_KEY": "key of 2", "FW02_SECRET": "secret"},
            folder=folder / "secrets",
            vault_password_files=(str(folder / "password"),),
        ),
    )


def test_the_inventory_of_the_page(folder: Path) -> None:
    (work,) = run(folder)
    secrets = {item.target.name: item.target.options["secret"] for item in work.targets}
    keys = {name: secret["api_key"].reveal() for name, secret in secrets.items()}
    assert keys == {
        "fw-01": "key of opnsense/fw-01.json",
        "fw-02": "key of 2",
        "fw-03": "key of fw-03.json",
        "fw-04": "not-so-secret",
        "fw-05": "key of opnsense/fw-05.json",
    }
    assert secrets["fw-04"]["api_secret"].reveal() == "hunter2"
    assert "hunter2" not in repr(work)


def test_the_error_of_the_page(folder: Path) -> None:
    (folder / "secrets/opnsense/fw-01.json").chmod(0o644)
    with pytest.raises(Errors) as caught:
        run(folder)
    (error,) = caught.value.errors
    shown = PAGE.split("```console\n")[1].split("```")[0].splitlines()
    assert shown[1] == f"error: {error.where}: {error.message}".replace(f"{folder}/", "")
    assert shown[2] == f"  hint: {error.hint}".replace(f"{folder}/", "")


def test_templates_do_what_the_page_says() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \|$", PAGE.split("## In templates")[1], re.MULTILINE)
    assert len(rows) == 6
    scope = Templates().scope({"token": Secret("t0ken")})
    for template, said in rows:
        template = template.replace("\\|", "|")
        if said.startswith("an error"):
            with pytest.raises(TemplateError, match=r"part of a secret cannot be taken|cannot take a secret"):
                scope.render(template)
            continue
        value = scope.render(template)
        assert "t0ken" not in repr(value)
        expected = {"a secret": Secret, "a mapping with a secret in it": dict, "true or false": bool}[said]
        assert type(value) is expected


def test_the_folders_of_the_page() -> None:
    assert str(Config.from_environ({}, root=True).secrets) == "/etc/fazai/secrets"
    found = Config.from_environ({"HOME": "/home/ana"}, root=False).secrets
    assert str(found) == "/home/ana/.config/fazai/secrets"
    assert str(Config.from_environ({"FAZAI_SECRETS": "/x"}, root=True).secrets) == "/x"
    for name in ("/etc/fazai/secrets", "~/.config/fazai/secrets", "FAZAI_SECRETS"):
        assert name in PAGE
