"""A Slurm of its own on this machine, for tests: two GPUs that are none, and partitions low and high that pre-empts it.

    python tests/slurm.py FOLDER    starts one and keeps it until Ctrl-C; commands find it by SLURM_CONF
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NEEDED = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "srun")
INSTALL = "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge"
SLURM = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmctldParameters=preempt_send_user_signal
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=10
MinJobAge=7200
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes={host} Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
CGROUP = """
CgroupPlugin=cgroup/v1
IgnoreSystemd=yes
ConstrainCores=no
ConstrainDevices=no
ConstrainRAMSpace=no
"""


def missing() -> str:
    """What a Slurm here lacks, and how to get it; "" where nothing is lacking."""
    if lacking := [name for name in NEEDED if shutil.which(name) is None]:
        return f"no {', '.join(lacking)} here; as root: {INSTALL}"
    return "" if os.getuid() == 0 else "a Slurm on one machine, with its fake GPUs, is started by root alone"


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """While it runs; its configuration is in the environment."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(exist_ok=True)
    for number in (0, 1):
        os.mknod(folder / f"gpu{number}", 0o020666, os.makedev(1, 3))  # Slurm wants character devices; these are null
    (folder / "slurm.conf").write_text(SLURM.format(folder=folder, host=host, user="root", ports=_ports(2)))
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={folder}/gpu[0-1]\n")
    (folder / "cgroup.conf").write_text(CGROUP)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    processes = []
    try:
        for command in (["munged", "--foreground", "--force", f"--socket={folder}/munge.socket",
                         f"--key-file={folder}/munge.key", f"--pid-file={folder}/munged.pid",
                         f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"],
                        ["slurmctld", "-D", "-i"], ["slurmd", "-D"]):
            with (folder / f"{command[0]}.out").open("w") as out:
                processes.append(subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True))
            _until(lambda: (folder / "munge.socket").exists(), "munged", folder)
        _until(lambda: "idle" in _said("sinfo", "--noheader", "--format=%T"), "slurmd", folder)
        yield
    finally:
        _said("scancel", "--user=root")
        until = time.monotonic() + 40  # KillWait, and more
        while _said("squeue", "--noheader", "--states=RUNNING,COMPLETING") and time.monotonic() < until:
            time.sleep(0.5)
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        del os.environ["SLURM_CONF"]


def _until(true, who: str, folder: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            raise RuntimeError(f"{who} did not come up: {(folder / f'{who}.out').read_text()[-2000:]}")
        time.sleep(0.2)


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in opened]
    for one in opened:
        one.close()
    return ports


if __name__ == "__main__":
    if lacking := missing():
        sys.exit(lacking)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), cluster(Path(sys.argv[1]).resolve()):
        print(f"export SLURM_CONF={os.environ['SLURM_CONF']}", flush=True)
        signal.pause()
