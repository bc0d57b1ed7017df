package lifecycle

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/bootfile"
)

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIItpPbk9jOQqNZ/u/U25yBS+1NlRuP8AtGWCQ2pubbBC"

// TestSetEnv: a change holds for what is started from then on, and over restarts; what is refused changes nothing.
func TestSetEnv(t *testing.T) {
	m := rig(t, "")
	create(t, m, "vm", CreateOptions{})
	if env, err := m.SetEnv(t.Context(), "vm", api.EnvChange{Set: map[string]string{"A": "before", "B": "2"}}); err != nil || len(env) != 2 {
		t.Fatalf("%v, %v", env, err)
	}
	if _, err := m.Start(t.Context(), "vm", nil); err != nil {
		t.Fatal(err)
	}
	sees := func(want string) {
		t.Helper()
		if out, _ := run(t, m, "vm", "sh", "-c", "echo $A-$B-$C"); out != want+"\n" {
			t.Errorf("%q, want %q", out, want)
		}
	}
	sees("before-2-")
	if env, err := m.SetEnv(t.Context(), "vm", api.EnvChange{Set: map[string]string{"A": "after", "C": "3"}, Unset: []string{"B"}}); err != nil || len(env) != 2 || env["A"] != "after" {
		t.Errorf("%v, %v", env, err)
	}
	sees("after--3")
	if _, err := m.SetEnv(t.Context(), "vm", api.EnvChange{Set: map[string]string{"A B": "x"}}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("%v", err)
	}
	if _, err := m.SetEnv(t.Context(), "vm", api.EnvChange{Set: map[string]string{"BIG": strings.Repeat("x", 1<<20)}}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("%v", err)
	}
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			if _, err := m.SetEnv(t.Context(), "vm", api.EnvChange{Set: map[string]string{fmt.Sprintf("N%d", i): "x"}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if out, _ := run(t, m, "vm", "sh", "-c", "env | grep -c '^N[0-9]=x'"); out != "10\n" {
		t.Errorf("%q of ten changes at once", out)
	}
	if err := m.Pause(t.Context(), "vm"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.SetEnv(t.Context(), "vm", api.EnvChange{Set: map[string]string{"A": "paused"}}); !errdefs.Is(err, errdefs.WrongState) || !strings.Contains(errdefs.RemedyOf(err), "unpause") {
		t.Errorf("paused: %v", err)
	}
	if err := m.Unpause(t.Context(), "vm"); err != nil {
		t.Fatal(err)
	}
	if err := m.Stop(t.Context(), "vm", StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start(t.Context(), "vm", nil); err != nil {
		t.Fatal(err)
	}
	sees("after--3")
	box, err := m.Inspect(t.Context(), "vm", false)
	if err != nil || box.Config.Env["A"] != api.Masked || len(box.Config.Env) != 12 {
		t.Errorf("%v, %v", box.Config.Env, err)
	}
}

// TestSetTTL: it counts from the call on, and each start begins it anew.
func TestSetTTL(t *testing.T) {
	m := rig(t, "")
	started(t, m, "vm")
	if box := state(t, m, "vm", api.StateRunning, ""); box.ExpiresAt != nil {
		t.Errorf("it ends at %s", box.ExpiresAt)
	}
	if err := m.SetTTL(t.Context(), "vm", time.Hour); err != nil {
		t.Fatal(err)
	}
	if box := state(t, m, "vm", api.StateRunning, ""); box.ExpiresAt == nil || time.Until(*box.ExpiresAt) > time.Hour || box.Config.TTLMs != 3600_000 {
		t.Errorf("it ends at %v, ttl %d", box.ExpiresAt, box.Config.TTLMs)
	}
	if err := m.SetTTL(t.Context(), "vm", 0); err != nil {
		t.Fatal(err)
	}
	if box := state(t, m, "vm", api.StateRunning, ""); box.ExpiresAt != nil || box.Config.TTLMs != 0 {
		t.Errorf("it ends at %v", box.ExpiresAt)
	}
	if err := m.SetTTL(t.Context(), "vm", 300*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	ended := func() bool {
		box, err := m.Inspect(t.Context(), "vm", false)
		return err == nil && box.State == api.StateStopped
	}
	eventually(t, 10*time.Second, "the time is over", ended)
	if box := state(t, m, "vm", api.StateStopped, "time to live of 300ms is over"); box.ExpiresAt != nil {
		t.Errorf("stopped, it ends at %v", box.ExpiresAt)
	}
	if _, err := m.Start(t.Context(), "vm", nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "and again", ended)
	if err := m.SetTTL(t.Context(), "vm", time.Minute); err != nil {
		t.Error(err)
	}
	if err := m.SetTTL(t.Context(), "vm", -1); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("%v", err)
	}
	if err := m.SetTTL(t.Context(), "absent", 1); !errdefs.Is(err, errdefs.Invalid) && !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("%v", err)
	}
}

// TestLease: a VM that nobody asks for again goes, with its supervisor, running or not; one whose lease is renewed stays.
func TestLease(t *testing.T) {
	m := rig(t, "")
	short := api.OwnerRequest{Owner: api.OwnerLease, LeaseMs: 1000}
	create(t, m, "vm", CreateOptions{Owner: api.OwnerLease})
	box, err := m.Start(t.Context(), "vm", nil)
	if err != nil || box.Owner != api.OwnerLease {
		t.Fatalf("%+v, %v", box, err)
	}
	for range 4 {
		if err := m.Own(t.Context(), "vm", short); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
	}
	state(t, m, "vm", api.StateRunning, "")
	eventually(t, 6*time.Second, "nobody renews it", func() bool { return !alive(box.SupervisorPID) && !m.store.Exists("vm") })

	t.Run("paused", func(t *testing.T) {
		box := started(t, m, "vm")
		if err := m.Own(t.Context(), "vm", short); err != nil {
			t.Fatal(err)
		}
		if err := m.Pause(t.Context(), "vm"); err != nil {
			t.Fatal(err)
		}
		eventually(t, 6*time.Second, "gone", func() bool { return !alive(box.SupervisorPID) && !m.store.Exists("vm") })
	})
	t.Run("kept", func(t *testing.T) {
		started(t, m, "vm")
		for _, r := range []api.OwnerRequest{short, {Owner: api.OwnerKeep}} {
			if err := m.Own(t.Context(), "vm", r); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(1300 * time.Millisecond)
		state(t, m, "vm", api.StateRunning, "")
		if err := m.Remove(t.Context(), "vm", true); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("does not run", func(t *testing.T) {
		create(t, m, "vm", CreateOptions{})
		if err := m.Own(t.Context(), "vm", short); err != nil {
			t.Fatal(err)
		}
		state(t, m, "vm", api.StateCreated, "")
		time.Sleep(1100 * time.Millisecond)
		if err := m.Own(t.Context(), "vm", short); !errdefs.Is(err, errdefs.NotFound) {
			t.Errorf("a renewal that comes too late: %v", err)
		}
	})
	t.Run("wrong", func(t *testing.T) {
		create(t, m, "vm", CreateOptions{})
		if err := m.Own(t.Context(), "vm", api.OwnerRequest{Owner: api.OwnerClient, ClientPID: 1 << 22}); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("nobody's pid: %v", err)
		}
		if _, err := m.Create(t.Context(), api.Config{ID: "other"}, CreateOptions{Owner: api.OwnerLease, Lease: time.Millisecond}); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("too short: %v", err)
		}
	})
}

// TestLeaseOfStart: a lease that is shorter than a start begins when the VM runs.
func TestLeaseOfStart(t *testing.T) {
	m := rig(t, "late")
	create(t, m, "vm", CreateOptions{Owner: api.OwnerLease, Lease: 2 * time.Second})
	begun := time.Now()
	box, err := m.Start(t.Context(), "vm", nil)
	if err != nil || time.Since(begun) < 4*time.Second {
		t.Fatalf("after %s: %+v, %v", time.Since(begun), box, err)
	}
	if err := m.Own(t.Context(), "vm", api.OwnerRequest{Owner: api.OwnerLease, LeaseMs: 1000}); err != nil {
		t.Errorf("the first renewal: %v", err)
	}
	eventually(t, 6*time.Second, "nobody renews it", func() bool { return !alive(box.SupervisorPID) && !m.store.Exists("vm") })
}

// TestBootFiles: VMs of files that are named by their paths, ten of one at once; one whose file has changed does not start.
func TestBootFiles(t *testing.T) {
	m := rig(t, "")
	built, err := bootfile.Build(t.Context(), m.opts.Images, api.SSHImageRequest{SSHPublicKey: publicKey, RootfsSizeMiB: 300}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(built.RootfsPath)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "mine.ext4")
	if err := os.WriteFile(own, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			cfg := api.Config{ID: fmt.Sprintf("vm%d", i), RootfsPath: built.RootfsPath, DiskMiB: 256}
			if i%2 == 0 {
				cfg.RootfsPath = own
			}
			if _, err := m.Create(t.Context(), cfg, CreateOptions{}); err != nil {
				t.Error(err)
				return
			}
			if _, err := m.Start(t.Context(), cfg.ID, nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	box := state(t, m, "vm1", api.StateRunning, "")
	if box.ImageDigest == "" || box.Config.Image != "" || box.Config.RootfsPath != built.RootfsPath || len(box.Config.AuthorizedKeys) != 1 {
		t.Errorf("%+v", box)
	}
	if box := state(t, m, "vm0", api.StateRunning, ""); box.ImageDigest != "" || box.KernelID == "" || len(box.Config.AuthorizedKeys) != 0 {
		t.Errorf("%+v", box)
	}
	if err := m.opts.Images.RemoveBuilt(t.Context(), filepath.Base(filepath.Dir(built.RootfsPath))); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("what is in use: %v", err)
	}
	if err := m.opts.Images.Remove(t.Context(), api.DefaultImage); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("what is in use: %v", err)
	}
	for _, id := range []string{"vm0", "vm1"} {
		if err := m.Stop(t.Context(), id, StopOptions{Kill: true}); err != nil {
			t.Fatal(err)
		}
	}
	b[1024+0x30] ^= 1
	if err := os.WriteFile(own, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start(t.Context(), "vm0", nil); !errdefs.Is(err, errdefs.Image) || !strings.Contains(err.Error(), "has changed") {
		t.Errorf("another file: %v", err)
	}
	state(t, m, "vm0", api.StateStopped, "")
	if _, err := m.Start(t.Context(), "vm1", nil); err != nil {
		t.Errorf("the same file: %v", err)
	}
	if _, err := m.Create(t.Context(), api.Config{ID: "none", RootfsPath: own + "x"}, CreateOptions{}); !errdefs.Is(err, errdefs.NotFound) || m.store.Exists("none") {
		t.Errorf("no file: %v", err)
	}
	cfg := api.Config{ID: "size", RootfsPath: built.RootfsPath}
	if box, err := m.Create(t.Context(), cfg, CreateOptions{}); err != nil || box.Config.DiskMiB != 300 {
		t.Errorf("%+v, %v", box.Config, err)
	}
}

// TestRemovedImage: a VM of a file that was laid out starts although the image has gone that it was.
func TestRemovedImage(t *testing.T) {
	m := rig(t, "")
	built, err := bootfile.Build(t.Context(), m.opts.Images, api.SSHImageRequest{SSHPublicKey: publicKey}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Create(t.Context(), api.Config{ID: "vm", DiskMiB: 256, RootfsPath: built.RootfsPath}, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := m.opts.Images.Remove(t.Context(), api.DefaultImage); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start(t.Context(), "vm", nil); err != nil {
		t.Error(err)
	}
	if _, err := m.opts.Images.Ensure(t.Context(), api.DefaultImage, image.EnsureOptions{}); err != nil {
		t.Error(err)
	}
}
