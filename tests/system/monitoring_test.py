#!/usr/bin/env python3
"""What the daemons show over HTTP: metrics that count what happened, health, the status page with its
password, and clients that send garbage. With 'page_in_a_browser' the page in headless Chromium."""
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from harness import BUILD, ROOT, check, cluster, main, run

SAMPLE = re.compile(r'^([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*\})? ([0-9.e+-]+)$')


def get(address, path, password=None):
    """(status, text)"""
    request = urllib.request.Request(f"http://{address}{path}")
    if password is not None:
        token = base64.b64encode(f"admin:{password}".encode()).decode()
        request.add_header("Authorization", "Basic " + token)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metrics(address):
    """{sample with its labels: value}, after a look at the form."""
    status, text = get(address, "/metrics")
    check(status == 200 and text.endswith("\n# EOF\n"), f"{address}: {status}")
    values, family, families = {}, None, set()
    for line in text.splitlines()[:-1]:
        if line.startswith("# TYPE "):
            family = line.split()[2]
            check(family not in families, f"the family {family} comes twice")
            families.add(family)
        elif not line.startswith("# "):
            found = SAMPLE.match(line)
            check(found and found[1].startswith(family), f"not a sample of {family}: {line}")
            check(found[1] + (found[2] or "") not in values, f"twice: {line}")
            values[found[1] + (found[2] or "")] = float(found[3])
    return values


def address_of(one, name):
    """Where the daemon's metrics are."""
    if name == "nbd":
        with open(f"{one.home}/logs/nbd.log", encoding="utf-8") as log:
            return re.findall(r"serving metrics at=(\S+)", log.read())[-1]
    with open(f"{one.home}/{name}/metrics.address", encoding="ascii") as file:
        return file.read().strip()


def write(one, megabytes):
    with tempfile.TemporaryDirectory(prefix="pstorage-monitoring-") as directory:
        path = os.path.join(directory, "data")
        with open(path, "wb") as file:
            file.write(os.urandom(megabytes << 20))
        run("nbdcopy", "--flush", path, one.uri("vm1"))


def dashboard_asks_for_what_is_there(samples):
    """Each metric of the Grafana dashboard, and each label that it sums by or shows."""
    exported = {}
    for sample in samples:
        name, _, labels = sample.partition("{")
        exported.setdefault(name, set()).update(re.findall(r'([a-z]+)="', labels))
    with open(f"{ROOT}/scripts/service/grafana-dashboard.json", encoding="utf-8") as file:
        targets = [target for panel in json.load(file)["panels"] for target in panel["targets"]]
    for target in targets:
        expression = target["expr"]
        labels = set(re.findall(r"\{([a-z]+)[!=]", expression)
                     + re.findall(r"\{\{([a-z]+)\}\}", target["legendFormat"])
                     + ", ".join(re.findall(r"by \(([a-z, ]+)\)", expression)).split(", "))
        names = re.findall(r"pstorage_[a-z_]+", expression)
        check(names, f"the dashboard asks for nothing: {expression}")
        for name in names:
            check(name in exported, f"the dashboard asks for {name}, which no daemon exports")
            # These two are Prometheus' own.
            unknown = labels - exported[name] - {"", "instance", "job"}
            check(not unknown, f"the dashboard asks for labels that {name} has not: {unknown}")
    check("pstorage_mds_log_commit_duration_seconds_bucket" in str(targets), "the MDS' log")


def until(condition, what, patience=30):
    end = time.monotonic() + patience
    while not condition():
        check(time.monotonic() < end, f"not within {patience} s: {what}")
        time.sleep(0.1)


def throw_garbage(address):
    host, port = address.rsplit(":", 1)
    for count in (1, 100, 20_000):
        subprocess.run(["bash", "-c", f"head --bytes {count} /dev/urandom >/dev/tcp/{host}/{port}"],
                       check=False, stderr=subprocess.DEVNULL)


def what_happens_is_counted_and_a_dead_server_is_told_of():
    with cluster(cs=3, replicas="3:2") as one:
        one.volume("vm1", "256M")
        write(one, 16)
        nbd, cs, mds = (metrics(address_of(one, name)) for name in ("nbd", "cs1", "mds1"))
        check(nbd['pstorage_volume_bytes_total{volume="vm1",operation="write"}'] == 16 << 20,
              "bytes written")
        name = 'pstorage_volume_request_duration_seconds_{}{{volume="vm1",operation="write"{}}}'
        writes = nbd[name.format("count", "")]
        check(writes > 0 and nbd[name.format("bucket", ',le="+Inf"')] == writes, "histogram")
        check(nbd[name.format("sum", "")] > 0, "a write takes time")
        client = 'pstorage_client_cs_request_duration_seconds_count{{cs="{}",operation="write"}}'
        check(all(nbd[client.format(number)] > 0 for number in (1025, 1026, 1027)), "by CS")
        check(cs['pstorage_cs_bytes_total{operation="write"}'] >= 16 << 20, "at the CS")
        check(cs["pstorage_cs_journal_commit_duration_seconds_count"] > 0, "commits")
        commits = mds["pstorage_mds_log_commit_duration_seconds_count"]
        check(0 < commits <= mds["pstorage_mds_commits_total"]
              and mds["pstorage_mds_log_commit_duration_seconds_sum"] > 0, "commits of the log")
        check(mds['pstorage_cluster_health{state="healthy"}'] == 1, "health")
        check(mds["pstorage_mds_is_master"] == 1 and mds["pstorage_cluster_clients"] == 1, "mds")
        dashboard_asks_for_what_is_there([*nbd, *cs, *mds])
        for daemon in ("nbd", "cs1", "mds1"):
            check(get(address_of(one, daemon), "/healthz") == (200, "ok\n"), daemon)
            throw_garbage(address_of(one, daemon))
            check(get(address_of(one, daemon), "/healthz") == (200, "ok\n"), "after garbage")
        one.kill("cs2")
        until(lambda: metrics(address_of(one, "mds1"))[
            'pstorage_cluster_cs_up{cs="1026",host="%s"}' % os.uname().nodename.split(".")[0]] == 0,
              "the dead chunk server is told of")
        the_page_wants_the_password(one)
        # With one replica of three and a minimum of two, writes wait: the NBD server says so.
        one.kill("cs3")
        writer = subprocess.Popen(["nbdcopy", __file__, one.uri("vm1")],
                                  stderr=subprocess.DEVNULL)
        until(lambda: get(address_of(one, "nbd"), "/healthz")[0] == 503, "the volume waits")
        text = get(address_of(one, "nbd"), "/healthz")[1]
        check(text.startswith("vm1: ") and "replicas" in text, text)
        one.start("cs3")
        check(writer.wait(60) == 0, "the write went on when a replica came back")
        until(lambda: get(address_of(one, "nbd"), "/healthz")[0] == 200, "nothing waits")


def the_page_wants_the_password(one):
    address = address_of(one, "mds1")
    check(get(address, "/")[0] == 401, "without a password")
    check(get(address, "/status.json", "wrong")[0] == 401, "with a wrong one")
    # After a wrong one the next is looked at a second later.
    until(lambda: get(address, "/", "devcluster")[0] == 200, "the page with the password")
    status, text = get(address, "/status.json", "devcluster")
    data = json.loads(text)
    check(status == 200 and data["status"]["cluster"] == "dev", text[:200])
    check(data["volumes"][0]["name"] == "vm1" and data["volumes"][0]["size"] == 256 << 20,
          f"volumes: {data['volumes']}")
    check("nbd" in data["volumes"][0]["holder"] or not data["volumes"][0]["holder"], "holder")
    check(any("CS#1026" in event["text"] for event in data["events"]), "events")
    check(get(address, "/../etc/passwd", "devcluster")[0] == 404, "no files")


def options_move_it_and_turn_it_off():
    with cluster(cs=1, replicas="1:1") as one:
        one.kill("cs1")
        noted = f"{one.home}/cs1/metrics.address"
        os.unlink(noted)
        os.unlink(f"{one.home}/cs1/csd.pid")  # a killed one leaves it

        def csd(given):
            return subprocess.Popen(
                [os.path.join(BUILD, "bin", "csd"), "-r", f"{one.home}/cs1", "--metrics", given],
                env=one.environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        daemon = csd("off")
        until(lambda: os.path.exists(f"{one.home}/cs1/csd.pid"), "csd runs")
        daemon.terminate()
        text = daemon.communicate(timeout=30)[1]
        check("is ready" in text and "serving metrics" not in text, f"off: {text}")
        check(not os.path.exists(noted), "off, and yet it is noted where they are")
        taken = address_of(one, "mds1")
        for given, why in ((taken, "another program|in use"), ("127.0.0.1:x", "port")):
            daemon = csd(given)
            text = daemon.communicate(timeout=30)[1]
            check(daemon.returncode == 1 and re.search("--metrics: .*(" + why + ")", text),
                  f"{given}: {text}")


def page_in_a_browser():
    """Screenshots go to PSTORAGE_SCREENSHOTS, if that is set."""
    browser = shutil.which("chromium")
    if browser is None:
        print("SKIP: there is no chromium")
        sys.exit(77)
    with cluster(cs=3, replicas="3:2") as one:
        one.volume("vm1", "256M")
        one.volume("<b>&amp;\"vm2", "64M")  # a name is shown as it is
        write(one, 64)
        one.kill("cs2")
        until(lambda: "inactive" in one.pstorage("-q", "stat"), "the dead server is inactive")
        write(one, 32)
        with tempfile.TemporaryDirectory(prefix="pstorage-browser-") as directory:
            def browse(*options):
                return subprocess.run(
                    [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                     "--no-first-run", "--disable-background-networking", "--disable-sync",
                     "--disable-component-update", f"--user-data-dir={directory}",
                     "--window-size=1280,1500", "--virtual-time-budget=16000", *options,
                     f"http://admin:devcluster@{address_of(one, 'mds1')}/"],
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=120,
                    check=True).stdout
            page = browse("--dump-dom")
            kept = os.environ.get("PSTORAGE_SCREENSHOTS")
            if kept:
                browse(f"--screenshot={kept}/status-page.png")
        for part in ('<title>dev: degraded</title>', "1 inactive", "2 of 3", "<td>vm1</td>",
                     '&lt;b&gt;&amp;amp;"vm2', "The cluster is degraded", "<polyline",
                     '<span class="tag warn">inactive</span>'):
            check(part in page, f"the page does not show {part}:\n{page[:3000]}")


if __name__ == "__main__":
    tests = [what_happens_is_counted_and_a_dead_server_is_told_of, options_move_it_and_turn_it_off]
    main(*(tests if "page_in_a_browser" not in sys.argv else [page_in_a_browser]))
