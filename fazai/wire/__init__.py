"""The messages of the agent contract (SPEC.md): what is read is checked here, what is sent is written here.

Every `decode_*` returns a frozen value or raises `WireError` with one of the contract's codes; `encode`
writes the bytes. Requests are strict (an unknown field is refused), answers and events are read leniently (an
unknown field is left alone), telemetry keeps what it does not know. Nothing here does I/O or holds state.

    base        WireError, the limits, encode, the helpers of all other modules
    worker      section 1: the worker's socket
    daemon      section 2: bodies and answers of the daemon's HTTP routes
    opn         section 2: `/opn/*`
    actions     section 2, planned: the typed actions that a model proposes, the knowledge base
    events      section 2: server-sent events
    southbound  section 3, planned: remote agents
    signature   section 3: signed HTTP
    telemetry   section 4: what hosts report
    logs        section 5: one line of log

Import from the module itself: what needs one section does not load the others. Names without an underscore
are for everybody.
"""
