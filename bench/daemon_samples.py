"""Records of hosts as the telemetry agents send them, about 6.4 KB each, for the daemon and for its peers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["Record", "records"]

_COMMANDS = (
    *("systemd", "kthreadd", "rcu_sched", "migration/0", "ksoftirqd/0", "kworker/0:1-events", "sshd", "cron"),
    *(
        "rsyslogd",
        "dbus-daemon",
        "nginx",
        "postgres",
        "php-fpm8.2",
        "dockerd",
        "containerd",
        "node",
        "python3",
    ),
    *(
        "java",
        "redis-server",
        "unbound",
        "chronyd",
        "bash",
        "agetty",
        "systemd-journald",
        "snmpd",
        "telegraf",
    ),
)
_BEGIN = datetime(2026, 11, 22, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Record:
    host: str
    moment: datetime
    fields: dict[str, Any]

    def as_json(self) -> bytes:
        return json.dumps(self.fields, separators=(",", ":")).encode()

    def as_influx(self) -> bytes:
        """The same content: numbers as fields, texts as string fields."""
        texts = {name: self.fields[name] for name in ("processes", "netstat", "iostat")}
        values = [f"{name}={value}" for name, value in self.gauges().items()]
        values += [
            name + '="' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for name, text in texts.items()
        ]
        time_ns = int(self.moment.timestamp()) * 1_000_000_000
        return f"telemetry,host={self.host} {','.join(values)} {time_ns}\n".encode()

    def as_exposition(self) -> bytes:
        """Its numbers, and as many figures of processes as make it as long as the JSON."""
        lines = [f"# TYPE host_{name} gauge\nhost_{name} {value}" for name, value in self.gauges().items()]
        lines += ["# TYPE host_process_cpu_percent gauge"]
        for line in self.fields["processes"].splitlines()[1:]:
            user, pid, cpu, _, _, _, _, command = line.split(maxsplit=7)
            lines.append(f'host_process_cpu_percent{{pid="{pid}",user="{user}",command="{command}"}} {cpu}')
        return ("\n".join(lines) + "\n").encode()

    def gauges(self) -> dict[str, float]:
        f = self.fields
        return {
            "load1": f["os"]["load"][0],
            "load5": f["os"]["load"][1],
            "load15": f["os"]["load"][2],
            "cpu_percent": f["cpu"]["percent"],
            "memory_total_bytes": f["mem"]["total"],
            "memory_free_bytes": f["mem"]["free"],
            "memory_available_bytes": f["mem"]["available"],
            "disk_total_bytes": f["disk"][0]["total"],
            "disk_free_bytes": f["disk"][0]["free"],
            "network_receive_bytes": f["net"][0]["rx_bytes"],
            "network_transmit_bytes": f["net"][0]["tx_bytes"],
            "uptime_seconds": f["uptime"],
        }


def records(count: int, hosts: int, begin: int = 0) -> Iterator[Record]:
    """`count` records of so many hosts, one a minute each; the same for the same arguments."""
    for number in range(begin, begin + count):
        minute, host = divmod(number, hosts)
        yield _record(f"host-{host:04d}", _BEGIN + timedelta(minutes=minute), random.Random(number))


def _record(host: str, moment: datetime, chance: random.Random) -> Record:
    own = random.Random(host)  # what stays the same on a host
    fields = {
        "hostname": host,
        "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "processes": "\n".join(
            ["USER         PID %CPU %MEM    VSZ   RSS STAT COMMAND", *_processes(own, chance)]
        ),
        "netstat": "\n".join(["Netid State  Recv-Q Send-Q Local Address:Port  Peer", *_sockets(own, chance)]),
        "iostat": "\n".join(
            f"{disk:<7} " + " ".join(f"{chance.random() * 900:.2f}" for _ in range(5))
            for disk in ("vda", "vdb", "dm-0", "dm-1")
        ),
        "os": {
            "hostname": host,
            "load": [round(chance.random() * 4, 2) for _ in range(3)],
            "mem": {"total": 8322002944, "free": chance.randrange(10**8, 8 * 10**9)},
        },
        "cpu": {
            "count": 8,
            "percent": round(chance.random() * 100, 1),
            "user": 9.0,
            "system": 2.5,
            "idle": 87.5,
        },
        "mem": {"total": 33567887360, "free": chance.randrange(10**9), "available": 20133044224},
        "disk": [
            {"mount": "/", "device": "/dev/vda1", "total": 42949672960, "free": chance.randrange(4 * 10**10)}
        ],
        "net": [{"name": "eth0", "rx_bytes": chance.randrange(10**9), "tx_bytes": chance.randrange(10**9)}],
        "uptime": round(864000.5 + moment.timestamp() % 10**6, 1),
        "agent": {"version": "0.1.0", "interval": 60, "spool_depth": 0, "dropped": 0},
    }
    return Record(host, moment, fields)


def _processes(own: random.Random, chance: random.Random) -> Iterator[str]:
    for _ in range(72):
        user = own.choice(["root", "www-data", "postgres", "nobody"])
        pid, command, size = own.randrange(1, 400_000), own.choice(_COMMANDS), own.randrange(10_000, 900_000)
        yield (
            f"{user:<10} {pid:>6} {chance.random() * 4:>4.1f} {chance.random() * 3:>4.1f} {size:>7}"
            f" {int(size * chance.uniform(0.3, 0.35)):>6} {chance.choice(['Ss', 'S', 'R', 'I']):<4} {command}"
        )


def _sockets(own: random.Random, chance: random.Random) -> Iterator[str]:
    for _ in range(18):
        yield (
            f"tcp   ESTAB  0      {chance.randrange(300):<6} 10.{own.randrange(256)}.7.7:443"
            f"  10.{chance.randrange(256)}.{chance.randrange(256)}.9:{chance.randrange(1024, 65535)}"
        )
