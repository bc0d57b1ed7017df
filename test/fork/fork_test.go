package fork

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/firecracker"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/sys/filecopy"
	"github.com/smolvm/smolvm/internal/sys/launch"
)

// The test program is the launcher, too, which the engine re-executes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == launch.Command {
		os.Exit(launch.Main())
	}
	os.Exit(m.Run())
}

const (
	// patience is for a boot or a restore below two hypervisors on a busy machine.
	patience = 4 * time.Minute
	// grown is how old a guest must be: before that its kernel takes a new seed every few seconds, which hides what is tested.
	grown = 61 * time.Second
)

// kit is what machines boot from.
type kit struct {
	engine *firecracker.Engine
	image  api.Image
	boot   image.BootFiles
}

func needLab(t *testing.T) kit {
	t.Helper()
	if os.Getenv("SMOLVM_LAB_INSIDE") != "1" {
		t.Skip("needs a working KVM and Firecracker; script/test lab runs it")
	}
	agent, err := os.ReadFile(os.Getenv("SMOLVM_AGENT"))
	must(t, err)
	images := image.New(image.Options{Home: os.Getenv("SMOLVM_HOME"), Version: "lab"})
	k := kit{engine: firecracker.New(firecracker.Options{})}
	k.image, err = images.Ensure(t.Context(), api.DefaultImage, image.EnsureOptions{})
	must(t, err)
	pinned, err := images.EnsureKernel(t.Context(), false, nil)
	must(t, err)
	k.boot, err = images.BootFiles(t.Context(), pinned, agent)
	must(t, err)
	return k
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// machine is one with its agent.
type machine struct {
	engine.Machine
	*client.Client
	spec engine.Spec
}

func open(t *testing.T, path string, flag int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flag, 0o600)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// spec is a machine; disk is what its disk begins with, nil for a new one.
func (k kit) spec(t *testing.T, disk *os.File) engine.Spec {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	if disk == nil {
		must(t, image.NewDisk(path, 1024))
	} else {
		must(t, filecopy.Clone(t.Context(), open(t, path, os.O_RDWR|os.O_CREATE|os.O_EXCL), disk))
	}
	s := engine.Spec{
		Name: "fork", CPUs: 1, MemoryMiB: 256, Accel: "kvm", Cmdline: "quiet loglevel=4",
		Kernel: open(t, k.boot.Kernel, os.O_RDONLY), Initrd: open(t, k.boot.Initrd, os.O_RDONLY),
		Drives: []engine.Drive{
			{ID: "image", File: open(t, k.image.Path, os.O_RDONLY), ReadOnly: true},
			{ID: "disk", File: open(t, path, os.O_RDWR)},
			{ID: "modules", File: open(t, k.boot.Modules, os.O_RDONLY), ReadOnly: true},
		},
		NIC: &engine.NIC{MAC: net.HardwareAddr{2, 0x53, 0x4d, 0, 0, 1}, MTU: 1500, Take: func(f *os.File) error {
			t.Cleanup(func() { _ = f.Close() })
			return nil
		}},
		AgentPath: filepath.Join(dir, "agent.sock"), Console: writer{t},
	}
	if launch.IsRoot() {
		s.UID = 1_900_065_500
	}
	return s
}

// writer has the console in the test's log.
type writer struct{ t *testing.T }

func (w writer) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "panic") {
		w.t.Logf("console: %s", p)
	}
	return len(p), nil
}

// twice does what dies here now and then once more, and tells.
func twice(t *testing.T, what string, do func(ctx context.Context) (*machine, error)) *machine {
	t.Helper()
	for i := 0; ; i++ {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		m, err := do(ctx)
		cancel()
		if err == nil {
			t.Cleanup(func() { _ = m.Stop(context.WithoutCancel(t.Context()), 0) })
			return m
		}
		if i > 0 {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("TRIED ONCE MORE: %s: %v", what, err)
	}
}

func identity(name string) *proto.Identity {
	return &proto.Identity{Id: name, Hostname: name, MachineId: []byte(name + strings.Repeat("x", 16))[:16]}
}

func network(last int) *proto.Network {
	return &proto.Network{Address: fmt.Sprintf("10.7.0.%d/24", last), Gateway: "10.7.0.1", Dns: "10.7.0.1", Mtu: 1500}
}

func seed() []byte {
	b := make([]byte, 64)
	_, _ = rand.Read(b)
	return b
}

// start boots a machine that takes logins.
func (k kit) start(t *testing.T) *machine {
	t.Helper()
	return twice(t, "boot", func(ctx context.Context) (*machine, error) {
		m := &machine{spec: k.spec(t, nil)}
		var err error
		if m.Machine, err = k.engine.Start(ctx, m.spec); err != nil {
			return nil, err
		}
		if m.Client, err = client.New(ctx, m.DialGuest); err == nil {
			_, err = m.Configure(ctx, &proto.ConfigureRequest{
				Identity: identity("first"), Seed: seed(), WallClockNs: time.Now().UnixNano(), DiskUuid: make([]byte, 16), Network: network(2),
				AuthorizedKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1nobodys+key+nobodys+key+nobodys+key+nobody0 test"},
			})
		}
		if err != nil {
			_ = m.Stop(ctx, 0)
			return nil, err
		}
		return m, nil
	})
}

// restore makes a machine of a snapshot, and has its guest be another.
func (k kit) restore(ctx context.Context, t *testing.T, dir string, disk *os.File, req *proto.ResumedRequest) (*machine, error) {
	m := &machine{spec: k.spec(t, disk)}
	var err error
	if m.Machine, err = k.engine.Restore(ctx, m.spec, dir); err != nil {
		return nil, err
	}
	if err = m.Machine.(engine.Pauser).Resume(ctx); err == nil {
		m.Client, err = client.Awaken(ctx, m.DialGuest, req)
	}
	if err != nil {
		_ = m.Stop(ctx, 0)
		return nil, err
	}
	return m, nil
}

var execs struct {
	sync.Mutex
	n int
}

func (m *machine) sh(t *testing.T, script string) string {
	t.Helper()
	execs.Lock()
	execs.n++
	id := "e" + strconv.Itoa(execs.n)
	execs.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	exit, err := m.Exec(ctx, &proto.ExecStart{Argv: []string{"sh", "-c", script}, ExecId: id}, client.Streams{Stdout: &out, Stderr: &errs})
	if err != nil || exit.GetExitCode() != 0 {
		t.Fatalf("%s: %v, %v\n%s%s", script, exit, err, &out, &errs)
	}
	return strings.TrimSpace(out.String())
}

// facts are what two machines must not share, each with the script that prints it.
func facts() map[string]string {
	return map[string]string{
		"random numbers":  "head -c 32 /dev/urandom | od -An -tx1",
		"more of them":    "python3 -c 'import os; print(os.getrandom(32).hex())'",
		"machine id":      "cat /etc/machine-id",
		"hostname":        "hostname; cat /etc/hostname",
		"address":         "ip -4 -o addr show eth0 2>/dev/null || hostname -I",
		"host key's file": "cat /etc/ssh/ssh_host_ed25519_key.pub",
		"host key":        "ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null",
	}
}

// TestLabFork: two machines of one snapshot, side by side, have nothing in common that they must not, and the same processes.
func TestLabFork(t *testing.T) {
	k := needLab(t)
	m := k.start(t)
	pid := m.sh(t, "(while :; do echo >>/dev/shm/ticks; sleep 0.1; done) >/dev/null 2>&1 & echo $!")
	m.sh(t, "for i in $(seq 600); do [ -s /run/sshd.pid ] && exit; sleep 0.1; done; exit 1")
	m.sh(t, "echo on the disk >/root/file; sync")
	age := m.sh(t, fmt.Sprintf("read -r up _ </proc/uptime; up=${up%%.*}; [ $up -ge %[1]d ] || sleep $((%[1]d - up)); cat /proc/uptime", int(grown.Seconds())))
	t.Logf("the guest is %s s old", age)
	started := m.sh(t, "stat -c %Y /proc/"+pid+"; cut -d' ' -f22 /proc/"+pid+"/stat")
	before := map[string]string{}
	for what, script := range facts() {
		before[what] = m.sh(t, script)
	}

	must(t, m.Quiesce(t.Context(), 1))
	p := m.Machine.(engine.Pauser)
	must(t, p.Pause(t.Context()))
	dir := t.TempDir()
	begun := time.Now()
	must(t, m.Machine.(engine.Snapshotter).Snapshot(t.Context(), dir))
	t.Logf("the snapshot took %s", time.Since(begun))
	disk := open(t, filepath.Join(t.TempDir(), "disk"), os.O_RDWR|os.O_CREATE)
	must(t, filecopy.Clone(t.Context(), disk, m.spec.Drives[1].File))
	must(t, p.Resume(t.Context()))
	_ = m.Close()
	var err error
	m.Client, err = client.Awaken(t.Context(), m.DialGuest, &proto.ResumedRequest{Epoch: 1, Seed: seed(), Identity: identity("first"), Network: network(2)})
	must(t, err)
	if got := m.sh(t, "cat /etc/machine-id"); got != before["machine id"] {
		t.Errorf("the machine itself has the id %s now, not %s", got, before["machine id"])
	}
	time.Sleep(3 * time.Second) // a clock that went on from the snapshot would be late by that

	clones := make([]*machine, 2)
	var all sync.WaitGroup
	for i := range clones {
		all.Go(func() {
			clones[i] = twice(t, "restore", func(ctx context.Context) (*machine, error) {
				begun := time.Now()
				req := &proto.ResumedRequest{Epoch: 2, Seed: seed(), Identity: identity(fmt.Sprintf("clone-%d", i)), Network: network(10 + i)}
				c, err := k.restore(ctx, t, dir, disk, req)
				t.Logf("clone %d: load, resume and the agent's answer took %s", i, time.Since(begun))
				return c, err
			})
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for what, script := range facts() {
		a, b := clones[0].sh(t, script), clones[1].sh(t, script)
		if a == "" || a == b || a == before[what] || b == before[what] {
			t.Errorf("%s: %q and %q, and before the snapshot %q", what, a, b, before[what])
		}
	}
	for i, c := range clones {
		seconds, err := strconv.ParseInt(c.sh(t, "date +%s"), 10, 64)
		must(t, err)
		if off := time.Since(time.Unix(seconds, 0)); off < -time.Second || off > 2*time.Second {
			t.Errorf("clone %d: its clock is late by %s", i, off)
		}
		if got := c.sh(t, "stat -c %Y /proc/"+pid+"; cut -d' ' -f22 /proc/"+pid+"/stat"); got[strings.Index(got, "\n"):] != started[strings.Index(started, "\n"):] {
			t.Errorf("clone %d: process %s is another one: %q, %q", i, pid, got, started)
		}
		ticks := "wc -c </dev/shm/ticks"
		if one, two := c.sh(t, ticks), c.sh(t, "sleep 1; "+ticks); one == two {
			t.Errorf("clone %d: process %s does not go on", i, pid)
		}
		if got := c.sh(t, "cat /root/file; echo "+strconv.Itoa(i)+" >/root/file; sync"); got != "on the disk" {
			t.Errorf("clone %d: on its disk is %q", i, got)
		}
		if line := c.sh(t, "ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null | sed -n 's/^127.0.0.1 //p'"); !strings.HasPrefix(c.sh(t, "cat /etc/ssh/ssh_host_ed25519_key.pub"), line) {
			t.Errorf("clone %d: its SSH service shows another key than its file has", i)
		}
	}
	if got := m.sh(t, "cat /root/file"); got != "on the disk" {
		t.Errorf("the machine itself has %q on its disk", got)
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for name, req := range map[string]*proto.ResumedRequest{
		"no seed":     {Epoch: 2, Identity: identity("x")},
		"no identity": {Epoch: 2, Seed: seed()},
		"no epoch":    {Epoch: 0, Seed: seed(), Identity: identity("x")},
		"bad network": {Epoch: 2, Seed: seed(), Identity: identity("x"), Network: &proto.Network{Address: "nowhere"}},
	} {
		if c, err := k.restore(ctx, t, dir, disk, req); err == nil {
			t.Errorf("%s: there is a machine that does not know who it is", name)
			_ = c.Stop(ctx, 0)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}
