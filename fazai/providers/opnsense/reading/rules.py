"""Reads the filter rules: those of the configuration and those that the firewall makes itself.

`firewall/filter/searchRule` as recorded (`firewall_filter`); with `show_all` the rows have the counters of pf
(`evaluations`, `packets`, `bytes`, `states`), as its controller merges what `scripts/filter/rule_stats.py` of
opnsense/core prints. A firewall that has applied no rules yet gives none.
"""

from __future__ import annotations

from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.reading.values import Row, count_at, first_rows, flag_at, search_rows, text_at
from fazai.wire.opn import OpnRule, OpnRulesAnswer, OpnRulesQuery

_PATH = "firewall/filter/searchRule"
_ANY = ("", "any", None)


async def read_rules(api: Api, query: OpnRulesQuery) -> OpnRulesAnswer:
    """Read rules in the order in which they are judged. Raises as `Api.get`."""
    more = {"show_all": "1", "searchPhrase": query.search or ""}
    if query.interface is not None:
        more["interface"] = query.interface
    rows, _ = await search_rows(api, _PATH, -1, more)

    def parse(row: Row) -> OpnRule | None:
        rule = parse_rule(row)
        return rule if query.automatic or not rule.automatic else None

    kept, total = await first_rows(rows, parse, query.limit)
    return OpnRulesAnswer(data=kept, total=total)


def parse_rule(row: Row) -> OpnRule:
    """Parse one row of the search. Without interface, source or destination the rule is for any."""
    return OpnRule(
        id=text_at(row, "uuid"),
        sequence=count_at(row, "sequence"),
        automatic=bool(row.get("is_automatic") or row.get("legacy")),
        enabled=flag_at(row, "enabled"),
        action=text_at(row, "action"),
        interface=_negated(row, "interfacenot", text_at(row, "interface")),
        direction=text_at(row, "direction"),
        ip=text_at(row, "ipprotocol"),
        protocol=_unless_any(text_at(row, "protocol")),
        source=_negated(row, "source_not", text_at(row, "source_net")),
        source_port=text_at(row, "source_port"),
        destination=_negated(row, "destination_not", text_at(row, "destination_net")),
        port=text_at(row, "destination_port"),
        description=text_at(row, "description"),
        log=flag_at(row, "log"),
        evaluations=count_at(row, "evaluations"),
        packets=count_at(row, "packets"),
        bytes=count_at(row, "bytes"),
        states=count_at(row, "states"),
    )


def _unless_any(text: str | None) -> str | None:
    return None if text in _ANY else text


def _negated(row: Row, name: str, text: str | None) -> str | None:
    if flag_at(row, name):
        return f"!{text or 'any'}"
    return _unless_any(text)
