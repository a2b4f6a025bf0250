# SPDX-License-Identifier: Apache-2.0
import os
import signal
import subprocess
import time

from wattfleet_lab.processes import Process, children, command_lines


def test_a_process_is_known_by_pid_and_start_time() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        process = Process.of(child.pid)
        assert process is not None
        assert process.alive
        assert child.pid in children(os.getpid())
        # The kernel gives a new program its arguments a moment after Popen has returned.
        deadline = time.monotonic() + 10
        while (child.pid, ["sleep", "60"]) not in list(command_lines()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Somebody else with the same pid is left alone.
        stranger = Process(child.pid, process.started + 1)
        assert not stranger.alive
        assert not stranger.send(signal.SIGKILL)
        assert child.poll() is None
        # Nobody has waited for it yet, and still it counts as gone.
        assert process.kill()
        assert Process.of(child.pid) is None
    finally:
        child.kill()
        child.wait()
    assert not process.send(signal.SIGTERM)
