"""The worker's lines under atheris: python -m tests.fuzz.ndjson_atheris [-max_total_time=20] [corpus folder]

Needs `pip install '.[fuzz]'`; `make worker-test` runs it for some seconds. What it finds becomes an
`@example` in test_ndjson.py.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fazai.wire", "fazai.worker"]):
    from .checks import check_event, check_framing, check_request, examples


def one(data: bytes) -> None:
    """The first two bytes say where the rest is cut."""
    cuts, raw = data[:2], data[2:]
    for line in raw.split(b"\n"):
        check_request(line)
        check_event(line)
    check_framing(raw, [cut * 37 for cut in cuts])


def main() -> None:
    """Starts from SPEC.md's examples; ends with a traceback at the first that does not hold."""
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(examples()):
            Path(folder, str(number)).write_bytes(b"\x07\x10" + text + b"\n" + text)
        limits = ["-max_len=600", "-timeout=10", "-print_final_stats=0"]
        atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], folder], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
