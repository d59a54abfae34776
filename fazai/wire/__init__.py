"""The messages of the agent contract (SPEC.md): what is read is checked here, what is sent is written here.

Every `decode_*` returns a frozen value or raises `WireError` with one of the contract's codes; `encode`
writes the bytes. Requests are strict (an unknown field is refused), answers and events are read leniently (an
unknown field is left alone), telemetry keeps what it does not know. Nothing here does I/O or holds state.

    base        WireError, the limits, encode, the helpers of all other modules
    worker      section 1: the worker's socket
    daemon      section 2: bodies and answers of the daemon's HTTP routes
    opn         section 2: `/opn/*`
    actions     section 2: the typed actions that a model proposes
    events      section 2: server-sent events
    southbound  section 3: remote agents
    signature   section 3: signed HTTP
    telemetry   section 4: what hosts report
    logs        section 5: one line of log
"""

from fazai.wire.actions import decode_action, decode_proposal
from fazai.wire.base import CONTRACT, ErrorAnswer, OkAnswer, WireError, decode_answer, decode_body, encode
from fazai.wire.daemon import HTTP_STATUS, decode_events_query
from fazai.wire.events import decode_event, decode_sse, encode_sse
from fazai.wire.logs import LogLine, decode_log_line
from fazai.wire.opn import decode_opn_answer
from fazai.wire.signature import SignedHeaders, decode_signed_headers, sign, verify_signature
from fazai.wire.southbound import decode_hello, decode_southbound_request
from fazai.wire.telemetry import Sample, decode_sample, decode_telemetry
from fazai.wire.worker import decode_worker_event, decode_worker_request

__all__ = [
    "CONTRACT",
    "HTTP_STATUS",
    "ErrorAnswer",
    "LogLine",
    "OkAnswer",
    "Sample",
    "SignedHeaders",
    "WireError",
    "decode_action",
    "decode_answer",
    "decode_body",
    "decode_event",
    "decode_events_query",
    "decode_hello",
    "decode_log_line",
    "decode_opn_answer",
    "decode_proposal",
    "decode_sample",
    "decode_signed_headers",
    "decode_southbound_request",
    "decode_sse",
    "decode_telemetry",
    "decode_worker_event",
    "decode_worker_request",
    "encode",
    "encode_sse",
    "sign",
    "verify_signature",
]
