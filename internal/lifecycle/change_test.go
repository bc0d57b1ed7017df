package lifecycle

import (
	"os"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/store"
)

func TestRename(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	create(t, m, "one", CreateOptions{})
	started(t, m, "two")
	if err := m.Rename(ctx, "two", "three"); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("one that runs: %v", err)
	}
	for _, to := range []string{"two", "one"} {
		if err := m.Rename(ctx, "one", to); !errdefs.Is(err, errdefs.AlreadyExists) {
			t.Errorf("to %s: %v", to, err)
		}
	}
	if err := m.Rename(ctx, "one", "Not-An-Id-"); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("%v", err)
	}
	if err := m.Rename(ctx, "nobody", "x"); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("%v", err)
	}
	if err := m.Rename(ctx, "one", "uno"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Inspect(ctx, "one", false); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("the old name: %v", err)
	}
	if box := state(t, m, "uno", api.StateCreated, ""); box.Config.ID != "uno" {
		t.Errorf("%+v", box)
	}
	if _, err := m.Start(ctx, "uno", nil); err != nil {
		t.Fatal(err)
	}
	if err := m.Stop(ctx, "uno", StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	if err := m.Rename(ctx, "uno", "one"); err != nil { // the name is free again
		t.Error(err)
	}
	// A crash in the middle of it: the record has the new name, the directory the old one.
	rec, err := m.store.Read("one")
	if err != nil {
		t.Fatal(err)
	}
	rec.Config.Config.ID, rec.Config.Was = "other", "one"
	if err := m.store.SaveConfig("one", rec.Config); err != nil {
		t.Fatal(err)
	}
	if box := state(t, m, "one", api.StateStopped, ""); box.ID != "one" || box.Config.ID != "one" {
		t.Errorf("after a crash: %+v", box)
	}
}

func TestUpdate(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	started(t, m, "u")
	box, err := m.Update(ctx, "u", api.Limits{CPUs: 2, DiskMiB: 512})
	if err != nil || box.Config.CPUs != 2 || box.Config.MemoryMiB != api.DefaultMemoryMiB || box.Config.DiskMiB != 512 {
		t.Errorf("%+v, %v", box, err)
	}
	if st, err := os.Stat(m.store.Path("u", store.DiskFile)); err != nil || st.Size() != 512<<20 {
		t.Errorf("%v, %v", st, err)
	}
	for _, l := range []api.Limits{{DiskMiB: 256}, {CPUs: 99}, {MemoryMiB: 1}} {
		if _, err := m.Update(ctx, "u", l); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("%+v: %v", l, err)
		}
	}
	if box := state(t, m, "u", api.StateRunning, ""); box.Config.CPUs != 2 || box.Config.DiskMiB != 512 {
		t.Errorf("%+v", box.Config)
	}
}
