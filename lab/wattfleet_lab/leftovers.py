# SPDX-License-Identifier: Apache-2.0
"""What a lab has on the machine: found by looking at the machine, not by trusting what the lab wrote down."""

from __future__ import annotations

import json
from pathlib import Path

from wattfleet_lab import cgroups, kernel, network, registry, sysctls
from wattfleet_lab.addresses import Plan
from wattfleet_lab.commands import succeeds
from wattfleet_lab.processes import Process, command_lines
from wattfleet_lab.state import State


def lab_processes(plan: Plan, state: State) -> list[Process]:
    """The supervisor first, so that it starts nothing again; then simulator, containers and what they run."""
    supervisors: list[int] = []
    others: list[int] = []
    for pid, arguments in command_lines():
        if "wattfleet_lab.supervisor" in arguments and str(state.path) in arguments:
            supervisors.append(pid)
        elif _is_simulator(arguments, state) or _is_container(arguments, plan):
            others.append(pid)
    others += _recorded(state)
    for group in cgroups.lab_folders(plan.cgroup):
        others += [pid for pid in cgroups.members(group) if pid > 0]
    pids = dict.fromkeys(supervisors + others)
    return [process for process in (Process.of(pid) for pid in pids) if process is not None]


def _is_simulator(arguments: list[str], state: State) -> bool:
    return "wattfleet_lab.meters" in arguments and str(state.meters) in arguments


def _is_container(arguments: list[str], plan: Plan) -> bool:
    named = any(argument.startswith(f"--machine={plan.prefix}") for argument in arguments)
    return arguments[0].endswith("systemd-nspawn") and named


def _recorded(state: State) -> list[int]:
    """Pids that hosts wrote down and that are still the same processes."""
    pids: list[int] = []
    for file in state.hosts_folder.glob("*/run.json"):
        entries = [Process(*entry) for entry in json.loads(file.read_text()).values() if entry]
        pids += [process.pid for process in entries if process.alive]
    return pids


def leftovers(name: str, plan: Plan) -> list[str]:
    """What is still there of a lab that should be gone, a line each; empty when nothing is.

    When no lab is left on the machine, what all labs share must be gone as well.
    """
    state = State.of(name)
    left = [f"process {process.pid}" for process in lab_processes(plan, state)]
    left += [f"network namespace {namespace}" for namespace in network.namespaces(plan)]
    left += [f"link {link}" for link in network.links(plan)]
    left += [f"mount {point}" for point in kernel.mounts_below(state.path)]
    left += [f"control group {group}" for group in cgroups.lab_folders(plan.cgroup)]
    left += [f"folder {folder}" for folder in Path("/run/systemd/nspawn/propagate").glob(f"{plan.prefix}*")]
    if succeeds("nft", "list", "table", "inet", plan.table):
        left.append(f"nftables table inet {plan.table}")
    if state.path.exists():
        left.append(f"folder {state.path}")
    machine = registry.read()
    if name in machine.labs:
        left.append(f"entry {name} in the machine's list of labs")
    if not machine.labs:
        if network.blackhole_is_there():
            left.append("the blackhole route of the labs")
        left += [
            f"sysctl {key} = {sysctls.read(key)} instead of {value}" for key, value in machine.restore.items()
        ]
    return left
