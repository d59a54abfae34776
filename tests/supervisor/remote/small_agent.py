"""A small true agent: enrols, connects, says hello, holds the connection. Packed into a single file as the
real one is; VERSION and BEHAVIOUR are put in. It speaks lines of JSON with `hub.Hub`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

Config = dict[str, str]
VERSION = "@VERSION@"
BEHAVIOUR = "@BEHAVIOUR@"


def read_config(path: str) -> Config:
    with open(path) as file:
        text = file.read()
    if BEHAVIOUR == "picky" or "nonsense" in text:
        sys.exit("error: agent.yml:9: it is not understood")
    return dict(re.findall(r'^([a-z_]+): "(.*)"$', text, re.MULTILINE))


def dial(config: Config) -> socket.socket:
    host, _, port = config["daemon"].removeprefix("https://").partition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def ask(connection: socket.socket, message: dict[str, str]) -> dict[str, str]:
    connection.sendall(json.dumps(message).encode() + b"\n")
    line = connection.makefile("rb").readline()
    found: dict[str, str] = json.loads(line) if line else {"error": "the connection was cut"}
    return found


def enrol(config: Config) -> None:
    token = sys.stdin.readline().strip()
    key, name = config["key"], config["agent_id"]
    if not os.path.exists(key):
        words = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key]
        os.umask(0o077)
        subprocess.run(words, check=True, capture_output=True)
    request = ["openssl", "req", "-new", "-key", key, "-subj", f"/CN={name}"]
    csr = subprocess.run(request, check=True, capture_output=True, text=True).stdout
    with dial(config) as connection:
        answer = ask(connection, {"enrol": token, "csr": csr})
    if "error" in answer:
        sys.exit("error: " + answer["error"])
    for place in ("certificate", "ca"):
        with open(config[place], "w") as file:
            file.write(answer[place])


def write_status(config: Config, **more: str) -> None:
    values = {"pid": os.getpid(), "version": VERSION, "started_at": STARTED, **more}
    path = os.path.join(config["state"], "status")
    with open(path + ".new", "w") as file:
        file.write("".join(f"{name}={value}\n" for name, value in values.items()))
    os.rename(path + ".new", path)


def serve(config: Config) -> None:
    with dial(config) as connection, open(config["certificate"]) as file:
        hello = {"hello": config["agent_id"], "version": VERSION, "certificate": file.read()}
        answer = ask(connection, hello)
        if "error" in answer:
            write_status(config, state="refused", last_error=answer["error"])
            return
        write_status(config, state="connected")
        trial = os.environ.pop("FAZAI_AGENT_TRIAL", None)
        if trial is not None and os.path.exists(trial):
            os.unlink(trial)
        connection.settimeout(None)
        connection.recv(1)


def run(config: Config) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"small agent {VERSION} starts", file=sys.stderr)
    if BEHAVIOUR == "ends":
        sys.exit("a module is missing")
    if BEHAVIOUR == "hangs":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(3600)
    while True:
        try:
            serve(config)
        except OSError as error:
            write_status(config, state="connecting", last_error=str(error))
        time.sleep(0.1)


STARTED = int(time.time())
if sys.argv[1] == "--version":
    print(VERSION)
else:
    found = read_config(sys.argv[sys.argv.index("--config") + 1])
    if sys.argv[1] != "check":
        (run if sys.argv[1] == "run" else enrol)(found)
