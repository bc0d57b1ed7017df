package vm

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestVMServices: what a guest has set up for those who work in it.
func TestVMServices(t *testing.T) {
	c := program(t)
	id := c.vm(t, "services", "--memory", "512")
	for _, tt := range []struct{ name, script, want string }{
		{"core dumps", "ulimit -c; ulimit -Hc; cat /proc/sys/kernel/core_pattern; cd /tmp && sh -c 'kill -SEGV $$'; ls /tmp | grep core", "0\n0\n|/bin/false\n"},
		{"limits", "ulimit -n; ulimit -Hn; cat /proc/sys/fs/inotify/max_user_watches /proc/sys/vm/max_map_count", "65536\n1048576\n524288\n262144\n"},
		{"hosts", "getent hosts localhost | grep -c . ; getent hosts $(hostname) | awk '{ print $1 }'; grep -c '^127.0.0.1 localhost' /etc/hosts", "1\n127.0.1.1\n1\n"},
		{"modules", "for m in tun bridge nf_tables overlay; do modprobe $m && [ -d /sys/module/$m ] || echo no $m; done; [ -c /dev/net/tun ] && echo tun", "tun\n"},
		{"directories of container engines", `for d in docker containers containerd; do stat -f -c %T /var/lib/$d; done
			cd /var/lib/containers && mkdir -p l u w m && echo low >l/f && mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m &&
			cat m/f && echo up >m/f && cat u/f && umount m && echo kept >/var/lib/docker/kept && sync`, "ext2/ext3\next2/ext3\next2/ext3\nlow\nup\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := c.exec(t, id, "bash", "-c", tt.script)
			if r.stdout != tt.want {
				t.Errorf("it says\n%s%s\nwant\n%s", r.stdout, r.stderr, tt.want)
			}
		})
	}
	t.Run("clock", func(t *testing.T) { clockKept(t, c, id) })
	c.ok(t, "stop", id)
	c.ok(t, "start", id)
	if got := c.sh(t, id, "cat /var/lib/docker/kept"); got != "kept\n" {
		t.Errorf("what lay in /var/lib/docker is %q after a new start", got)
	}
}

// clockKept: a guest whose clock is wrong after a pause gets the host's. A jump of the host's own no test may make.
func clockKept(t *testing.T, c cli, id string) {
	c.sh(t, id, "date -s @1000000000")
	c.ok(t, "pause", id)
	c.ok(t, "unpause", id)
	eventually(t, 20*time.Second, "the guest's clock set", func() bool {
		seconds, err := strconv.ParseInt(strings.TrimSpace(c.sh(t, id, "date +%s")), 10, 64)
		return err == nil && time.Since(time.Unix(seconds, 0)).Abs() < 10*time.Second
	})
}
