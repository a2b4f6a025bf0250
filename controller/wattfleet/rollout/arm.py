# SPDX-License-Identifier: Apache-2.0
"""The arm that reaches sites by Ansible.

Sites that are asked for the same kind of thing at the same time share a play, in a process of its own (`hand`); what
each answers counts at once, while others of the play are slow. Transfers and everything else have plays and places of
their own: a satellite that takes hours for an image does not hold up a look at a gateway that has just restarted. A
site is in one play at a time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from wattfleet.paths import ROOT
from wattfleet.rollout import orders
from wattfleet.rollout.engine import Action, Command, Kind, Rollout, Seen
from wattfleet.rollout.fleet import Fleet, Node
from wattfleet.rollout.gate import Gate
from wattfleet.rollout.gates import Verdict
from wattfleet.rollout.verdicts import Verdicts

# Between the end of one question and the next to the same site, in s; a short soak is looked at more often.
PACE = 10.0
LOOKS_IN_A_SOAK = 20
# Between the beginnings of two plays of a kind, in s: the first site of a play costs the controller 1.8 s of its CPU,
# each further one 0.4 s, so those that become free a moment later come along.
GATHER = 2.0
# A node from which an answer is missing is left alone for so long, in s.
NODE_REST = 120.0
# A play that has not ended after so long hangs, in s: its sites are free again.
PLAY_LIMIT = orders.TRANSFER_SECONDS + 600.0
# What a look needs nothing of.
LOOK = {"image": "", "manifest": "", "rate": 0, "budget": 0, "seconds": 0, "confirm_within": 900}


@dataclass
class _Play:
    """A play under way. `waiting` are the sites that have not answered yet."""

    process: subprocess.Popen[str]
    node: Node | None
    is_transfer: bool
    waiting: dict[str, Command]


@dataclass
class _Place:
    """Where plays run: here, or on a node. `rests_until` by the monotonic clock."""

    node: Node | None
    rests_until: float = 0.0
    plays: list[_Play] = field(default_factory=list)

    def free(self, most: int, *, transfers: bool) -> int:
        busy = sum(len(play.waiting) for play in self.plays if play.is_transfer is transfers)
        return max(0, most - busy)


class AnsibleArm:
    """The driver's arm; see `driver.Arm`."""

    def __init__(self, fleet: Fleet, gate: Gate, log: IO[str]) -> None:
        self._wake = threading.Event()
        self._fleet = fleet
        self._log = log
        self._pace = min(PACE, max(1.0, fleet.settings.soak / LOOKS_IN_A_SOAK))
        self._lock = threading.Lock()
        self._places = [_Place(node) for node in fleet.nodes] or [_Place(None)]
        self._busy: set[str] = set()
        self._next: dict[str, float] = {}
        self._begun = {True: -GATHER, False: -GATHER}
        self._wanted: dict[str, Command] = {}
        self._heard: deque[tuple[Command, Seen]] = deque()
        self._looks: dict[str, Mapping[str, Any]] = {}
        self._verdicts = Verdicts(gate, fleet.settings.soak)

    # What the driver asks for.

    def carry_out(self, rollout: Rollout, wanted: Iterable[Command]) -> None:
        now, at = time.monotonic(), int(time.time() * 1000)
        self._wanted = {command.site: command for command in wanted}
        lanes: dict[bool, list[tuple[Command, dict[str, Any]]]] = {True: [], False: []}
        with self._lock:
            free = [
                command
                for command in self._wanted.values()
                if command.site not in self._busy and now >= self._next.get(command.site, 0.0)
            ]
        # Who has waited longest comes first.
        for command in sorted(free, key=lambda one: self._next.get(one.site, 0.0)):
            known = orders.needs_nobody(command)
            if known is not None:
                self._hear(command, known)
                continue
            order = orders.order_of(rollout, command, at)
            if order is not None:
                lanes[command.action is Action.TRANSFER].append((command, order))
        for is_transfer, lane in lanes.items():
            self._share_out(lane, is_transfer=is_transfer)

    def seen(self) -> Mapping[str, Seen]:
        self._wake.clear()
        found: dict[str, Seen] = {}
        while self._heard:
            command, seen = self._heard.popleft()
            now = self._wanted.get(command.site)
            # An answer about an attempt that is over says nothing.
            if now is not None and (now.attempt, now.direction) == (command.attempt, command.direction):
                found[command.site] = seen
                if seen.kind is Kind.RUNNING:
                    self._looks[command.site] = seen.data
        return found

    def verdicts(self, rollout: Rollout, names: Iterable[str]) -> Mapping[str, Verdict]:
        return self._verdicts.of(rollout, names, self._looks)

    def open_windows(self, rollout: Rollout, now: int) -> Iterable[str]:
        return orders.open_windows(rollout, now)

    def wait(self, seconds: float) -> None:
        """Until something was heard, at most so long."""
        self._wake.wait(seconds)

    def close(self) -> None:
        """End what is under way. It may be asked for again."""
        self._verdicts.close()
        with self._lock:
            plays = [play for place in self._places for play in place.plays]
        for play in plays:
            if play.process.stdin:
                play.process.stdin.close()
        for play in plays:
            play.process.wait()

    # Plays.

    def _share_out(self, lane: list[tuple[Command, dict[str, Any]]], *, is_transfer: bool) -> None:
        """Begin plays with as many of the lane as have a place, spread over the nodes."""
        transfers = max(1, self._fleet.forks * 3 // 4)
        most = transfers if is_transfer else max(1, self._fleet.forks - transfers)
        now = time.monotonic()
        if not lane or now < self._begun[is_transfer] + GATHER:
            return
        self._begun[is_transfer] = now
        with self._lock:
            awake = [place for place in self._places if place.rests_until <= now]
            # When none of them answers, the one that has rested longest is tried again.
            places = awake or [min(self._places, key=lambda place: place.rests_until)]
            room = {index: place.free(most, transfers=is_transfer) for index, place in enumerate(places)}
            shares: dict[int, list[tuple[Command, dict[str, Any]]]] = {}
            for one in lane:
                index = max(room, key=lambda key: room[key])
                if room[index] == 0:
                    break
                room[index] -= 1
                shares.setdefault(index, []).append(one)
                self._busy.add(one[0].site)
        for index, share in shares.items():
            self._begin(places[index], share, is_transfer=is_transfer)

    def _begin(
        self, place: _Place, share: list[tuple[Command, dict[str, Any]]], *, is_transfer: bool
    ) -> None:
        told = {command.site: {"rollout_order": order} for command, order in share}
        first = share[0][1]
        order = {
            "inventory": self._fleet.part(told.keys(), told),
            "forks": len(share),
            "node": asdict(place.node) if place.node else None,
            "image": next((one["image"] for _, one in share if one["image"]), ""),
            "manifest": next((one["manifest"] for _, one in share if one["manifest"]), ""),
        }
        process = _hand(self._log)
        play = _Play(process, place.node, is_transfer, {command.site: command for command, _ in share})
        with self._lock:
            place.plays.append(play)
        where = f" on {place.node.name}" if place.node else ""
        print(f"== {first['step']}{where}: {', '.join(sorted(told))}", file=self._log, flush=True)
        threading.Thread(target=self._follow, args=(place, play, order), daemon=True).start()

    def _follow(self, place: _Place, play: _Play, order: dict[str, Any]) -> None:
        """Read what a play says until it ends."""
        assert play.process.stdin is not None
        assert play.process.stdout is not None
        error = ""
        try:
            _send(play.process, order)
        except BrokenPipeError:
            error = "the play's process has ended"
        limit = threading.Timer(PLAY_LIMIT, play.process.stdin.close)
        limit.start()
        for text in play.process.stdout:
            line = json.loads(text)
            if "error" in line:
                error = str(line["error"])
                continue
            command = play.waiting.get(line["site"])
            if command is not None:
                with self._lock:
                    del play.waiting[command.site]
                seen = (
                    orders.seen_of(line["seen"])
                    if "seen" in line
                    else Seen(Kind.TROUBLE, str(line["trouble"]))
                )
                self._hear(command, seen)
        code = play.process.wait()
        limit.cancel()
        with self._lock:
            place.plays.remove(play)
            missing = list(play.waiting.values())
            play.waiting.clear()
            if missing and place.node:
                place.rests_until = time.monotonic() + NODE_REST
        for command in missing:
            # Nothing is known of the site: another play looks at it, from another node where there is one.
            self._hear(command, Seen(Kind.TROUBLE, f"error: {error or f'the play ended with {code}'}"))

    def _hear(self, command: Command, seen: Seen) -> None:
        # A transfer that goes on is asked for again at once; everything else at the pace.
        goes_on = seen.kind in (Kind.TRANSFERRING, Kind.TRANSFERRED, Kind.BEGUN)
        with self._lock:
            self._busy.discard(command.site)
            self._next[command.site] = time.monotonic() + (0.0 if goes_on else self._pace)
        self._heard.append((command, seen))
        self._wake.set()


def ask_versions(fleet: Fleet, names: Iterable[str], kind: str, log: IO[str]) -> dict[str, str | None]:
    """What each site itself says that it runs; None for one that does not answer."""
    found: dict[str, str | None] = dict.fromkeys(names)
    hosts = {
        name: {"rollout_order": {"step": "look", "attempt": f"plan/{name}/0", "kind": kind} | LOOK}
        for name in found
    }
    nodes: tuple[Node | None, ...] = fleet.nodes or (None,)
    plays = []
    for index, node in enumerate(nodes):
        share = sorted(found)[index :: len(nodes)]
        if share:
            order = {
                "inventory": fleet.part(share, hosts),
                "forks": fleet.forks,
                "node": asdict(node) if node else None,
            }
            plays.append(_hand(log))
            _send(plays[-1], order)
    for process in plays:
        assert process.stdout is not None
        for text in process.stdout:
            line = json.loads(text)
            if "seen" in line and line["site"] in found:
                found[line["site"]] = orders.seen_of(line["seen"]).data.get("version")
        process.wait()
    return found


def _hand(log: IO[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "wattfleet.rollout.hand"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        cwd=ROOT,
    )


def _send(process: subprocess.Popen[str], order: Mapping[str, Any]) -> None:
    """Raises BrokenPipeError where the process has ended already."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()


def open_log(path: Path) -> IO[str]:
    """A log that is appended to, line by line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a", encoding="utf-8", buffering=1)
