"""What ssh complains about becomes one sentence with the command that mends it. ``ssh`` is a script here."""

import hashlib
import json
import os
import time

import pytest

from edgekit.deploy.ssh import Agent, BoardBug, ConnectionLost, Host, HostError, SshOptions
from edgekit.runtime import errors
from edgekit.runtime.errors import BadConfig, BoardBusy, MissingDependency

CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
Offending ED25519 key in /home/me/lab hosts:3
Host key verification failed."""


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """Puts a script in the place of ssh; ``$ASKED`` is the script for the board's sh. Gives a Host."""

    def make(script, name="nvidia@tx2", **options):
        program = tmp_path / "bin" / "ssh"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nfor ASKED; do :; done\nexport ASKED\necho "$@" > {tmp_path}/asked\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return Host(name, SshOptions(**options))

    return make


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        (CHANGED, HostError, r"is not the one that is known.*nothing was sent.*ssh-keygen -R tx2"),
        (
            "No ED25519 host key is known for tx2\nHost key verification failed.",
            HostError,
            "not known yet.*ssh nvidia@",
        ),
        ("nvidia@tx2: Permission denied (publickey,password).", HostError, r"publickey.*ssh-copy-id nvidia@tx2"),
        ("ssh: Could not resolve hostname tx2: Name or service not known", HostError, "there is no host of this name"),
        ("ssh: connect to host tx2 port 22: Connection refused", HostError, r"refuses connections.*systemctl"),
        ("ssh: connect to host tx2 port 22: Connection timed out", HostError, "cannot be reached.*ping tx2"),
        ("ssh: connect to host tx2 port 22: No route to host", HostError, "cannot be reached"),
        ("client_loop: send disconnect: Broken pipe", ConnectionLost, "send disconnect.*Repeat the same command"),
        ("Timeout, server tx2 not responding.", ConnectionLost, "the connection was lost"),
        ("", ConnectionLost, "ssh gives no reason"),
    ],
)
def test_what_ssh_complains_about(words, kind, says, ssh, tmp_path):
    (tmp_path / "words").write_text(words)
    host = ssh(f"cat {tmp_path}/words >&2; exit 255")
    with pytest.raises(HostError, match=says) as caught:
        host.run("true")
    assert type(caught.value) is kind
    assert str(caught.value).startswith("nvidia@tx2: ")


@pytest.mark.parametrize(
    ("name", "known", "bare"),
    [
        ("nvidia@tx2", "tx2", "tx2"),
        ("ssh://nvidia@tx2:2222", "'[tx2]:2222'", "tx2"),
        ("ssh://nvidia@tx2:22/", "tx2", "tx2"),
        ("nvidia@fd00::2", "fd00::2", "fd00::2"),
        ("nvidia@[fe80::1%eth0]", "fe80::1%eth0", "fe80::1%eth0"),
        ("ssh://nvidia@[fd00::2]:2222", "'[fd00::2]:2222'", "fd00::2"),
        ("ssh://[fd00::2]", "fd00::2", "fd00::2"),
    ],
)
def test_hints_name_the_host_as_each_program_takes_it(name, known, bare, ssh, tmp_path):
    for words, hint in ((CHANGED, f"ssh-keygen -R {known}"), ("No route to host", f"ping {bare}")):
        (tmp_path / "words").write_text(words)
        with pytest.raises(HostError) as caught:
            ssh(f"cat {tmp_path}/words >&2; exit 255", name).run("true")
        assert f"{hint} " in f"{caught.value} "


def test_a_changed_key_is_removed_under_the_name_that_ssh_tells(ssh, tmp_path):
    """Behind an alias of the configuration ``known_hosts`` has the address and the port."""
    (tmp_path / "words").write_text(
        f"{CHANGED}\nHost key for [10.0.0.5]:2222 has changed and you have requested strict"
    )
    with pytest.raises(
        HostError, match=r"ssh-keygen -R '\[10\.0\.0\.5\]:2222' -f '/home/me/lab hosts', then ssh lab-3"
    ):
        ssh(f"cat {tmp_path}/words >&2; exit 255", "lab-3").run("true")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (CHANGED, r"ssh-keygen -R tx2 -f '/home/me/lab hosts', then ssh -F 'my lab' nvidia@tx2, and"),
        ("Host key verification failed.", "Log in once with ssh -F 'my lab' nvidia@tx2, and"),
        ("nvidia@tx2: Permission denied (publickey).", "ssh-copy-id -F 'my lab' nvidia@tx2$"),
        ("ssh: Could not resolve hostname tx2: Name or service not known", "or write it into my lab$"),
    ],
)
def test_a_configuration_of_ones_own_is_in_the_commands(words, says, ssh, tmp_path):
    (tmp_path / "words").write_text(words)
    host = ssh(f"cat {tmp_path}/words >&2; exit 255", config="my lab")
    with pytest.raises(HostError, match=says):
        host.run("true")


def test_keys_are_checked_strictly_and_nothing_is_asked(ssh, tmp_path):
    ssh('eval "$ASKED"', config=tmp_path / "my config").run("echo there")
    asked = (tmp_path / "asked").read_text()
    for setting in ("BatchMode=yes", "StrictHostKeyChecking=yes", "ForwardAgent=no", f"-F {tmp_path}/my config"):
        assert setting in asked
    assert " -- nvidia@tx2 sh -c " in asked


@pytest.mark.parametrize(
    "name", ["-oProxyCommand=evil", "a b", "", "x@-oProxyCommand=e", "tx2;reboot", "$(reboot)", "a\nb"]
)
def test_names_that_are_no_hosts(name):
    with pytest.raises(BadConfig, match="give it as user@host"):
        Host(name)


@pytest.mark.parametrize("name", ["tx2", "nvidia@192.168.1.9", "ssh://nvidia@tx2:2222", "fe80::1%eth0", "my_tx2.local"])
def test_names_of_hosts(name):
    assert Host(name).name == name


def test_without_ssh_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="apt-get install openssh-client"):
        Host("tx2").run("true")


def test_a_script_reaches_the_boards_sh_unchanged(ssh):
    odd = """for i in 1 "2  3" '$4'; do echo "<$i>"; done; cat"""
    assert ssh('eval "$ASKED"').run(odd, b"from here") == "<1>\n<2  3>\n<$4>\nfrom here"


def test_a_script_that_fails_is_quoted(ssh):
    with pytest.raises(BoardBug, match="exit code 3: it went wrong"):
        ssh('eval "$ASKED"').run("echo it went wrong. >&2; exit 3")


def test_a_reader_that_stops_reading_is_no_crash(ssh):
    done = ssh("exit 5").talk("true", (b"x" * 100_000 for _ in range(100)))
    assert done.code == 5


# -- the program on the board -----------------------------------------------------------------------------------------
def agent(host):
    return Agent(host, b"program", hashlib.sha256(b"program").hexdigest())


def says(*messages):
    return "; ".join(f"echo '{json.dumps(message)}'" for message in messages)


def test_progress_and_result(ssh):
    seen = []
    host = ssh(says({"phase": "build", "done": 1, "total": 3}, "noise", {"result": {"a": 1}}) + "; echo a library")
    assert agent(host).call("build", progress=lambda *told: seen.append(told)) == {"a": 1}
    assert seen == [("build", 1, 3)]


@pytest.mark.parametrize("kind", [BoardBusy, errors.BadConfig, errors.ArtifactError])
def test_the_boards_error_is_the_same_here(kind, ssh):
    host = ssh(says({"error": "because", "type": kind.__name__}) + "; exit 2")
    with pytest.raises(kind, match="nvidia@tx2: because"):
        agent(host).call("build")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'sh: 1: python9: not found' >&2; exit 127", r"has no python9.*--python /usr/bin/python3"),
        ("exit 137", r"build was killed by SIGKILL.*ran out of memory"),
        ("exit 139", r"build was killed by SIGSEGV"),
        ("exit 200", "build ended with exit code 200 and no answer"),
        ("echo 'NameError: oops' >&2; exit 1", "exit code 1 and no answer: NameError: oops"),
        ("exit 0", "exit code 0 and no answer"),
        ("echo '{\"result\": 5}'", "no answer"),
    ],
)
def test_a_program_that_ends_without_an_answer(script, says, ssh):
    with pytest.raises(BoardBug, match=says):
        agent(ssh(script, python="python9")).call("build")


def test_the_program_is_sent_once(ssh, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "home"))
    host = ssh('eval "$ASKED"')
    agent(host).bring()
    (place,) = (tmp_path / "home" / "tools").iterdir()
    assert place.read_bytes() == b"program"
    before = place.stat().st_mtime_ns
    agent(host).bring()
    assert place.stat().st_mtime_ns == before
    place.write_bytes(b"damaged")
    agent(host).bring()
    assert place.read_bytes() == b"program"
    assert len(list(place.parent.iterdir())) == 1


def test_a_program_that_arrives_cut_short_is_not_kept(ssh, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "home"))
    with pytest.raises(BoardBug, match="did not arrive whole"):
        agent(ssh('head -c 3 | eval "$ASKED"')).bring()
    assert list((tmp_path / "home" / "tools").iterdir()) == []


def test_holding_ends_with_the_block(ssh, tmp_path):
    host = ssh(says({"result": {"held": True}}) + f"; cat > /dev/null; echo > {tmp_path}/freed")
    with agent(host).holding("me"):
        assert not (tmp_path / "freed").exists()
    deadline = time.monotonic() + 10
    while not (tmp_path / "freed").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (tmp_path / "freed").exists()


def test_a_board_whose_login_script_talks_can_be_held(ssh):
    host = ssh("echo 'Welcome to Ubuntu 18.04'; echo; " + says({"result": {"held": True}}) + "; cat > /dev/null")
    with agent(host).holding("me"):
        pass


def test_a_board_that_is_held_already(ssh):
    host = ssh(says({"error": "another flash", "type": "BoardBusy"}) + "; exit 2")
    with pytest.raises(BoardBusy, match="another flash"), agent(host).holding("me"):
        pass


def test_a_board_that_cannot_be_held(ssh):
    held = agent(ssh("echo NameError >&2; exit 1")).holding("me")
    with pytest.raises(BoardBug, match="hold ended with exit code 1 and no answer: NameError"), held:
        pass
    with pytest.raises(ConnectionLost), agent(ssh("exit 255")).holding("me"):
        pass


def test_an_interruption_ends_what_is_running(ssh):
    host = ssh("exec sleep 60")
    started = time.monotonic()
    with host.started("true") as (process, _):
        host.cut()
        assert process.wait(timeout=20) != 0
    assert time.monotonic() - started < 20
    with pytest.raises(ConnectionLost, match="interrupted"):
        host.run("true")
