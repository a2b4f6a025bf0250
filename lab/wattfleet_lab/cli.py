# SPDX-License-Identifier: Apache-2.0
"""The command line: ``wattfleet lab …`` and ``python -m wattfleet_lab …``."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from wattfleet_lab import firmware, fleet, image, option, recipe, ssh
from wattfleet_lab.addresses import ENERGY_NETWORK, check_host_name
from wattfleet_lab.errors import LabError
from wattfleet_lab.host import Host
from wattfleet_lab.lab import Lab, Wanted
from wattfleet_lab.progress import Progress

DEFAULT_SITES = 3
DISK = "a disk of their own, so that a power cut loses what was not synced"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the lab's options and subcommands to a parser; `run` takes what it parses."""
    option.add_to(parser)
    commands = parser.add_subparsers(dest="lab_command", metavar="COMMAND", required=True)

    up = commands.add_parser("up", help="boot the hub and some sites; what is up already stays as it is")
    up.add_argument(
        "--sites", type=int, metavar="N", help=f"the first N sites of the inventory (default {DEFAULT_SITES})"
    )
    up.add_argument("--site", action="append", default=[], metavar="NAME", help="this site; may be repeated")
    up.add_argument(
        "--hub", action=argparse.BooleanOptionalAction, default=True, help="with the hub (default: yes)"
    )
    up.add_argument(
        "--inventory",
        type=Path,
        default=fleet.DEFAULT_FLEET,
        metavar="FILE",
        help="fleet file (default: inventory/lab)",
    )
    up.add_argument("--disks", action="store_true", help=f"new hosts get {DISK}")

    down = commands.add_parser(
        "down", help="shut all hosts down and remove everything the lab has on this machine"
    )
    down.add_argument("--now", action="store_true", help="cut the power instead of shutting down")

    status = commands.add_parser("status", help="hosts, addresses, state, boots and uptime")
    status.add_argument("--json", action="store_true", help="for programs")

    reboot = commands.add_parser("reboot", help="reboot a host and wait until it answers again")
    reboot.add_argument("host")
    reboot.add_argument("--no-wait", action="store_true")

    cut = commands.add_parser("cut", help="take a host's power away; it stays off until `start`")
    cut.add_argument("host")
    cut.add_argument("--boot", action="store_true", help="give the power back at once")

    for name, text in (("start", "boot a host that is off"), ("stop", "shut a host down")):
        commands.add_parser(name, help=text).add_argument("host")

    for name, text in (
        ("ssh", "log in to a host, or run a command there"),
        ("exec", "run a command in a host as root through its kernel namespaces, for when SSH is broken"),
    ):
        shell = commands.add_parser(name, help=text)
        shell.add_argument("host")
        shell.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")

    build = commands.add_parser("image", help="build the base image if there is none for the present recipe")
    build.add_argument("--prune", action="store_true", help="remove images of other recipes")

    add = commands.add_parser(
        "host-add", help="add one host without an inventory; prints how to reach it as JSON"
    )
    add.add_argument("name")
    add.add_argument("--energy", action="store_true", help="with an energy network of its own on eth1")
    add.add_argument("--address", help="management address (default: the lab picks one)")
    add.add_argument("--disk", action="store_true", help=f"with {DISK}")
    add.add_argument(
        "--model", default=firmware.MODEL, help="what its firmware says that it is (default: %(default)s)"
    )

    tools = commands.add_parser("firmware", help="images for the hosts' firmware-update, good and bad ones")
    make = tools.add_subparsers(dest="firmware_command", metavar="COMMAND", required=True).add_parser(
        "make", help="write an image"
    )
    make.add_argument("output", type=Path, metavar="FILE")
    make.add_argument("--version", required=True, help="such as 2.4.1")
    make.add_argument(
        "--model", action="append", help=f"what it fits; may be repeated (default: {firmware.MODEL})"
    )
    make.add_argument(
        "--behaviour",
        choices=list(firmware.BEHAVIOURS),
        default="good",
        help="; ".join(f"{name}: {text}" for name, text in firmware.BEHAVIOURS.items()),
    )
    make.add_argument("--size", default="1M", help="such as 600K or 4M (default: %(default)s)")

    remove = commands.add_parser("host-remove", help="remove one host; with the last one the lab goes too")
    remove.add_argument("name")


def run(args: argparse.Namespace) -> int:
    """Does what was asked. Returns the exit status; trouble is one line on standard error."""
    try:
        return _run(args, Lab(args.lab, Progress()))
    except LabError as error:
        print(f"wattfleet lab: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"wattfleet lab: {error.filename or 'the machine'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "wattfleet lab: interrupted; `up` continues from here, `down` removes what there is",
            file=sys.stderr,
        )
        return 130


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="wattfleet lab", description="A simulated fleet on this machine.")
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def _run(args: argparse.Namespace, lab: Lab) -> int:
    command = args.lab_command
    if command == "up":
        return _up(args, lab)
    if command == "down":
        print(f"lab {lab.name} is down" if lab.down(args.now) else f"lab {lab.name} was not up")
    elif command == "status":
        return _status(args, lab)
    elif command == "reboot":
        lab.reboot(args.host, wait=not args.no_wait)
    elif command == "cut":
        lab.cut(args.host)
        if args.boot:
            lab.start(args.host)
    elif command == "start":
        lab.start(args.host)
    elif command == "stop":
        lab.stop(args.host)
    elif command in ("ssh", "exec"):
        return _shell(args, lab)
    elif command == "image":
        print(image.ensure(Progress()))
        if args.prune:
            for digest in image.prune():
                print(f"removed {digest}", file=sys.stderr)
    elif command == "host-add":
        energy = [str(ENERGY_NETWORK[20])] if args.energy else None
        kind = "hub" if args.name == "hub" else "plain"
        wanted = Wanted(
            check_host_name(args.name), kind, args.address, energy, model=args.model, disk=args.disk
        )
        host, changed = lab.add_host(wanted)
        print(json.dumps(_reach(lab, host, changed)))
    elif command == "firmware":
        firmware.make(
            args.output,
            version=args.version,
            models=args.model or [firmware.MODEL],
            behaviour=args.behaviour,
            length=firmware.size_of(args.size),
        )
    elif command == "host-remove":
        print(json.dumps({"name": args.name, "changed": lab.remove_host(args.name)}))
    return 0


def _up(args: argparse.Namespace, lab: Lab) -> int:
    inventory = fleet.Fleet(args.inventory.resolve())
    count = args.sites if args.sites is not None else 0 if args.site else DEFAULT_SITES
    sites = {site.name: site for site in [*inventory.first(count), *map(inventory.site, args.site)]}
    lab.up(list(sites.values()), args.hub, inventory.file, args.disks)
    print(f"lab {lab.name} is up: {len(lab.state.hosts())} hosts; ssh -F {lab.state.ssh_config} HOST")
    return 0


def _status(args: argparse.Namespace, lab: Lab) -> int:
    status = lab.status()
    if args.json:
        print(json.dumps(status, indent=1))
        return 0
    if not status["up"] and not status["hosts"]:
        print(f"lab {lab.name} is not up")
        return 0
    if not status["up"]:
        print(f"lab {lab.name}: its supervisor is gone; `up` starts it again, `down` removes what is left")
    width = max(4, *(len(host["name"]) for host in status["hosts"]))
    print(f"{'host':{width}}  {'address':15}  {'state':8}  boots  uptime")
    for host in status["hosts"]:
        uptime = "-" if host["uptime"] is None else _duration(host["uptime"])
        line = f"{host['name']:{width}}  {host['address']:15}  {host['state']:8}  {host['boots']:5}  {uptime}"
        print(f"{line}  {host['error'] or ''}".rstrip())
    meters = status["meters"]
    if meters["state"] != "none":
        ended = f"; last end: {meters['last_end']}" if meters["last_end"] else ""
        print(f"meters: {meters['state']}, {meters['restarts']} restarts{ended}")
    return 0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _shell(args: argparse.Namespace, lab: Lab) -> int:
    words: list[str] = args.command[1:] if args.command[:1] == ["--"] else args.command
    host = lab.state.host(args.host)
    if args.lab_command == "ssh":
        command = ["ssh", "-F", str(lab.state.ssh_config), host.name, *(["--", *words] if words else [])]
    else:
        if os.geteuid() != 0:
            raise LabError("exec needs root: run it with sudo")
        enter = [
            "nsenter",
            "--target",
            str(lab.leader(host.name)),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
        ]
        command = [*enter, "--cgroup", "--root", "--wd=/", *(words or ["/bin/bash", "-l"])]
    sys.stdout.flush()
    return subprocess.run(command, check=False).returncode


def _reach(lab: Lab, host: Host, changed: bool) -> dict[str, object]:
    """What a program needs to reach a host."""
    return {
        "name": host.name,
        "address": host.address,
        "gateway": str(lab.plan().controller),
        "port": 22,
        "user": ssh.USER,
        "identity_file": str(lab.state.key),
        "known_hosts": str(lab.state.known_hosts),
        "ssh_config": str(lab.state.ssh_config),
        "lab": lab.name,
        "index": lab.state.index,
        "image": recipe.digest(),
        "energy_namespace": lab.plan().machine(host.name) if host.energy is not None else None,
        "changed": changed,
    }
