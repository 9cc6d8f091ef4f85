"""The tools: one-shot ones, that make one directory what another one is over ssh, and pairs that keep two alike."""
import http.client
import json
import os
import shutil
import socket
import subprocess

from lab import Lab, free_port, read, run, wait_until


class Daemon:
    def __init__(self, lab, name, config):
        self.lab, self.home = lab, lab.path(f"daemon-{name}")
        lab.started.append(self)
        os.makedirs(self.home)
        with open(self.home + "/conf", "w") as f:
            f.write(config)
        self.log = open(self.home + "/log", "w")
        self.process = subprocess.Popen([lab.bin + "/syncd", "-c", self.home + "/conf", "-s", self.home + "/sock", "-S", self.home + "/state"],
                                        stdout=self.log, stderr=self.log)
        wait_until(f"daemon {name} listens", lambda: os.path.exists(self.home + "/sock"), 20)

    def ctl(self, *arguments):
        return subprocess.run([self.lab.bin + "/syncctl", arguments[0], "-s", self.home + "/sock", *arguments[1:]], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0

    def status(self):
        said = subprocess.run([self.lab.bin + "/syncctl", "status", "--json", "-s", self.home + "/sock"], stdout=subprocess.PIPE).stdout
        return json.loads(said)["folders"][0] if said else dict(state="starting")

    def stop(self):
        self.lab.started.remove(self)
        self.process.terminate()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.home)


class Tools(Lab):
    def syncd(self, source, to, port=None, options=()):
        run(self.bin + "/syncctl", "reconcile", "-q", "--confirm-deletions", "-i", self.path("ssh/key"), "--known-hosts", self.path("ssh/known"),
            "--syncctl-path", self.bin + "/syncctl", *options, source, f"ssh://root@127.0.0.1:{port or self.port}{to}")

    def syncd_openssh(self, source, to):
        self.syncd(source, to, options=["--transport", "ssh"])

    def rsync(self, source, to, port=None, options=()):
        run("rsync", "-a", "--delete", "--exclude=/.syncd", *options, "-e", " ".join(self.ssh(port)), source + "/", f"root@127.0.0.1:{to}/")

    def rsync_z(self, source, to, port=None):
        self.rsync(source, to, port, ["-z"])

    def rsync_durable(self, source, to):
        self.rsync(source, to)
        run("sync", "-f", to)

    def tar(self, source, to):
        subprocess.run(f"tar -C {source} --exclude=./.syncd -cf - . | {' '.join(self.ssh())} root@127.0.0.1 tar -C {to} -xf -", shell=True, check=True)

    def tar_as_promised(self, source, to):
        """The floor of what syncd promises: compressed on the wire, hashed on both sides, on the disk at the end; no index, and no file by itself."""
        subprocess.run(["bash", "-c", f"set -o pipefail; tar -C {source} --exclude=./.syncd -cf - . | tee >(openssl sha256 >/dev/null) | zstd -q -1 -T1 | {' '.join(self.ssh())} root@127.0.0.1 "
                        f"\"bash -c 'zstd -qdc | tee >(openssl sha256 >/dev/null) | tar -C {to} -xf - && sync -f {to}'\""], check=True)

    def cp(self, source, to):
        run("cp", "-a", source + "/.", to)

    def unison(self, source, to, port=None):
        run("unison", "-batch", "-silent", "-auto", "-times", "-perms", "-1", "-confirmbigdel=false", "-ignore", "Path .syncd",
            "-sshargs", " ".join(self.ssh(port)[1:-2]), source, f"ssh://root@127.0.0.1:{port or self.port}/{to}", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# --- pairs: `to` follows what happens in `source`; they are in sync when they are made ---


class Syncd:
    name = "syncd"

    def __init__(self, lab, source, to, port=None, interval="5 min"):
        self.b = Daemon(lab, "b", f"[folder t]\npath = {to}\n")
        self.a = Daemon(lab, "a", f"[folder t]\npath = {source}\nsettle = 0 ms\ninterval = {interval}\n[peer b]\nfolder = t\naddress = ssh://root@127.0.0.1:{port or lab.port}{to}\n"
                        f"identity = {lab.path('ssh/key')}\nknown_hosts = {lab.path('ssh/known')}\nsyncctl_path = {lab.bin}/syncctl\n")
        wait_until("daemons in sync", self.round)

    def round(self):
        """Both say their roots."""
        return self.a.ctl("flush", "t")

    def counted(self):
        """Bytes of the session, in and out, by the daemon's own count."""
        session = self.a.status()["sessions"][0]
        return session["bytes_in"] + session["bytes_out"]

    def look(self):
        pass

    def stop(self):
        self.a.stop()
        self.b.stop()


class Local(http.client.HTTPConnection):
    """HTTP by a local socket: what is asked is not on the wire that is measured."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Syncthing:
    """Two instances that know each other's address, and speak to nobody else. Everything that is not about that is as by default;
    but for the priority of the processes, which is ours."""

    name = "syncthing"
    CONFIG = """<configuration version="36">
<folder id="t" path="{path}" type="sendreceive" rescanIntervalS="3600" fsWatcherEnabled="true" fsWatcherDelayS="10">
{members}<minDiskFree unit="%">0</minDiskFree></folder>
{devices}<gui enabled="true" tls="false"><address>{socket}</address><apikey>bench</apikey></gui>
<options><listenAddress>tcp://127.0.0.1:{port}</listenAddress><globalAnnounceEnabled>false</globalAnnounceEnabled>
<localAnnounceEnabled>false</localAnnounceEnabled><relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled><urAccepted>-1</urAccepted>
<autoUpgradeIntervalH>0</autoUpgradeIntervalH><crashReportingEnabled>false</crashReportingEnabled><startBrowser>false</startBrowser>
<setLowPriority>false</setLowPriority></options></configuration>"""

    def __init__(self, lab, source, to, port=None):
        self.lab, self.roots, self.processes = lab, (source, to), []
        lab.started.append(self)
        self.homes = lab.fresh("syncthing-a", "syncthing-b")
        for home in self.homes:
            run("syncthing", "generate", "--home", home, "--no-default-folder", "--skip-port-probing", stderr=subprocess.DEVNULL)
        self.ids = [subprocess.run(["syncthing", "--home", h, "--device-id"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip() for h in self.homes]
        ports = [free_port(), free_port()]
        devices = "".join(f'<device id="{i}"><address>tcp://127.0.0.1:{p}</address></device>\n' for i, p in zip(self.ids, ports))
        for home, root, own in zip(self.homes, self.roots, ports):
            os.makedirs(root + "/.stfolder", exist_ok=True)
            with open(root + "/.stignore", "w") as f:
                f.write("/.syncd\n")
            with open(home + "/config.xml", "w") as f:
                f.write(self.CONFIG.format(path=root, members="".join(f'<device id="{i}"/>\n' for i in self.ids), devices=devices, socket=home + "/sock", port=own))
            self.processes.append(subprocess.Popen(["syncthing", "serve", "--home", home, "--no-browser", "--no-restart", "--no-upgrade"],
                                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ, STNOUPGRADE="1")))
        wait_until("syncthing in sync", self.in_sync)

    def ask(self, who, method, what):
        connection = Local(self.homes[who] + "/sock")
        try:
            connection.request(method, what, headers={"X-API-Key": "bench"})
            said = connection.getresponse()
            text = said.read()
            return json.loads(text) if said.status == 200 and text else {}
        except (OSError, http.client.HTTPException):
            return {}  # not there yet
        finally:
            connection.close()

    def in_sync(self):
        for me, other in ((0, 1), (1, 0)):
            if self.ask(me, "GET", "/rest/db/status?folder=t").get("state") != "idle":
                return False
            seen = self.ask(me, "GET", f"/rest/db/completion?folder=t&device={self.ids[other]}")
            if not seen.get("globalItems") or seen.get("completion") != 100:
                return False
        return True

    def look(self):
        self.ask(0, "POST", "/rest/db/scan?folder=t")

    def stop(self):
        self.lab.started.remove(self)
        for p in self.processes:
            p.terminate()
        for p in self.processes:
            p.wait()
        for root in self.roots:
            shutil.rmtree(root + "/.stfolder", ignore_errors=True)
            os.unlink(root + "/.stignore")


class Lsyncd:
    """rsyncssh, as its manual shows it; so it waits 15 s for more before it acts. Owner and mode of what it copies are not kept."""

    name = "lsyncd"

    def __init__(self, lab, source, to, port=None):
        self.lab = lab
        lab.started.append(self)
        self.home, = lab.fresh("lsyncd")
        with open(self.home + "/conf", "w") as f:
            f.write(f"""settings {{ nodaemon = true, logfile = "{self.home}/log" }}
sync {{ default.rsyncssh, source = "{source}", host = "root@127.0.0.1", targetdir = "{to}", exclude = {{ "/.syncd" }},
  ssh = {{ port = {port or lab.port}, identityFile = "{lab.path('ssh/key')}", options = {{ UserKnownHostsFile = "{lab.path('ssh/known')}", BatchMode = "yes" }} }} }}
""")
        self.process = subprocess.Popen(["lsyncd", "-nodaemon", self.home + "/conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("lsyncd in sync", lambda: "Startup of" in (read(self.home + "/log") if os.path.exists(self.home + "/log") else ""))

    def look(self):
        pass

    def stop(self):
        self.lab.started.remove(self)
        self.process.terminate()
        self.process.wait()


def here(lab, tools):
    """Those of which the program is installed, and that are wanted. (name, tool) or pairs."""
    def name(tool):
        return tool[0] if isinstance(tool, tuple) else tool.name
    return [t for t in tools if name(t) not in lab.without and (name(t) not in ("unison", "syncthing", "lsyncd") or shutil.which(name(t)))
            and ("zstd" not in name(t) or shutil.which("zstd"))]
