package card

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed" // the guest's side
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/firecracker"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/gateway/process"
	"github.com/smolvm/smolvm/internal/supervisor/uplink"
	"github.com/smolvm/smolvm/internal/sys/launch"
)

//go:embed guest.py
var guestProgram string

// The test program is the launcher, which the engine re-executes, and the gateway.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case launch.Command:
			os.Exit(launch.Main())
		case control.Command:
			os.Exit(process.Main(context.Background()))
		}
	}
	os.Exit(m.Run())
}

const (
	// patience is for a boot, and for a transfer, below two hypervisors on a busy machine.
	patience = 10 * time.Minute
	// size is what goes each way.
	size = 32 << 20
)

func needLab(t *testing.T) {
	t.Helper()
	if os.Getenv("SMOLVM_LAB_INSIDE") != "1" {
		t.Skip("needs a working KVM and Firecracker; script/test lab runs it")
	}
	must(t, loopback())
}

// loopback puts this machine's loopback up, which nobody did where we are the first program.
func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string, flag int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flag, 0o600)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// guest is a machine with its agent, behind a gateway.
type guest struct {
	*client.Client
	up *uplink.Uplink
}

// start boots a machine whose gateway lets it reach one port of this host's loopback; a plain gateway uses no offloads.
func start(t *testing.T, port string, plain bool, mtu uint32) *guest {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	agent, err := os.ReadFile(os.Getenv("SMOLVM_AGENT"))
	must(t, err)
	images := image.New(image.Options{Home: os.Getenv("SMOLVM_HOME"), Version: "lab"})
	root, err := images.Ensure(ctx, api.DefaultImage, image.EnsureOptions{})
	must(t, err)
	pinned, err := images.EnsureKernel(ctx, false, nil)
	must(t, err)
	boot, err := images.BootFiles(ctx, pinned, agent)
	must(t, err)

	dir := t.TempDir()
	up, err := uplink.Start(context.WithoutCancel(ctx), uplink.Options{Names: filepath.Join(dir, "names.jsonl"), Plain: plain, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	must(t, err)
	t.Cleanup(func() { _ = up.Close() })
	must(t, up.SetPolicy(ctx, api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{
		{Action: api.RuleAllow, Host: network.HostName, Ports: []string{port}},
	}}))
	disk := filepath.Join(dir, "disk")
	must(t, image.NewDisk(disk, 1024))
	spec := engine.Spec{
		Name: "card", CPUs: 1, MemoryMiB: 256, Accel: "kvm", Cmdline: "quiet loglevel=4",
		Kernel: open(t, boot.Kernel, os.O_RDONLY), Initrd: open(t, boot.Initrd, os.O_RDONLY),
		Drives: []engine.Drive{
			{ID: "image", File: open(t, root.Path, os.O_RDONLY), ReadOnly: true},
			{ID: "disk", File: open(t, disk, os.O_RDWR)},
			{ID: "modules", File: open(t, boot.Modules, os.O_RDONLY), ReadOnly: true},
		},
		NIC:       &engine.NIC{FD: up.NIC(), Take: up.Take, MAC: control.GuestMAC(), MTU: control.MTU},
		AgentPath: filepath.Join(dir, "agent.sock"), Console: io.Discard,
	}
	if launch.IsRoot() {
		spec.UID = 1_900_065_501
	}
	m, err := firecracker.New(firecracker.Options{}).Start(ctx, spec)
	must(t, err)
	t.Cleanup(func() { _ = m.Stop(context.WithoutCancel(ctx), 0) })
	g := &guest{up: up}
	g.Client, err = client.New(ctx, m.DialGuest)
	must(t, err)
	t.Cleanup(func() { _ = g.Close() })
	seed := make([]byte, 64)
	_, _ = rand.Read(seed)
	_, err = g.Configure(ctx, &proto.ConfigureRequest{
		Identity: &proto.Identity{Id: "card", Hostname: "card", MachineId: bytes.Repeat([]byte{7}, 16)}, Seed: seed, DiskUuid: make([]byte, 16),
		WallClockNs: time.Now().UnixNano(),
		Network: &proto.Network{
			Address: control.Guest().String(), Gateway: control.Gateway().String(), Dns: control.Gateway().String(), Mtu: mtu,
		},
	})
	must(t, err)
	return g
}

// sums serves a connection that brings bytes with their sum, and one that asks for bytes with theirs.
func sums(c net.Conn) {
	defer func() { _ = c.Close() }()
	var kind [1]byte
	if _, err := io.ReadFull(c, kind[:]); err != nil {
		return
	}
	sum := sha256.New()
	if kind[0] == 'u' {
		_, _ = io.Copy(sum, c)
		_, _ = c.Write(sum.Sum(nil))
		return
	}
	b := make([]byte, 1<<20)
	_, _ = rand.Read(b)
	for i := range size / len(b) {
		binary.BigEndian.PutUint64(b, uint64(i)) // a block in another's place is another sum
		_, _ = sum.Write(b)
		if _, err := c.Write(b); err != nil {
			return
		}
	}
	_, _ = c.Write(sum.Sum(nil))
}

// facts are what the guest tells.
type facts struct {
	MTU      int
	Driver   string
	Bits     []int // of the virtio features that were agreed on
	Ethtool  map[string]int
	Up, Down bool // the sums are right
	Counts   map[string]int64
}

// Of the virtio specification.
const (
	guestCanChecksum, guestTSO4 = 1, 7  // the host may leave these to the guest
	hostCanChecksum, hostTSO4   = 0, 11 // and the guest to the host
	hasMTU, mergeable           = 3, 15
)

// TestLabSegments: with an MTU of 1500, segments of TCP that are left to the other side pass both ways between the guest's card and
// the gateway by the packet socket at the TAP, with a header that says so, and nothing is lost or changed on the way. So it is
// with the MTU that VMs have.
func TestLabSegments(t *testing.T) {
	needLab(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go sums(c)
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	g := start(t, port, false, control.MTU)
	for _, mtu := range []int{1500, control.MTU} {
		t.Run(strconv.Itoa(mtu), func(t *testing.T) { g.exchange(t, port, mtu) })
	}
}

func (g *guest) exchange(t *testing.T, port string, mtu int) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	before, err := g.up.Stats(ctx)
	must(t, err)
	begun := time.Now()
	var out, errs bytes.Buffer
	exit, err := g.Exec(ctx, &proto.ExecStart{
		ExecId: "card" + strconv.Itoa(mtu), Argv: []string{"python3", "-c", guestProgram, network.HostName, port, strconv.Itoa(size), strconv.Itoa(mtu)},
	}, client.Streams{Stdout: &out, Stderr: &errs})
	after, serr := g.up.Stats(ctx)
	t.Logf("%s; the gateway's counters: %+v, %v", time.Since(begun).Round(time.Second), after, serr)
	if err != nil || exit.GetExitCode() != 0 {
		t.Fatalf("%v, %v\n%s%s", exit, err, &out, &errs)
	}
	var f facts
	must(t, json.Unmarshal(out.Bytes(), &f))
	t.Logf("MTU %d, driver %s, features %v, ethtool %v, counts %v", f.MTU, f.Driver, f.Bits, f.Ethtool, f.Counts)
	if f.MTU != mtu || f.Driver != "virtio_net" {
		t.Errorf("the card is %s with an MTU of %d", f.Driver, f.MTU)
	}
	if !f.Up || !f.Down {
		t.Errorf("what came is not what was sent: up %v, down %v", f.Up, f.Down)
	}
	has := " " + strings.Trim(fmt.Sprint(f.Bits), "[]") + " "
	for _, bit := range []int{guestCanChecksum, guestTSO4, hostCanChecksum, hostTSO4} {
		if !strings.Contains(has, fmt.Sprintf(" %d ", bit)) {
			t.Errorf("the feature %d was not agreed on: %v", bit, f.Bits)
		}
	}
	if len(after.Frames) > len(before.Frames) {
		t.Errorf("frames were dropped: %v", after.Frames)
	}
	// Were each as large as it can be, there would be this many.
	least := int64(size / (64 << 10))
	in, sent := after.LargeIn-before.LargeIn, after.LargeOut-before.LargeOut
	t.Logf("frames of several segments: %d to the guest, %d from it", in, sent)
	if mtu == 1500 && (in < least || sent < least) {
		t.Errorf("frames of several segments: %d to the guest, %d from it, want %d and more", in, sent, least)
	}
}
