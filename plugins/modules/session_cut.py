#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Ends the connections that one client has open at the broker, and no other."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: session_cut
short_description: Cut what one client of the broker has open
version_added: "0.3.0"
description:
  - A broker checks a certificate when a client connects, and never again. A client that was connected when its
    certificate was revoked therefore goes on, until its connection ends. This module ends it.
  - Mosquitto writes into its journal which address and port connected under which name. The kernel ends the connections
    that are known by the client's name, and those that the journal does not name, since one of them could be it (a
    handshake that is not finished, or a journal that was rotated). Whoever is cut without reason comes back at once.
  - Afterwards it watches for O(settle) seconds that the client does not come back.
  - Where the kernel cannot end connections (C(INET_DIAG_DESTROY)), the broker is restarted, which ends everybody's.
  - Have the broker take the new revocation list first, otherwise the client comes back.
options:
  name:
    description: Name of the client, which is the common name of its certificate.
    type: str
    required: true
  port:
    description: The broker's port.
    type: int
    default: 8883
  unit:
    description: The broker's unit.
    type: str
    default: mosquitto.service
  settle:
    description: Seconds for which the client has to stay away.
    type: float
    default: 3
  timeout:
    description: Seconds after which it is an error that the client is still there.
    type: float
    default: 30
  restart:
    description: Whether the broker may be restarted where the kernel cannot end a single connection.
    type: bool
    default: true
attributes:
  check_mode:
    description: Tells which connections would be cut.
    support: full
  diff_mode:
    description: Shows the connections of the client before and after.
    support: full
  idempotent:
    description: Where the client has no connection nothing is cut.
    support: full
  platform:
    description: Linux with systemd and C(ss) of iproute2.
    platforms: linux
    support: full
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Cut the session of a gateway that was revoked
  wattfleet.energy.session_cut:
    name: lab-01
  register: session

- name: Tell what was done
  ansible.builtin.debug:
    msg: "{{ session.cut | length }} connections cut after {{ session.took }} s, {{ session.kept }} others stay"
"""

RETURN = r"""
cut:
  description: The connections that were cut, as address and port of the client.
  returned: always
  type: list
  elements: str
  sample: ["198.18.0.11:43212"]
unnamed:
  description: How many of them were cut because nobody knows whose they are.
  returned: always
  type: int
  sample: 0
kept:
  description: Connections of other clients that were left alone.
  returned: always
  type: int
  sample: 49
restarted:
  description: Whether the broker had to be restarted.
  returned: always
  type: bool
  sample: false
took:
  description: Seconds from the start of the module until the last connection was gone.
  returned: always
  type: float
  sample: 0.2
"""

import re
import time

from ansible.module_utils.basic import AnsibleModule

# Such as: New client connected from 198.18.0.11:43212 as lab-01 (p5, c0, k60, u'lab-01').
CONNECTED = re.compile(r"New client connected from (\S+):(\d+) as (.+) \(p\d+, c\d+, k\d+")
PAUSE = 0.5


def names_in(journal: str) -> dict[str, str]:
    """Who connected last from each address and port, as `address:port` without brackets."""
    found = {}
    for line in journal.splitlines():
        match = CONNECTED.search(line)
        if match:
            address, port, name = match.groups()
            found[f"{address}:{port}"] = name
    return found


def peers_in(listing: str) -> list[str]:
    """The clients of `ss -Htn state established sport = :PORT`, as `address:port` without brackets."""
    # Without a column for the state: Recv-Q, Send-Q, own address, the peer's address.
    peers = [line.split()[3] for line in listing.splitlines() if len(line.split()) >= 4]
    return [re.sub(r"[\[\]]", "", peer).removeprefix("::ffff:") for peer in peers]


def chosen(peers: list[str], names: dict[str, str], name: str, unnamed: bool) -> list[str]:
    """The connections to cut: those of the name and, when `unnamed`, those that nobody knows."""
    return [peer for peer in peers if names.get(peer, name if unnamed else "") == name]


class Broker:
    """The broker's connections and its journal, with every fault told in one line."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.ss = module.get_bin_path(
            "ss", required=True, opt_dirs=["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
        )
        self.journalctl = module.get_bin_path("journalctl", required=True)
        self.systemctl = module.get_bin_path("systemctl", required=True)
        self.port = module.params["port"]
        self.unit = module.params["unit"]

    def run(self, *command: str) -> str:
        code, out, err = self.module.run_command(list(command))
        if code != 0:
            self.module.fail_json(msg=f"{' '.join(command)}: {str(err).strip() or str(out).strip()}")
        return str(out)

    def peers(self) -> list[str]:
        return peers_in(self.run(self.ss, "-Htn", "state", "established", "sport", "=", f":{self.port}"))

    def names(self) -> dict[str, str]:
        """What the journal tells of this run of the broker."""
        self.run(self.journalctl, "--sync")
        run = self.run(self.systemctl, "show", "--value", "--property=InvocationID", "--", self.unit).strip()
        # Exit code 1: no line matched.
        _code, out, _err = self.module.run_command(
            [
                self.journalctl,
                "--quiet",
                "--no-pager",
                "--output=cat",
                "--grep=New client connected",
                f"_SYSTEMD_INVOCATION_ID={run}",
            ]
        )
        return names_in(str(out))

    def kill(self, peer: str) -> None:
        """Have the kernel end a connection. `ss` succeeds also where it could not: look afterwards."""
        address, _colon, port = peer.rpartition(":")
        address = f"[{address}]" if ":" in address else address
        self.module.run_command(
            [
                self.ss,
                "-Htn",
                "--kill",
                "state",
                "established",
                f"( sport = :{self.port} and dst {address}:{port} )",
            ]
        )


def cut(broker: Broker) -> dict[str, object]:
    """Cut until the client has been away for as long as was asked for."""
    module, name = broker.module, broker.module.params["name"]
    began = time.monotonic()
    quiet = gone = began
    done: list[str] = []
    unnamed: set[str] = set()
    restarted = False
    before = broker.peers()
    # Twice also those without a name: at once, and when whoever began before the new list has had time to finish.
    sweeps = [began, began + module.params["settle"]]
    while True:
        now = time.monotonic()
        sweep = bool(sweeps) and now >= sweeps[0]
        sweeps = sweeps[1:] if sweep else sweeps
        peers, names = broker.peers(), broker.names()
        targets = chosen(peers, names, name, sweep)
        if targets:
            stuck = [peer for peer in targets if peer in done]
            if stuck and not restarted:
                if not module.params["restart"]:
                    module.fail_json(
                        msg=f"the kernel does not end {', '.join(stuck)}; a restart of {broker.unit} would"
                    )
                broker.run(broker.systemctl, "restart", "--", broker.unit)
                restarted = True
            for peer in targets:
                broker.kill(peer)
            done += [peer for peer in targets if peer not in done]
            unnamed |= {peer for peer in targets if peer not in names}
            quiet = gone = time.monotonic()
        elif not sweeps and now - quiet >= module.params["settle"]:
            break
        if now - began > module.params["timeout"]:
            module.fail_json(
                msg=f"{name} is still connected after {now - began:.0f} s ({', '.join(targets) or 'it comes back'}):"
                f" has {broker.unit} taken the new list of what is revoked?"
            )
        time.sleep(PAUSE if not targets else 0.1)
    left = broker.peers()
    return {
        "cut": done,
        "unnamed": len(unnamed),
        "kept": len([peer for peer in before if peer in left]),
        "restarted": restarted,
        "took": round(gone - began, 2),
        "diff": {"before": "".join(f"{peer}\n" for peer in done), "after": ""},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "port": {"type": "int", "default": 8883},
            "unit": {"type": "str", "default": "mosquitto.service"},
            "settle": {"type": "float", "default": 3.0},
            "timeout": {"type": "float", "default": 30.0},
            "restart": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    broker = Broker(module)
    if module.check_mode:
        peers, names = broker.peers(), broker.names()
        found = chosen(peers, names, module.params["name"], True)
        module.exit_json(
            changed=bool(found),
            cut=found,
            unnamed=len([peer for peer in found if peer not in names]),
            kept=len(peers) - len(found),
            restarted=False,
            took=0.0,
            diff={"before": "".join(f"{peer}\n" for peer in found), "after": ""},
        )
    result = cut(broker)
    module.exit_json(changed=bool(result["cut"]), **result)


if __name__ == "__main__":
    main()
