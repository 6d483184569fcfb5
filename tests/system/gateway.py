"""tgtd with our module, in a mount namespace of its own, for the system tests of iSCSI."""
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
import uuid

from harness import BUILD, check, run, skip

IQN = "iqn.2014-04.com.pstorage:test"
SEGMENTS = {"MaxRecvDataSegmentLength": "262144", "MaxXmitDataSegmentLength": "262144",
            "MaxBurstLength": "1048576", "FirstBurstLength": "262144", "InitialR2T": "No",
            "MaxOutstandingR2T": "4"}
# Buffers of large requests stay in the heap (as pstorage-iscsi starts tgtd).
HEAP = {"MALLOC_MMAP_THRESHOLD_": "134217728", "MALLOC_TRIM_THRESHOLD_": "536870912",
        "MALLOC_TOP_PAD_": "67108864"}


def require():
    if os.geteuid() != 0:
        skip("needs root for a mount namespace")
    for tool in ("tgtd", "tgtadm", "unshare"):
        if run("which", tool, ok=False)[0] != 0:
            skip(f"{tool} is not installed: run scripts/install-deps")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Gateway:
    """One tgtd with one target. `luns`: LUN -> (NBD URI, bytes); they come back after restart().
    `segments`: parameters of the target; {}: tgtd as it is by default."""

    def __init__(self, luns, patience=20, reservations_uri=None, segments=None):
        self.directory = tempfile.TemporaryDirectory(prefix="pstorage-gateway-")
        self.luns = dict(luns)
        self.uuids = {lun: str(uuid.uuid4()) for lun in luns}
        self.patience = patience
        self.reservations_uri = reservations_uri  # instead of a file of this gateway
        self.segments = SEGMENTS if segments is None else segments
        self.port = free_port()
        self.control = random.randrange(1, 30000)
        self.environment = dict(os.environ, **(HEAP if segments is None else {}),
                                TGT_IPC_SOCKET=os.path.join(self.directory.name, "tgtd"))
        self.process = None
        self.initiators = []  # they would reconnect for ever
        self.start()

    def start(self):
        script = ('mkdir -p /usr/lib/tgt/backing-store; mount --bind "$1" /usr/lib/tgt/backing-store;'
                  ' exec tgtd --foreground --control-port "$2" --iscsi "portal=127.0.0.1:$3"')
        with open(self.log_path(), "ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "slave", "bash", "-ec", script, "tgtd",
                 os.path.join(BUILD, "tgt"), str(self.control), str(self.port)],
                env=self.environment, stdout=log, stderr=log)
        end = time.monotonic() + 10
        while self.adm("--op", "show", "--mode", "system", ok=False)[0] != 0:
            check(time.monotonic() < end and self.process.poll() is None, "tgtd does not come up")
            time.sleep(0.05)
        self.adm("--op", "new", "--mode", "target", "--tid", "1", "--targetname", IQN)
        for name, value in self.segments.items():
            self.adm("--op", "update", "--mode", "target", "--tid", "1", "--name", name,
                     "--value", value)
        for lun in self.luns:
            self.add(lun)
        self.adm("--op", "bind", "--mode", "target", "--tid", "1", "--initiator-address", "ALL")

    def add(self, lun):
        uri, size = self.luns[lun]
        kept = (f"reservations-uri={self.reservations_uri}" if self.reservations_uri else
                f"reservations={self.directory.name}/reservations.{lun}")
        options = f"size={size};uuid={self.uuids[lun]};patience={self.patience};{kept}"
        self.adm("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", str(lun),
                 "--bstype", "pstorage", "--backing-store", uri, "--bsopts", options)

    def resize(self, lun, size):
        self.luns[lun] = (self.luns[lun][0], size)
        self.adm("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", str(lun),
                 "--params", f"pst_size={size}")

    def adm(self, *arguments, ok=True):
        return run("tgtadm", "--control-port", str(self.control), "--lld", "iscsi", *arguments,
                   ok=ok, env=self.environment)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def url(self, lun=1):
        return f"iscsi://127.0.0.1:{self.port}/{IQN}/{lun}"

    def log_path(self):
        return os.path.join(self.directory.name, "tgtd.log")

    def do(self, initiator, *words, lun=1):
        """What one SCSI command answered, without the unit attentions before it."""
        lines = run(os.path.join(BUILD, "bin", "iscsi_do"), self.url(lun),
                    "iqn.2026-11.test:" + initiator, *[str(word) for word in words])[1].splitlines()
        return [line for line in lines if not line.startswith("UNIT ATTENTION")]

    def start_tool(self, tool, lun, *words):
        process = subprocess.Popen(
            [os.path.join(BUILD, "bin", tool), self.url(lun), *[str(word) for word in words]],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ, **HEAP))
        self.initiators.append(process)
        return process

    def start_load(self, *words, lun=1):
        return self.start_tool("iscsi_load", lun, *words)

    def load(self, *words, lun=1):
        return load_result(self.start_load(*words, lun=lun))

    def down(self):
        for process in self.initiators:
            if process.poll() is None:
                process.kill()
            process.communicate()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        self.directory.cleanup()


def load_result(process, timeout=120):
    output = process.communicate(timeout=timeout)[0]
    check(output.strip().startswith("{") or "{" in output, f"the load ended with:\n{output}")
    result = json.loads(output[output.index("{"):])
    result["exit"] = process.returncode
    result["output"] = output
    return result


@contextlib.contextmanager
def gateway(luns, **options):
    one = Gateway(luns, **options)
    try:
        yield one
    except BaseException:
        with open(one.log_path(), encoding="utf-8", errors="replace") as file:
            print(f"---- tgtd\n{''.join(file.readlines()[-30:])}", flush=True)
        raise
    finally:
        one.down()
