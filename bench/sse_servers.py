"""nginx with nchan as a child process on a free port of loopback, and what a server's processes cost."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.daemon_load import cpu_s
from bench.daemon_servers import Server, _running, free_port

__all__ = ["memory_bytes", "nchan", "total_cpu_s"]

_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
_CONFIG = """
load_module {module};
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
worker_processes {workers}; worker_rlimit_nofile 20000;
events {{ worker_connections 16000; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_body_buffer_size 16k; keepalive_requests 10000000; nchan_shared_memory_size 512m;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /health {{ return 200; }}
    location = /publish {{ nchan_publisher; nchan_channel_id e; nchan_message_buffer_length 20000;
      nchan_message_timeout 10m; }}
    location = /events {{ nchan_subscriber eventsource; nchan_channel_id e;
      nchan_subscriber_first_message newest; }}
  }}
}}
"""


@contextlib.contextmanager
def nchan(folder: Path, workers: int = 1) -> Iterator[Server | None]:
    """None where it is not installed. It keeps messages in memory alone; the daemon's are on disk first."""
    path = shutil.which("nginx")
    if path is None or not _MODULE.exists():
        yield None
        return
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(module=_MODULE, folder=folder, port=port, workers=workers))
    folder.chmod(0o755)
    with _running([path, "-c", str(config), "-p", str(folder)], port, "/health") as server:
        yield server


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]


def total_cpu_s(pid: int) -> float:
    """Of a process and those that it started."""
    return sum(cpu_s(one) for one in _family(pid))


def memory_bytes(pid: int) -> int:
    """Memory that is the process' and its children's own; what they share counts once (PSS)."""
    total = 0
    for one in _family(pid):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
            total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024
    return total
