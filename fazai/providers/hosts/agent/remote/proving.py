"""The proof that a new remote agent has to give: that its policy is right, that it has a certificate, and
that the daemon accepts its hello; else what it replaced comes back."""

from __future__ import annotations

from typing import Final

from fazai.providers.hosts.agent.layout import InstallSite
from fazai.providers.hosts.agent.remote.places import REMOTE, TRIAL
from fazai.providers.hosts.agent.remote.starting import FIND_PYTHON
from fazai.providers.hosts.agent.scripts import Proving
from fazai.providers.hosts.shell.quoting import quote

#: Beyond the trial itself: until it was started, and until one that did not show itself was ended.
_MORE_S: Final = 30
_SAY_PYTHON: Final = f'{FIND_PYTHON}\necho "$fz_python"'
#: `fz_agent WORD...`: the new program with the new policy, as its user, with the caller's input.
_AGENT: Final = """fz_agent() {
fz_y="'$fz_python' -I $fz_new"; for fz_x do fz_y="$fz_y $fz_x"; done
as_agent "$fz_y"
}"""


def hello_proving(site: InstallSite, *, enrols: bool, trial_s: int) -> Proving:
    """Return what an installation has to show. `enrols`: it takes a certificate, with the token that is in
    fz_token; `trial_s`: seconds until the hello was accepted."""
    new, policy = site.beside(REMOTE.program), site.beside(REMOTE.settings)
    prepare = [
        # as its user: root's may be where nobody else may go
        f"fz_python=$(as_agent {quote(_SAY_PYTHON)} </dev/null)",
        '[ -n "$fz_python" ] || {',
        "echo 'no Python 3.9 or newer is there that its user may run' >&2; exit 1; }",
        _settle_lines(site),
    ]
    test = [
        f"fz_new={quote(new)}\n{_AGENT}",
        f"fz_said=$(fz_agent check --config {quote(policy)} </dev/null 2>&1) || {{",
        "printf 'the agent refuses its policy, what was there stays:\\n%s\\n' \"$fz_said\" >&2; exit 1; }",
    ]
    if enrols:  # `printf` is a builtin: the token is on no command line
        test += [
            f"fz_said=$(printf '%s\\n' \"$fz_token\" | fz_agent enrol --config {quote(policy)} 2>&1) || {{",
            "fz_token=; printf 'it cannot enrol: %s\\n' \"$fz_said\" >&2; exit 1; }",
            "fz_token=",
        ]
    return Proving(
        _comes_up_function(site, trial_s),
        prepare="\n".join(prepare),
        test="\n".join(test),
        placing=_open_trial(site, trial_s),
        undone=end_trial(site),
    )


def _settle_lines(site: InstallSite) -> str:
    """Return lines that give what a failed trial left its end: the files that run take their names again."""
    copies = "\n".join(
        f"[ ! -e {site.old(path)} ] || {{ cp -p {site.old(path)} {site.beside(path)}.back;"
        f" mv -f {site.beside(path)}.back {site.word(path)}; }}"
        for path in REMOTE.words
    )
    return f"case $(fz_text {site.word(TRIAL)}) in failed*)\n{copies};; esac"


def _open_trial(site: InstallSite, trial_s: int) -> str:
    """Return lines that open the trial. Its mark is in a folder of the agent's user, who writes it."""
    mark = site.word(TRIAL)
    write = f"umask 077; rm -f {mark}; printf 'open {trial_s}\\n' >{mark}"
    return f"as_agent {quote(write)} </dev/null"


def restart_proving() -> Proving:
    """Return what an agent that is only started anew has to show: another process."""
    return Proving(
        'fz_comes_up() {\n[ -n "$fz_wait" ] || return 0\nfz_k=0\nwhile [ $fz_k -lt 100 ]; do\n'
        '[ "$(fz_pid_now)" = "$fz_old" ] || return 0\n'
        "sleep 0.1 2>/dev/null || { sleep 1; fz_k=$((fz_k + 9)); }\nfz_k=$((fz_k + 1))\ndone\nreturn 1; }"
    )


def end_trial(site: InstallSite) -> str:
    """Return a line that removes the mark: nothing is tried any more."""
    return f"rm -f {site.word(TRIAL)}"


def _comes_up_function(site: InstallSite, trial_s: int) -> str:
    """Return a function that waits until the trial is over. Where nothing was there before, whoever is not
    accepted yet stays, and goes on trying: nothing better could take its place."""
    mark, old = site.word(TRIAL), site.old(REMOTE.program)
    return (
        'fz_comes_up() {\n[ -n "$fz_wait" ] || return 0\nfz_k=0\n'
        f"while [ $fz_k -lt {(trial_s + _MORE_S) * 5} ]; do\n"
        f"[ -e {mark} ] || return 0\n"
        f"case $(fz_text {mark}) in failed*) fz_text {mark} | sed 's/^failed: //' >&2; return 1;; esac\n"
        f"[ -e {old} ] || [ $fz_k -lt {trial_s * 5} ] || return 0\n"
        "sleep 0.2 2>/dev/null || { sleep 1; fz_k=$((fz_k + 4)); }\nfz_k=$((fz_k + 1))\ndone\nreturn 1; }"
    )
