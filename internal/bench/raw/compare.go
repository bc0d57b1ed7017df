package raw

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/bare"
	"github.com/smolvm/smolvm/internal/bench/figure"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/link"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/sys/filecopy"
	"github.com/smolvm/smolvm/internal/sys/launch"
	"github.com/smolvm/smolvm/internal/sys/undo"
)

// Options are what is compared.
type Options struct {
	Engine engine.Engine // Firecracker's
	Kit    bare.Kit
	Temp   string
	Runs   int
	// Whole makes a VM as users do, and returns the seconds until its first command was answered.
	Whole func(ctx context.Context) (float64, error)
	Tell  func(what string, pair int)
}

const (
	tapName = "smolvmbench0"
	// patience is for one boot.
	patience = 3 * time.Minute
	// trips are in one sample of a round trip.
	trips = 200
)

// rig is a comparison under way.
type rig struct {
	Options
	files Files
	dir   string
	undo  undo.Stack
}

// comparison is one figure, of both sides in turn.
type comparison struct {
	name    string
	goal    figure.Goal
	a, b    string
	unit    string
	measure func(*rig, context.Context) (a, b float64, err error)
}

func comparisons() []comparison {
	return []comparison{
		{"create to first answer / bare Firecracker to hello", figure.AtMost(1.5), "create to first answer", "bare Firecracker to hello", "s", (*rig).boots},
		{"load and resume to first answer / bare Firecracker", figure.AtMost(2), "load and resume to first answer", "bare Firecracker, load and resume to hello", "s", (*rig).restores},
		{"round trip / HTTP/2 echo", figure.AtMost(3), "round trip", "HTTP/2 echo", "ms", (*rig).trips},
	}
}

// Skipped are the figures where they cannot be measured.
func Skipped(why string) []api.Figure {
	var out []api.Figure
	for _, c := range comparisons() {
		out = append(out, figure.Skipped(c.name, "ratio", c.goal, why))
	}
	return out
}

// Compare measures our engine against the bare monitor, in turn: a boot, a restore, and a round trip.
func Compare(ctx context.Context, o Options) ([]api.Figure, error) {
	if !launch.IsRoot() {
		return Skipped("the bare monitor's TAP needs root"), nil
	}
	r := &rig{Options: o}
	defer r.undo.Run()
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	var out []api.Figure
	for _, g := range comparisons() {
		var p figure.Pairs
		for i := range o.Runs + 1 {
			o.Tell(g.a, i)
			a, b, err := g.measure(r, ctx)
			if err != nil {
				return out, err
			}
			if i > 0 { // the first pair warms the page cache
				p.Add(a, b)
			}
		}
		out = append(out, p.Figures(g.name, g.goal, g.a, g.b, g.unit)...)
	}
	return out, nil
}

func (r *rig) prepare(ctx context.Context) error {
	caps, err := r.Engine.Probe(ctx)
	if err != nil {
		return err
	}
	if r.dir, err = os.MkdirTemp(r.Temp, "smolvm-bench-"); err != nil {
		return errdefs.Host.Errorf("a directory for the bare monitor: %w", err)
	}
	r.undo.Add(func() { _ = os.RemoveAll(r.dir) })
	remove, err := tap(tapName)
	if err != nil {
		return err
	}
	r.undo.Add(remove)
	r.files = Files{
		Program: caps.Path, Kernel: r.Kit.Boot.Kernel, Initrd: r.Kit.Boot.Initrd, Image: r.Kit.Image.Path, Modules: r.Kit.Boot.Modules,
		Disk: filepath.Join(r.dir, "disk.ext4"), MAC: control.GuestMAC().String(), AgentTAP: tapName, CPUs: api.DefaultCPUs, MemoryMiB: r.Kit.MemoryMiB, Port: link.VsockPort,
		Cmdline: strings.Join([]string{
			"console=ttyS0 reboot=k panic=-1 pci=off i8042.noaux i8042.nomux i8042.dumbkbd", link.VsockParam, link.DrivesParam + "image,disk,modules", "quiet loglevel=4",
		}, " "),
	}
	if err := image.NewDisk(r.files.Disk, api.DefaultDiskMiB); err != nil {
		return err
	}
	return r.snapshots(ctx)
}

// snapshots takes one of each side, of a guest that waits to be told who it is.
func (r *rig) snapshots(ctx context.Context) error {
	m, err := bare.Start(ctx, r.Engine, r.Kit, r.Temp, "")
	if err != nil {
		return err
	}
	defer m.Close()
	if _, err := hello(ctx, m.DialGuest); err != nil {
		return err
	}
	if err := os.Mkdir(r.ours(), 0o700); err != nil {
		return errdefs.Host.Errorf("%w", err)
	}
	if err := m.Machine.(engine.Pauser).Pause(ctx); err != nil {
		return err
	}
	if err := m.Machine.(engine.Snapshotter).Snapshot(ctx, r.ours()); err != nil {
		return err
	}
	if err := r.copyDisk(ctx, m.DiskPath); err != nil {
		return err
	}
	p, err := boot(ctx, r.files, r.dir)
	if err != nil {
		return err
	}
	defer p.close()
	if _, err := hello(ctx, r.dialer(p)); err != nil {
		return err
	}
	return p.snapshot(ctx)
}

func (r *rig) ours() string     { return filepath.Join(r.dir, "ours") }
func (r *rig) oursDisk() string { return filepath.Join(r.dir, "ours.ext4") }

func (r *rig) copyDisk(ctx context.Context, path string) error {
	from, err := os.Open(path) //nolint:gosec // the benchmark's own
	if err != nil {
		return errdefs.Host.Errorf("%w", err)
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(r.oursDisk(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = filecopy.Clone(ctx, to, from)
		if cerr := to.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return errdefs.Host.Errorf("copy the disk: %w", err)
	}
	return nil
}

func (r *rig) dialer(p *process) client.Dialer {
	return func(ctx context.Context) (net.Conn, error) { return p.guest(ctx, r.files.Port) }
}

// hello waits for the agent, and returns when it answered.
func hello(ctx context.Context, dial client.Dialer) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := client.Rejoin(ctx, dial)
	if err != nil {
		return time.Time{}, err
	}
	at := time.Now()
	return at, c.Close()
}

// boots is a VM as users make it, and the bare monitor.
func (r *rig) boots(ctx context.Context) (ours, theirs float64, err error) {
	if ours, err = r.Whole(ctx); err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	p, err := boot(ctx, r.files, r.dir)
	if err != nil {
		return 0, 0, err
	}
	defer p.close()
	at, err := hello(ctx, r.dialer(p))
	return ours, at.Sub(begun).Seconds(), err
}

// restores has the agent told who it is on our side, as every restore has: that is part of its first answer.
func (r *rig) restores(ctx context.Context) (ours, theirs float64, err error) {
	if ours, err = r.restoreOurs(ctx); err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	p, err := restore(ctx, r.files.Program, r.dir)
	if err != nil {
		return 0, 0, err
	}
	defer p.close()
	at, err := hello(ctx, r.dialer(p))
	return ours, at.Sub(begun).Seconds(), err
}

func (r *rig) restoreOurs(ctx context.Context) (float64, error) {
	seed := make([]byte, 64)
	if _, err := rand.Read(seed); err != nil {
		return 0, errdefs.Internal.Errorf("%w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begun := time.Now()
	m, err := bare.Restore(ctx, r.Engine, r.Kit, r.Temp, r.ours(), r.oursDisk())
	if err != nil {
		return 0, err
	}
	defer m.Close()
	if err := m.Machine.(engine.Pauser).Resume(ctx); err != nil {
		return 0, err
	}
	c, err := client.Awaken(ctx, m.DialGuest, &proto.ResumedRequest{Epoch: 1, Seed: seed})
	if err != nil {
		return 0, err
	}
	took := time.Since(begun)
	return took.Seconds(), c.Close()
}

// trips is a call of the agent, and a request that the same server on the same vsock answers without any of ours.
func (r *rig) trips(ctx context.Context) (ours, theirs float64, err error) {
	p, err := restore(ctx, r.files.Program, r.dir)
	if err != nil {
		return 0, 0, err
	}
	defer p.close()
	c, err := client.Rejoin(ctx, r.dialer(p))
	if err != nil {
		return 0, 0, err
	}
	if ours, err = mean(func() error { return c.Ping(ctx) }); err != nil {
		return 0, 0, err
	}
	if err := c.Close(); err != nil {
		return 0, 0, err
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	t := &http.Transport{Protocols: protocols, DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return p.guest(ctx, r.files.Port) }}
	defer t.CloseIdleConnections()
	theirs, err = mean(func() error { return nowhere(ctx, t) })
	return ours, theirs, err
}

// nowhere asks for what is not there, which costs the server nothing but HTTP/2.
func nowhere(ctx context.Context, t *http.Transport) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://guest/nowhere", strings.NewReader("12345678"))
	if err != nil {
		return err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return errdefs.Unavailable.Errorf("HTTP/2 with the guest: %w", err)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10))
	_ = resp.Body.Close()
	return err
}

// mean is a call's, in milliseconds. The first warms up.
func mean(call func() error) (float64, error) {
	var begun time.Time
	for i := range trips + 1 {
		if i == 1 {
			begun = time.Now()
		}
		if err := call(); err != nil {
			return 0, err
		}
	}
	return time.Since(begun).Seconds() * 1e3 / trips, nil
}
