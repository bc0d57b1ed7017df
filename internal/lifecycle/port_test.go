package lifecycle

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// service answers each line with its own in capitals. The guest of these tests is in this machine, and so are its ports.
func service(t *testing.T) (port int) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				for s := bufio.NewScanner(c); s.Scan(); {
					_, _ = io.WriteString(c, strings.ToUpper(s.Text())+"\n")
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// taken is a port of this host on which another program listens.
func taken(t *testing.T) (port int, free func()) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().(*net.TCPAddr).Port, func() { _ = l.Close() }
}

func published(t *testing.T, m *Manager, id string) []api.Port {
	t.Helper()
	box, err := m.Inspect(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	return box.Ports
}

// answers wants a published port to reach the service.
func answers(t *testing.T, p api.Port) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.Host())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = io.WriteString(c, "hello\n")
	b := make([]byte, 6)
	if err == nil {
		_, err = io.ReadFull(c, b)
	}
	if err != nil || string(b) != "HELLO\n" {
		t.Errorf("%s: %q, %v", p, b, err)
	}
	return c
}

func listens(p api.Port) bool {
	c, err := net.DialTimeout("tcp", p.Host(), time.Second) //nolint:noctx // a second is no time
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// TestPorts: a port with a number, one that is any, over a restart, and removed.
func TestPorts(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	guest := service(t)
	number, free := taken(t)
	free()
	cfg := api.Config{ID: "web", DiskMiB: 256, Ports: []api.Port{{HostPort: number, GuestPort: guest}, {GuestPort: guest}}}
	if _, err := m.Create(ctx, cfg, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := published(t, m, "web"); len(got) != 2 || got[0].Address != "127.0.0.1" || got[0].HostPort != number || got[1].HostPort != 0 {
		t.Errorf("before the start: %+v", got)
	}
	box, err := m.Start(ctx, "web", nil)
	if err != nil {
		t.Fatal(err)
	}
	ports := box.Ports
	if len(ports) != 2 || ports[1].HostPort == 0 || !ports[1].Any || ports[0].Any {
		t.Fatalf("%+v", ports)
	}
	open := answers(t, ports[0])
	answers(t, ports[1])
	added, err := m.PublishPort(ctx, "web", api.Port{GuestPort: guest})
	if err != nil || added.HostPort == 0 {
		t.Fatalf("%+v, %v", added, err)
	}
	answers(t, added)
	if removed, err := m.UnpublishPort(ctx, "web", ports[1]); err != nil || removed != ports[1] || listens(ports[1]) {
		t.Errorf("%+v, %v", removed, err)
	}
	want := []api.Port{ports[0], added}
	if got := published(t, m, "web"); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if err := m.Stop(ctx, "web", StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if listens(ports[0]) || listens(added) {
		t.Error("a VM that does not run listens")
	}
	if _, err := open.Read(make([]byte, 1)); err == nil {
		t.Error("a connection goes on after the end")
	}
	if box, err = m.Start(ctx, "web", nil); err != nil || !slices.Equal(box.Ports, want) {
		t.Fatalf("after a restart: %+v, %v", box.Ports, err)
	}
	answers(t, ports[0])
	answers(t, added)
	var kinds []string
	if err := m.NetworkLog(ctx, "web", false, func(r api.NetRecord) error { kinds = append(kinds, r.Kind); return nil }); err != nil || !slices.Contains(kinds, "port") {
		t.Errorf("%v, %v", kinds, err)
	}
	if err := m.Remove(ctx, "web", true); err != nil || listens(added) {
		t.Errorf("removed: %v", err)
	}
}

// TestPortsOfAStoppedVM: they are kept for the next start.
func TestPortsOfAStoppedVM(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	create(t, m, "web", CreateOptions{})
	guest := service(t)
	p, err := m.PublishPort(ctx, "web", api.Port{GuestPort: guest})
	if err != nil || p.HostPort != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	number, free := taken(t)
	free()
	if _, err := m.PublishPort(ctx, "web", api.Port{HostPort: number, GuestPort: guest}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.PublishPort(ctx, "web", api.Port{HostPort: number, GuestPort: 1}); !errdefs.Is(err, errdefs.AlreadyExists) {
		t.Errorf("twice: %v", err)
	}
	if _, err := m.UnpublishPort(ctx, "web", api.Port{GuestPort: guest}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("which of two: %v", err)
	}
	if _, err := m.UnpublishPort(ctx, "web", api.Port{GuestPort: 2}); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("none: %v", err)
	}
	for _, bad := range []api.Port{{}, {GuestPort: 70000}, {Address: "x", GuestPort: 1}} {
		if _, err := m.PublishPort(ctx, "web", bad); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, err := m.PublishPort(ctx, "absent", api.Port{GuestPort: 1}); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("absent: %v", err)
	}
	box, err := m.Start(ctx, "web", nil)
	if err != nil || len(box.Ports) != 2 {
		t.Fatalf("%+v, %v", box, err)
	}
	for _, p := range box.Ports {
		answers(t, p)
	}
}

// TestPortTaken: a start that needs a port which is taken changes nothing; one that may be any gets another one.
func TestPortTaken(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	number, free := taken(t)
	cfg := api.Config{ID: "web", DiskMiB: 256, Ports: []api.Port{{GuestPort: 80}, {HostPort: number, GuestPort: 80}}}
	if _, err := m.Create(ctx, cfg, CreateOptions{Start: true}); !errdefs.Is(err, errdefs.AlreadyExists) || m.store.Exists("web") {
		t.Errorf("create for a start: %v", err)
	}
	if _, err := m.Create(ctx, cfg, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := m.Start(ctx, "web", nil)
	if !errdefs.Is(err, errdefs.AlreadyExists) || !strings.Contains(err.Error(), fmt.Sprint(number)) || errdefs.RemedyOf(err) == "" {
		t.Errorf("%v", err)
	}
	state(t, m, "web", api.StateCreated, "")
	if got := published(t, m, "web"); got[0].HostPort != 0 {
		t.Errorf("a start that was refused changed %+v", got)
	}
	free()
	box, err := m.Start(ctx, "web", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.PublishPort(ctx, "web", api.Port{HostPort: box.Ports[0].HostPort, GuestPort: 81}); !errdefs.Is(err, errdefs.AlreadyExists) {
		t.Errorf("our own: %v", err)
	}
	if err := m.Stop(ctx, "web", StopOptions{}); err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", box.Ports[0].Host())
	if err != nil {
		t.Fatalf("the VM that was stopped may still hold its port: %v", err)
	}
	defer func() { _ = l.Close() }()
	again, err := m.Start(ctx, "web", nil)
	if err != nil || again.Ports[0].HostPort == box.Ports[0].HostPort || again.Ports[0].HostPort == 0 || again.Ports[1] != box.Ports[1] {
		t.Errorf("%+v, %v; it was %+v", again.Ports, err, box.Ports)
	}
}

// TestPortRace: of VMs that want one port at once one gets it, and the others are as they were.
func TestPortRace(t *testing.T) {
	m := rig(t, "")
	number, free := taken(t)
	free()
	const vms = 3
	for i := range vms {
		cfg := api.Config{ID: fmt.Sprintf("vm%d", i), DiskMiB: 256, Ports: []api.Port{{HostPort: number, GuestPort: 80}}}
		if _, err := m.Create(t.Context(), cfg, CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	errs := make([]error, vms)
	var all sync.WaitGroup
	for i := range vms {
		all.Go(func() { _, errs[i] = m.Start(t.Context(), fmt.Sprintf("vm%d", i), nil) })
	}
	all.Wait()
	won := 0
	for i, err := range errs {
		want := api.StateCreated
		if err == nil {
			won++
			want = api.StateRunning
		} else if !errdefs.Is(err, errdefs.AlreadyExists) {
			t.Errorf("vm%d: %v", i, err)
		}
		state(t, m, fmt.Sprintf("vm%d", i), want, "")
	}
	if won != 1 {
		t.Errorf("%d have the port", won)
	}
}

// TestPortsEndWithSupervisor: nothing listens after a kill, and the next start has the port again.
func TestPortsEndWithSupervisor(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	create(t, m, "web", CreateOptions{})
	if _, err := m.PublishPort(ctx, "web", api.Port{GuestPort: service(t)}); err != nil {
		t.Fatal(err)
	}
	box, err := m.Start(ctx, "web", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := answers(t, box.Ports[0])
	if err := syscall.Kill(box.SupervisorPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the port is free", func() bool { return !listens(box.Ports[0]) })
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client sees %v", err)
	}
	again, err := m.Start(ctx, "web", nil)
	if err != nil || again.Ports[0] != box.Ports[0] {
		t.Fatalf("%+v, %v", again.Ports, err)
	}
	answers(t, again.Ports[0])
}

// TestPortOfAPausedVM: there is nobody to connect to, and that is said at once; what is open waits.
func TestPortOfAPausedVM(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	create(t, m, "web", CreateOptions{})
	if _, err := m.PublishPort(ctx, "web", api.Port{GuestPort: service(t)}); err != nil {
		t.Fatal(err)
	}
	box, err := m.Start(ctx, "web", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Pause(ctx, "web"); err != nil {
		t.Fatal(err)
	}
	c, err := net.DialTimeout("tcp", box.Ports[0].Host(), time.Second) //nolint:noctx // a second is no time
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
	if _, err := m.PublishPort(ctx, "web", api.Port{GuestPort: 81}); err != nil {
		t.Error(err)
	}
	if err := m.Unpause(ctx, "web"); err != nil {
		t.Fatal(err)
	}
	answers(t, box.Ports[0])
}

func TestWaitPort(t *testing.T) {
	m := rig(t, "")
	started(t, m, "web")
	g, err := m.Connect(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	if err := g.WaitPort(t.Context(), service(t)); err != nil {
		t.Error(err)
	}
	if err := g.WaitPort(t.Context(), 70000); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := g.WaitPort(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	done := make(chan error, 1)
	go func() { done <- g.WaitPort(t.Context(), 1) }()
	time.Sleep(100 * time.Millisecond)
	if err := m.Stop(t.Context(), "web", StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errdefs.Is(err, errdefs.Unavailable) {
			t.Errorf("the VM ended: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for a VM that has ended")
	}
}

// TestPortKeepsAwake: bytes of a connection are something that somebody asks; an open connection alone is not.
func TestPortKeepsAwake(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	cfg := api.Config{ID: "web", DiskMiB: 256, IdleMs: 5000, Ports: []api.Port{{GuestPort: service(t)}}}
	if _, err := m.Create(ctx, cfg, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	box, err := m.Start(ctx, "web", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := answers(t, box.Ports[0])
	for range 7 {
		time.Sleep(time.Second)
		if _, err := io.WriteString(c, "x\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
			t.Fatalf("it slept although bytes went: %v", err)
		}
	}
	eventually(t, 20*time.Second, "the idle VM is stopped", func() bool {
		box, err := m.Inspect(ctx, "web", false)
		return err == nil && box.State == api.StateStopped
	})
}
