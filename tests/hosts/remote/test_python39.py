"""The table of kinds once more, with an agent that is one file and runs under Python 3.9."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fazai.providers.hosts.agent.remote.bundling import build_program
from tests.agent.state.test_single_file import WORKER
from tests.hosts.remote.test_cases import (
    test_a_kind_through_an_agent_is_as_through_a_shell,
    test_facts_are_those_of_a_shell,
    test_hostile_names_through_an_agent,
)
from tests.hosts.remote.test_losing import (
    test_a_step_that_takes_too_long_is_ended_there,
    test_an_agent_started_anew_between_look_and_write_is_looked_at_again,
    test_cancel_ends_what_runs_and_nothing_else,
    test_sigterm_ends_what_runs_with_its_tree_and_says_so,
)

__all__ = [
    "test_a_kind_through_an_agent_is_as_through_a_shell",
    "test_a_step_that_takes_too_long_is_ended_there",
    "test_an_agent_started_anew_between_look_and_write_is_looked_at_again",
    "test_cancel_ends_what_runs_and_nothing_else",
    "test_facts_are_those_of_a_shell",
    "test_hostile_names_through_an_agent",
    "test_sigterm_ends_what_runs_with_its_tree_and_says_so",
]
pytestmark = pytest.mark.slow
PYTHON = Path(__file__).parents[3] / ".venv/python39/python3"


@pytest.fixture
def python(tmp_path: Path) -> tuple[Path, Path]:
    """Debian's Python 3.9, and the file as `make agent` builds it."""
    if not PYTHON.exists():
        if os.environ.get("FAZAI_NO_SKIPS"):
            pytest.fail("Python 3.9 is not unpacked: tools/python39 does it")
        pytest.skip("Python 3.9 is not unpacked (tools/python39)")
    place = tmp_path / "fazai-agent.pyz"
    place.write_bytes(build_program(entry=WORKER))
    return PYTHON, place
