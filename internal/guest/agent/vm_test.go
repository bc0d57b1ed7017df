package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/link"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/apt"
	"github.com/smolvm/smolvm/internal/image/debian"
	"github.com/smolvm/smolvm/internal/image/kernel"
	"github.com/smolvm/smolvm/internal/sys/tsc"
)

// kit is what the test's machines boot from.
type kit struct {
	qemu  string
	boot  image.BootFiles
	image string
	khz   uint64
}

func needVM(t *testing.T) kit {
	t.Helper()
	if os.Getenv("SMOLVM_VM_TESTS") != "1" {
		t.Skip("boots a VM: set SMOLVM_VM_TESTS=1")
	}
	var k kit
	var err error
	if k.qemu, err = exec.LookPath("qemu-system-x86_64"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	home := os.Getenv("SMOLVM_HOME")
	if home == "" {
		dir, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		home = filepath.Join(dir, ".local/share/smolvm")
	}
	agent, err := os.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	archive, err := apt.NewArchive(os.Getenv("SMOLVM_DEBIAN_MIRROR"))
	if err != nil {
		t.Fatal(err)
	}
	images := image.New(image.Options{
		Home: home, Version: "test", Kernels: kernel.Source{Archive: archive},
		Builders: []image.Builder{debian.Builder{Archive: archive}},
	})
	img, err := images.Ensure(t.Context(), api.DefaultImage, image.EnsureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := images.EnsureKernel(t.Context(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if k.boot, err = images.BootFiles(t.Context(), pinned, agent); err != nil {
		t.Fatal(err)
	}
	if k.khz, err = tsc.Measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.image = img.Path
	return k
}

// program returns the agent's: the VM lane has built it, at home it is built here.
func program(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("SMOLVM_AGENT"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "init")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", path, "github.com/smolvm/smolvm/cmd/smolvm-guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// machine is a plain QEMU, without the project's driver: what is tested here is the guest.
type machine struct {
	*client.Client
	qmp    *bufio.ReadWriter
	exited chan error
	dial   client.Dialer
}

func (k kit) start(t *testing.T, disk string) *machine {
	t.Helper()
	dir := t.TempDir()
	agent, qmp := filepath.Join(dir, "a"), filepath.Join(dir, "q")
	argv := []string{
		"-M", "microvm", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-accel", "tcg,tb-size=128", "-cpu", "max,-erms",
		"-m", "512", "-kernel", k.boot.Kernel, "-initrd", k.boot.Initrd, "-append",
		fmt.Sprintf("console=ttyS0 reboot=t panic=-1 tsc=reliable tsc_early_khz=%d quiet", k.khz),
		"-serial", "stdio", "-device", "virtio-rng-device", "-qmp", "unix:" + qmp + ",server=on,wait=off",
		"-chardev", "socket,id=agent,path=" + agent + ",server=on,wait=off",
		"-device", "virtio-serial-device,max_ports=2", "-device", "virtserialport,chardev=agent,name=" + link.PortName,
	}
	for _, d := range []struct{ id, path, opt string }{
		{"image", k.image, "read-only=on"}, {"disk", disk, "discard=unmap"}, {"modules", k.boot.Modules, "read-only=on"},
	} {
		argv = append(argv,
			"-blockdev", fmt.Sprintf("driver=raw,node-name=%s,%s,file.driver=file,file.filename=%s", d.id, d.opt, d.path),
			"-device", fmt.Sprintf("virtio-blk-device,id=blk-%s,drive=%s,serial=%s", d.id, d.id, d.id))
	}
	var console bytes.Buffer
	cmd := exec.CommandContext(t.Context(), k.qemu, argv...) //nolint:gosec // a test's own command line
	cmd.Stdout, cmd.Stderr = &console, &console
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m := &machine{exited: make(chan error, 1)}
	gone := make(chan struct{})
	go func() {
		m.exited <- cmd.Wait()
		close(gone)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-gone
		if t.Failed() {
			t.Logf("console:\n%s", console.String())
		}
	})
	q := dialUnix(t, qmp)
	t.Cleanup(func() { _ = q.Close() })
	m.qmp = bufio.NewReadWriter(bufio.NewReader(q), bufio.NewWriter(q))
	m.dial = func(ctx context.Context) (net.Conn, error) { return link.Dial(ctx, dialUnix(t, agent)) }
	m.connect(t)
	return m
}

func dialUnix(t *testing.T, path string) net.Conn {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
		if err == nil {
			return c
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func (m *machine) connect(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var err error
	if m.Client, err = client.New(ctx, m.dial); err != nil {
		t.Fatal(err)
	}
}

// written asks QEMU how much the guest wrote to its disk.
func (m *machine) written(t *testing.T) int64 {
	t.Helper()
	for _, cmd := range []string{"qmp_capabilities", "query-blockstats"} {
		if _, err := fmt.Fprintf(m.qmp, "{\"execute\":%q}\n", cmd); err != nil {
			t.Fatal(err)
		}
		if err := m.qmp.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for {
		line, err := m.qmp.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Return []struct {
				QDev  string `json:"qdev"`
				Stats struct {
					Bytes int64 `json:"wr_bytes"`
					Ops   int64 `json:"wr_operations"`
				} `json:"stats"`
			} `json:"return"`
		}
		if json.Unmarshal(line, &answer) != nil || len(answer.Return) == 0 {
			continue // greeting, event, empty answer
		}
		for _, r := range answer.Return {
			if strings.Contains(r.QDev, "blk-disk") {
				return r.Stats.Bytes + r.Stats.Ops
			}
		}
		t.Fatalf("no statistics of the disk in %s", line)
	}
}

func identity(name string) *proto.ConfigureRequest {
	seed, id := make([]byte, 64), make([]byte, 16)
	_, _ = rand.Read(seed)
	copy(id, name+strings.Repeat("x", 16))
	return &proto.ConfigureRequest{
		Identity: &proto.Identity{Id: name, Hostname: name, MachineId: id}, Seed: seed,
		WallClockNs: time.Now().UnixNano(), DiskUuid: id, Env: map[string]string{"VM": "yes"},
	}
}

func (m *machine) run(t *testing.T, start *proto.ExecStart) output {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	start.ExecId = nextID()
	var out, errs bytes.Buffer
	exit, err := m.Exec(ctx, start, client.Streams{Stdout: &out, Stderr: &errs})
	if err != nil {
		t.Fatalf("Exec: %v", err)
	}
	return output{exit, out.String(), errs.String()}
}

// want runs a script that has to print exactly that.
func (m *machine) want(t *testing.T, script, stdout string) {
	t.Helper()
	if r := m.run(t, sh(script)); r.stdout != stdout || r.GetExitCode() != 0 {
		t.Errorf("%s: printed %q and %q, %v; want %q", script, r.stdout, r.stderr, r.ExecExit, stdout)
	}
}

func TestVMGuest(t *testing.T) {
	k := needVM(t)
	disk := filepath.Join(t.TempDir(), "disk")
	const diskMiB = 1024
	if err := image.NewDisk(disk, diskMiB); err != nil {
		t.Fatal(err)
	}
	m := k.start(t, disk)
	t.Logf("kernel start to hello: %d ms", m.Hello().GetUptimeUs()/1000)
	time.Sleep(time.Second) // a write that is to come would come
	if n := m.written(t); n != 0 {
		t.Errorf("%d bytes and requests were written to the disk before Configure", n)
	}
	conf, err := m.Configure(t.Context(), identity("first"))
	if err != nil {
		t.Fatal(err)
	}
	if conf.GetDiskBytes() < (diskMiB-100)<<20 {
		t.Errorf("the disk has %d bytes", conf.GetDiskBytes())
	}
	t.Run("system", func(t *testing.T) { testSystem(t, m) })
	t.Run("commands", func(t *testing.T) { testCommands(t, m) })
	t.Run("redial", func(t *testing.T) { testRedial(t, m) })
	t.Run("new epoch", func(t *testing.T) { testVMEpoch(t, m) })
	t.Run("full disk", func(t *testing.T) { testFullDisk(t, m) })
	m.want(t, "echo kept > /root/kept; echo x > /tmp/in-tmp", "")
	off(t, m)

	again := k.start(t, disk)
	if _, err := again.Configure(t.Context(), identity("second")); err != nil {
		t.Fatal(err)
	}
	again.want(t, "cat /root/kept /tmp/in-tmp; hostname", "kept\nx\nsecond\n")
	off(t, again)
}

func off(t *testing.T, m *machine) {
	t.Helper()
	if err := m.Shutdown(t.Context(), time.Second); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	select {
	case err := <-m.exited:
		if err != nil {
			t.Errorf("QEMU: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the machine is still on")
	}
}

func testSystem(t *testing.T, m *machine) {
	m.want(t, "hostname; cat /etc/machine-id | cut -c1-10; id -u; pwd; echo $VM $HOME", "first\n6669727374\n0\n/root\nyes /root\n")
	m.want(t, "for d in /dev/pts /dev/shm /dev/mqueue /run /sys/fs/cgroup /proc /sys /usr/lib/modules/$(uname -r); do mountpoint -q $d || echo $d; done", "")
	m.want(t, "stat -c %a /tmp; findmnt -no OPTIONS / | grep -o 'metacopy=on\\|redirect_dir=on' || true", "1777\n")
	m.want(t, "modprobe tun && test -c /dev/net/tun && ip -o link show lo | grep -c UP; ip -o link show eth0 2>/dev/null | grep -c 'state UP' || true", "1\n0\n")
	m.want(t, "cat /proc/self/oom_score_adj /proc/1/oom_score_adj", "0\n-1000\n")
	m.want(t, "getent hosts first | tr -s ' '", "127.0.1.1 first\n")
	if r := m.run(t, sh("date +%s")); r.stdout < fmt.Sprint(time.Now().Add(-time.Minute).Unix()) {
		t.Errorf("the clock says %s", r.stdout)
	}
	if r := m.run(t, sh("tr '\\0' '\\n' < /proc/1/cmdline; ls /sys/fs/cgroup/user/pids.max && cat /sys/fs/cgroup/user/memory.max")); !strings.Contains(r.stdout, "pids.max") {
		t.Errorf("%q %q", r.stdout, r.stderr)
	}
}

func testCommands(t *testing.T, m *machine) {
	m.want(t, "python3 -c 'print(6*7)'", "42\n")
	// A timeout reaches what left session and process group; a normal end does not.
	r := m.run(t, &proto.ExecStart{
		Script: "setsid sleep 1234 & echo begun; sleep 1234", TimeoutMs: 2000,
	})
	if !r.GetTimedOut() || r.stdout != "begun\n" || r.GetExitCode() != 124 {
		t.Errorf("%v, %q", r.ExecExit, r.stdout)
	}
	m.want(t, "pgrep -fc '^sleep 1234' || true", "0\n")
	m.want(t, "sleep 4321 & echo begun", "begun\n")
	m.want(t, "pgrep -fc '^sleep 4321'", "1\n")
	// Orphans are taken away.
	m.want(t, "(sleep 0.1 & ) ; sleep 0.6; ps -eo stat | grep -c Z || true", "0\n")
	m.want(t, "echo $0; wc -c <&0 #"+strings.Repeat("x", proto.InlineShell), "/proc/self/fd/3\n0\n")
	if r := m.run(t, sh("python3 -c 'a = bytearray(2 << 30)'")); r.GetExitCode() == 0 {
		t.Error("a command got more memory than there is")
	}
	if err := m.Ping(t.Context()); err != nil {
		t.Errorf("after a command used all memory: %v", err)
	}
	metrics, err := m.Metrics(t.Context())
	if err != nil || metrics.GetAgentPeakRss() > 32<<20 {
		t.Errorf("%v, %v", metrics, err)
	}
}

func testRedial(t *testing.T, m *machine) {
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := m.ReadFile(ctx, "/usr/bin/python3", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		old := m.Client
		_ = old.Close() // in the middle of frames
		m.connect(t)
		cancel()
		if err := old.Ping(t.Context()); !errdefs.Is(err, errdefs.Unavailable) {
			t.Errorf("the former link: %v", err)
		}
	}
	m.want(t, "echo back", "back\n")
}

func testVMEpoch(t *testing.T, m *machine) {
	file := "/dev/shm/ticks"
	m.want(t, "(while :; do echo >> "+file+"; sleep 0.05; done) >/dev/null 2>&1 & sleep 0.3", "")
	size := func() int64 {
		_ = m.Close()
		m.connect(t) // a restored machine's link is new, too
		st, err := m.Stat(t.Context(), file, false)
		if err != nil {
			t.Fatal(err)
		}
		return st.GetSize()
	}
	// An SSH service, and the key that it shows.
	m.want(t, "mkdir -p -m 755 /run/sshd; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; install -m 600 /dev/null /etc/ssh/ssh_host_rsa_key", "")
	m.want(t, "/usr/sbin/sshd 2>&1; for i in $(seq 100); do [ -s /run/sshd.pid ] && exit; sleep 0.1; done; exit 1", "")
	const shown = "ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null | sed -n 's/^127.0.0.1 //p'"
	former := m.run(t, sh(shown)).stdout
	before, err := m.Stat(t.Context(), file, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Quiesce(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Stat(t.Context(), file, false); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("Stat before Resumed: %v", err)
	}
	time.Sleep(time.Second)
	id := identity("third")
	clock := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	req := &proto.ResumedRequest{Epoch: 1, WallClockNs: clock.UnixNano(), Seed: id.GetSeed(), Identity: id.GetIdentity()}
	for name, half := range map[string]*proto.ResumedRequest{
		"no seed":     {Epoch: 1, WallClockNs: clock.UnixNano(), Identity: id.GetIdentity()},
		"no identity": {Epoch: 1, WallClockNs: clock.UnixNano(), Seed: id.GetSeed()},
		"half of one": {Epoch: 1, WallClockNs: clock.UnixNano(), Seed: id.GetSeed(), Identity: &proto.Identity{Hostname: "x"}},
		"no time":     {Epoch: 1, Seed: id.GetSeed(), Identity: id.GetIdentity()},
	} {
		if err := m.Resumed(t.Context(), half); err == nil {
			t.Errorf("%s: the guest goes on", name)
		}
	}
	if err := m.Resumed(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if n := size() - before.GetSize(); n > 15 {
		t.Errorf("commands ran on before Resumed: %d ticks", n)
	}
	m.want(t, "hostname; date -u +%Y-%m-%d; pkill -f 'tick[s]'", "third\n2031-05-06\n")
	m.want(t, "cat /etc/machine-id; ls /etc/ssh/ssh_host_*", hex.EncodeToString(id.GetIdentity().GetMachineId())+"\n/etc/ssh/ssh_host_ed25519_key\n/etc/ssh/ssh_host_ed25519_key.pub\n")
	now := m.run(t, sh(shown)).stdout
	if now == former || now == "" || former == "" || !strings.HasPrefix(m.run(t, sh("cat /etc/ssh/ssh_host_ed25519_key.pub")).stdout, strings.TrimSpace(now)) {
		t.Errorf("the SSH service shows %q, and before it was %q", now, former)
	}
	m.want(t, "kill $(cat /run/sshd.pid)", "")
}

func testFullDisk(t *testing.T, m *machine) {
	err := m.WriteFile(t.Context(), "/root/big", client.Attr{}, io.LimitReader(endless{}, 2<<30))
	if !errdefs.Is(err, errdefs.Exhausted) {
		t.Errorf("writing more than the disk holds: %v", err)
	}
	m.want(t, "ls -A /root | grep -c big || true", "0\n")
	_, err = m.Exec(t.Context(), &proto.ExecStart{Argv: []string{"true"}, ExecId: nextID()}, client.Streams{})
	if err != nil {
		t.Errorf("Exec after the disk was full: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
