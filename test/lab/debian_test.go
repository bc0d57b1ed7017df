package lab

import (
	"strings"
	"testing"
)

// TestLabDebian: a job has our Debian image for its root, and can use what is in it as on a machine of its own.
func TestLabDebian(t *testing.T) {
	beyondCore(t)
	l := open(t)
	j := l.debian(t, "internal/sys/tail", "^$")
	j.Args = []string{"bash", "-euc", `
		. /etc/os-release; echo "os $VERSION_CODENAME"
		python3 -c 'import ssl, sqlite3, sys; print("python", sys.version_info[:2])'
		ssh -V; sshd -V || true
		unshare --user --map-root-user --mount --pid --fork --mount-proc sh -c 'mount -t tmpfs none /mnt; echo namespaces $$'
		setpriv --reuid 1000 --regid 1000 --clear-groups unshare -Urn ip link add v0 type veth peer name v1; echo veth by itself
		ping -c 1 -q localhost >/dev/null; echo loopback
		for dir in /dev/pts /dev/shm /proc /sys /work /tmp /run /sys/fs/cgroup; do mountpoint -q $dir; done; echo mounts
		qemu-system-x86_64 --version
	`}
	status, out := l.run(t, j)
	for _, want := range []string{"os trixie\n", "python (3, 13)\n", "OpenSSH_", "namespaces 1\n", "veth by itself\n", "loopback\n", "mounts\n", "QEMU emulator version 10."} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not print %q", want)
		}
	}
	if status != 0 {
		t.Errorf("it ends with status %d", status)
	}
}
