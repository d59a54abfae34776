"""The data files: everything that a row names exists, for every release."""

from __future__ import annotations

import pytest

from fazai.lab.actions.common import special_handlers
from fazai.lab.box import Box
from fazai.lab.engine.config import FirewallConfig
from fazai.lab.engine.fieldtypes import TYPES, validate_field
from fazai.lab.engine.hooks import HOOKS
from fazai.lab.engine.schema import Catalogue, Field, action_key, load_release, read_json
from fazai.lab.engine.sources import SOURCES, choices_of
from fazai.lab.engine.verbs import blank_item
from fazai.lab.lab import start_state
from fazai.lab.settings import RELEASES, LabSettings

# two defaults of the product are no options of their own field
ODD = {("Firewall.Alias.aliases.alias", "type"), ("Syslog.destinations.destination", "transport")}


@pytest.fixture(params=RELEASES, scope="module")
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    return load_release(request.param)


def every_field(catalogue: Catalogue) -> list[tuple[str, Field]]:
    found = [(path, field) for path, model in catalogue.items.items() for field in model.fields]
    return found + [(name, field) for name, model in catalogue.models.items() for field in model.settings]


def test_every_field_has_options_or_a_type_that_is_checked(catalogue: Catalogue) -> None:
    for path, field in every_field(catalogue):
        has_options = field.options is not None or field.source or field.relation is not None
        assert has_options or field.type in TYPES, f"{path} {field.name}: {field.type}"
        if isinstance(field.options, str):
            assert field.options in catalogue.options
        if field.source:
            assert field.source in SOURCES
        if field.relation is not None:
            assert set(field.relation.collections) <= set(catalogue.items)


def test_every_row_that_an_item_names_exists(catalogue: Catalogue) -> None:
    for path, model in catalogue.items.items():
        names = {field.name for field in model.fields}
        assert set(model.checks) <= set(HOOKS.checks), path
        assert set(model.guards) <= set(HOOKS.guards), path
        assert {name.removeprefix("%") for name in model.sort} <= names | {"sort_order"}, path
        for unique in model.unique:
            assert set(unique.fields) <= names, path
        for refusal in model.refuse:
            assert {*refusal.when, *refusal.on} <= names, path
        for other, field_name in model.cascades.items():
            assert field_name in {field.name for field in catalogue.items[other].fields}, path


def test_every_hook_belongs_to_a_collection(catalogue: Catalogue) -> None:
    assert set(HOOKS.collections) <= set(catalogue.items)
    used = {name for model in catalogue.items.values() for name in model.checks}
    assert set(HOOKS.checks) <= used, "a check that no model names"
    assert set(HOOKS.guards) <= {name for model in catalogue.items.values() for name in model.guards}


def test_every_controller_and_every_handler_is_an_endpoint(catalogue: Catalogue) -> None:
    for name, controller in catalogue.controllers.items():
        assert name in catalogue.endpoints
        if controller.model:
            assert set(controller.items.values()) <= set(catalogue.models[controller.model].items)
        constant = {*controller.answers, *controller.recorded, *controller.posted}
        constant |= {"reconfigure"} if controller.service else set()
        known = set(catalogue.endpoints[name])  # none where the release lacks the controller
        assert not known or set(map(action_key, constant)) <= known, name
        assert set(controller.recorded.values()) <= set(read_json("answers.json")), name
        if controller.enabled_by is not None:
            model, setting = controller.enabled_by
            assert setting in {field.name for field in catalogue.models[model].settings}, name
    for name in special_handlers():
        controller_name, _, action = name.rpartition("/")
        if controller_name.rpartition("/")[2] not in ("filter", "source_nat", "one_to_one", "npt", "d_nat"):
            known = set(catalogue.endpoints[controller_name])
            assert not known or action_key(action) in known, name


def test_a_new_firewall_is_valid(catalogue: Catalogue) -> None:
    """What it starts with, and the defaults of every model, pass their own checks (required fields apart)."""
    settings = LabSettings()
    box = Box("fw", catalogue, settings, FirewallConfig(start_state(catalogue, "key|hash"), 100))
    for path, model in catalogue.items.items():
        for item in box.items(path).values():
            wrong = [
                (field.name, message)
                for field in model.fields
                if not field.volatile
                for message in validate_field(box, field, item.get(field.name, ""), item)
            ]
            assert not wrong, path
        start = blank_item(box, model)
        for field in model.fields:
            choices = choices_of(box, field)
            default = start.get(field.name, "")
            if choices is not None and default and not field.multiple and (path, field.name) not in ODD:
                assert default in choices, f"{path} {field.name}"
