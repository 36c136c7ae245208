"""Labels on a Ray cluster of two hosts, one of which is cut off in the midst of it, and compares with a local run.

    OMP_NUM_THREADS=1 python benchmarks/two_hosts.py --scratch DIR [--scenes N]

The hosts are network namespaces of this machine with an address each, joined by one cable (`ip netns`; needs root and
iproute2 on Linux). Files are shared, as by a network file system. Ray's authentication is off: a token file of the user
that only one of two hosts has is what Ray calls `InvalidAuthToken`.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from kill_runs import contents, draw, label

from patchword.toytown import miniatures

HOSTS = {"patchword-a": "10.77.0.1", "patchword-b": "10.77.0.2"}
HEAD, OTHER = HOSTS
ADDRESS = f"{HOSTS[HEAD]}:6379"
NODE = ("--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats")


def main() -> None:
    """Label twice on two hosts, the second time until one is gone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for scenes and results")
    parser.add_argument("--scenes", type=int, default=12, help="photographs")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as actors have; with others the last digits differ
    draw(options.scratch / "photos", options.scenes)
    label(options.scratch, "local")
    whole = contents(options.scratch / "local")
    path = os.pathsep.join(each for each in sys.path if each)
    os.environ.update(PYTHONPATH=path, RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    try:
        connect()
        on(HEAD, "ray", "start", "--head", f"--node-ip-address={HOSTS[HEAD]}", "--port=6379", *NODE)
        on(OTHER, "ray", "start", f"--address={ADDRESS}", f"--node-ip-address={HOSTS[OTHER]}", *NODE)
        for out, cut_after in (("both", None), ("cut off", options.scenes // 3)):
            started = time.monotonic()
            said = run(options.scratch, out, cut_after)
            alike = "same" if contents(options.scratch / out) == whole else "OTHER"
            print(f"{out}: {alike} bytes, {time.monotonic() - started:.0f} s", *said, sep="\n    ", flush=True)
    finally:
        for host in HOSTS:
            told = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True, check=False).stdout
            for process in map(int, told.split()):
                os.kill(process, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", host], check=False)


def connect() -> None:
    """Make both hosts and a cable between them."""
    for host in HOSTS:
        ip("netns", "add", host)
        ip("-n", host, "link", "set", "lo", "up")
    ip("link", "add", "cable", "netns", HEAD, "type", "veth", "peer", "name", "cable", "netns", OTHER)
    for host, address in HOSTS.items():
        ip("-n", host, "addr", "add", f"{address}/24", "dev", "cable")
        ip("-n", host, "link", "set", "cable", "up")


def ip(*arguments: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *arguments], check=True)


def on(host: str, *command: str) -> None:
    """Run a command on a host."""
    subprocess.run(["ip", "netns", "exec", host, *command], check=True, stdout=subprocess.DEVNULL)


def run(scratch: Path, out: str, cut_after: int | None) -> list[str]:
    """Label from the first host; cut the cable after so many results. What was said of workers."""
    command = [sys.executable, "-m", "patchword", "label", str(scratch / "photos"), "-o", str(scratch / out)]
    command += ["--classes", "house, tree, car, sky, grass", "--set=image_batch=1", "--device", "cpu", "--quiet"]
    command += ["--image-text", str(miniatures.CLIP), "--mask-generator", str(miniatures.SAM)]
    command += ["--executor", f"ray:{ADDRESS}"]
    manifest = scratch / out / "manifest.jsonl"
    with subprocess.Popen(["ip", "netns", "exec", HEAD, *command], stderr=subprocess.PIPE, text=True) as driver:
        while cut_after and driver.poll() is None:
            if manifest.is_file() and manifest.read_bytes().count(b"\n") >= cut_after:
                ip("-n", HEAD, "link", "set", "cable", "down")
                break
            time.sleep(0.05)
        _, said = driver.communicate()
    return [line for line in said.splitlines() if "worker" in line or driver.returncode]


if __name__ == "__main__":
    main()
