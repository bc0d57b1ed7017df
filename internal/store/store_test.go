package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/lock"
)

// TestTransitions says of every pair of states whether the one may follow the other.
func TestTransitions(t *testing.T) {
	// Rows are from, columns to, both in the order of api.States.
	want := map[api.State]string{
		//                  created starting running paused stopping stopped hibernated deleting error
		api.StateCreated:    ".s.....de",
		api.StateStarting:   "..r.ox.de",
		api.StateRunning:    "...poxhde",
		api.StatePaused:     "..r.oxhde",
		api.StateStopping:   ".....x.de",
		api.StateStopped:    ".s.....de",
		api.StateHibernated: ".s.....de",
		api.StateDeleting:   "........e",
		api.StateError:      ".s.....de",
	}
	states := api.States()
	if len(want) != len(states) || len(transitions()) != len(states) {
		t.Fatalf("%d states, %d rows wanted, %d in the table", len(states), len(want), len(transitions()))
	}
	for _, from := range states {
		if len(want[from]) != len(states) {
			t.Fatalf("row %s has %d columns", from, len(want[from]))
		}
		for i, to := range states {
			t.Run(fmt.Sprintf("%s to %s", from, to), func(t *testing.T) {
				err := CanFollow("x", from, to)
				if allowed := want[from][i] != '.'; allowed != (err == nil) {
					t.Errorf("allowed %v: %v", allowed, err)
				}
				if err != nil && (!errdefs.Is(err, errdefs.WrongState) || errdefs.RemedyOf(err) == "") {
					t.Errorf("class %s, remedy %q", errdefs.ClassOf(err), errdefs.RemedyOf(err))
				}
			})
		}
	}
	for from, next := range transitions() {
		if !slices.Contains(states, from) {
			t.Errorf("the table knows a state %q", from)
		}
		for _, to := range next {
			if !slices.Contains(states, to) {
				t.Errorf("%s leads to %q", from, to)
			}
		}
	}
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := New(filepath.Join(t.TempDir(), "home"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func record(id string) Record {
	return Record{
		Config: Config{Config: api.Config{ID: id}.WithDefaults(), ImageDigest: "sha256:00", CreatedAt: time.Now()},
		State:  State{State: api.StateCreated, Owner: api.OwnerKeep},
	}
}

func publish(t *testing.T, s *Store, id string) {
	t.Helper()
	c, err := s.Claim(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abandon()
	if err := c.Publish(record(id)); err != nil {
		t.Fatal(err)
	}
}

func TestNewRefusesRelativeHome(t *testing.T) {
	for _, home := range []string{"", "relative"} {
		if _, err := New(home); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("%q: %v", home, err)
		}
	}
}

func TestHomeIsPrivate(t *testing.T) {
	s := open(t)
	if err := os.Mkdir(s.Home(), 0o755); err != nil {
		t.Fatal(err)
	}
	publish(t, s, "x")
	for _, dir := range []string{s.Home(), s.vms(), s.locksDir(), s.trashDir(), s.Dir("x")} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, st.Mode(), err)
		}
	}
	for _, name := range []string{configFile, stateFile} {
		if st, err := os.Stat(s.Path("x", name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
}

func TestClaim(t *testing.T) {
	s := open(t)
	c, err := s.Claim(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if s.Exists("x") {
		t.Error("a claim is shown as a VM")
	}
	if ids, err := s.IDs(); err != nil || len(ids) != 0 {
		t.Errorf("IDs = %v, %v", ids, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Claim(ctx, "x"); err == nil {
		t.Error("a second claim was given")
	}
	if err := os.WriteFile(c.Path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.Abandon()
	if entries, _ := os.ReadDir(s.vms()); len(entries) != 0 {
		t.Errorf("%v is left of an abandoned claim", entries)
	}
	publish(t, s, "x")
	if _, err := s.Claim(t.Context(), "x"); !errdefs.Is(err, errdefs.AlreadyExists) {
		t.Errorf("a claim on what exists: %v", err)
	}
	if _, err := s.Claim(t.Context(), "../x"); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("a claim on a path: %v", err)
	}
}

func TestReadRefuses(t *testing.T) {
	tests := []struct {
		name, file, text, says string
		class                  errdefs.Class
	}{
		{"empty", stateFile, "", "unexpected end", errdefs.Internal},
		{"no JSON", stateFile, "{", "unexpected end", errdefs.Internal},
		{"no schema", stateFile, "{}", "no schema", errdefs.Internal},
		{"newer", configFile, `{"schema": 2}`, "newer smolvm", errdefs.WrongState},
		{"newer, of another form", configFile, `{"schema": 2, "config": "text"}`, "newer smolvm", errdefs.WrongState},
		{"of another form", configFile, `{"schema": 1, "config": "text"}`, "cannot unmarshal", errdefs.Internal},
		{"unknown state", stateFile, `{"schema": 1, "state": "dancing", "owner": "keep"}`, "dancing", errdefs.Internal},
		{"client without process", stateFile, `{"schema": 1, "state": "created", "owner": "client"}`, "without a client", errdefs.Internal},
		{"another VM's", configFile, `{"schema": 1, "config": {"id": "y"}}`, `"y"`, errdefs.Internal},
		{"too long", stateFile, `{"schema": 1, "reason": "` + strings.Repeat("x", maxRecord) + `"}`, "more than", errdefs.Internal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t)
			publish(t, s, "x")
			if err := os.WriteFile(s.Path("x", tt.file), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := s.Read("x")
			if !errdefs.Is(err, tt.class) || !strings.Contains(err.Error(), tt.says) || errdefs.RemedyOf(err) == "" {
				t.Errorf("%v (%s, remedy %q)", err, errdefs.ClassOf(err), errdefs.RemedyOf(err))
			}
		})
	}
	s := open(t)
	if _, err := s.Read("absent"); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("an absent VM: %v", err)
	}
	if _, err := s.Read("../x"); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("a path: %v", err)
	}
}

// TestReclaim: a disk that is left to a monitor's user id is taken back, and nothing else is touched.
func TestReclaim(t *testing.T) {
	s := open(t)
	publish(t, s, "x")
	disk := s.Path("x", DiskFile)
	if err := s.Reclaim("x"); err == nil {
		t.Error("a VM without a disk")
	}
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Reclaim("x"); err != nil {
		t.Error(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("gives a file to another user")
	}
	if err := os.Chown(disk, 1_900_000_001, 1_900_000_001); err != nil {
		t.Fatal(err)
	}
	if err := s.Reclaim("x"); err != nil {
		t.Error(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(disk, &st); err != nil || st.Uid != 0 || st.Gid != uint32(os.Getegid()) {
		t.Errorf("it belongs to %d:%d (%v)", st.Uid, st.Gid, err)
	}
}

func TestSaveState(t *testing.T) {
	s := open(t)
	publish(t, s, "x")
	r, err := s.Read("x")
	if err != nil {
		t.Fatal(err)
	}
	r.State.State, r.State.Reason, r.State.Supervisor = api.StateStarting, "why", &Process{PID: 1, StartTicks: 2}
	if err := s.SaveState("x", r.State); err != nil {
		t.Fatal(err)
	}
	back, err := s.Read("x")
	if err != nil || back.State.Reason != "why" || *back.State.Supervisor != *r.State.Supervisor {
		t.Errorf("%+v, %v", back.State, err)
	}
	r.State.State = api.StatePaused
	if err := s.SaveState("x", r.State); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("a step that the table does not have: %v", err)
	}
	if err := os.WriteFile(s.Path("x", stateFile), []byte(`{"schema": 9}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveState("x", r.State); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer record: %v", err)
	}
	if err := s.SaveState("absent", r.State); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("an absent VM: %v", err)
	}
}

func TestSavePolicy(t *testing.T) {
	s := open(t)
	publish(t, s, "x")
	if r, err := s.Read("x"); err != nil || r.Network != nil || r.Policy().Mode != api.NetOpen {
		t.Errorf("%+v, %v", r, err)
	}
	if err := s.SavePolicy("x", api.NetworkPolicy{Mode: api.NetNone}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Read("x"); err != nil || r.Policy().Mode != api.NetNone {
		t.Errorf("%+v, %v", r, err)
	}
	if err := s.SavePolicy("x", api.NetworkPolicy{Mode: "closed"}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("a mode that is none: %v", err)
	}
	if err := s.SavePolicy("absent", api.NetworkPolicy{}); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("an absent VM: %v", err)
	}
	for _, text := range []string{"", `{"schema": 1, "policy": {"mode": "closed"}}`, `{"schema": 2}`} {
		if err := os.WriteFile(s.Path("x", netFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Read("x"); err == nil {
			t.Errorf("%q gives %+v", text, r)
		}
	}
}

func TestDiscardAndSweep(t *testing.T) {
	s := open(t)
	if err := s.Sweep(); err != nil {
		t.Errorf("nothing to sweep: %v", err)
	}
	publish(t, s, "x")
	if err := s.Discard("x"); err != nil {
		t.Fatal(err)
	}
	if err := s.Discard("x"); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("Discard twice: %v", err)
	}
	if entries, _ := os.ReadDir(s.trashDir()); len(entries) != 0 {
		t.Errorf("in the trash: %v", entries)
	}
	foreign := filepath.Join(s.vms(), ".something")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("what is not ours was removed: %v", err)
	}
}

func TestLock(t *testing.T) {
	s := open(t)
	if held, err := s.Locked("x"); held || err != nil {
		t.Errorf("never locked: %v, %v", held, err)
	}
	l, err := s.TryLock("x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.TryLock("x"); !errors.Is(err, lock.ErrHeld) {
		t.Errorf("a second lock: %v", err)
	}
	if held, err := s.Locked("x"); !held || err != nil {
		t.Errorf("locked: %v, %v", held, err)
	}
	_ = l.Close()
	if held, err := s.Locked("x"); held || err != nil {
		t.Errorf("closed: %v, %v", held, err)
	}
}

func TestEvents(t *testing.T) {
	s := open(t)
	publish(t, s, "x")
	if events, err := s.Events("x"); err != nil || len(events) != 0 {
		t.Errorf("no events: %v, %v", events, err)
	}
	if _, err := s.Events("absent"); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("an absent VM: %v", err)
	}
	long := strings.Repeat("r", maxEvent)
	if err := s.AppendEvent("x", api.Event{Type: "long", Reason: long}); err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		e := api.Event{Type: fmt.Sprint(i), Reason: long[:800]}
		if err := s.AppendEvent("x", e); err != nil {
			t.Fatal(err)
		}
	}
	// A crash in the middle of a line.
	f, err := os.OpenFile(s.Path("x", eventsFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteString(`{"type": "half`)
	_ = f.Close()
	events, err := s.Events("x")
	if err != nil {
		t.Fatal(err)
	}
	last := events[len(events)-1]
	if last.Type != "2999" || last.Time.IsZero() || events[0].Type == "long" || len(events) < 500 {
		t.Errorf("%d events from %s to %s", len(events), events[0].Type, last.Type)
	}
	if st, err := os.Stat(s.Path("x", eventsFile)); err != nil || st.Size() > maxEvents+maxEvent {
		t.Errorf("the file has %d bytes, %v", st.Size(), err)
	}
}

// TestSavePorts: ports that were changed win over those of the configuration; what cannot be read is no record.
func TestSavePorts(t *testing.T) {
	s := open(t)
	publish(t, s, "x")
	if r, err := s.Read("x"); err != nil || r.Ports != nil || len(r.Published()) != 0 || r.Published() == nil {
		t.Errorf("%+v, %v", r, err)
	}
	if err := s.SavePorts("x", []api.Port{{HostPort: 8080, GuestPort: 80}}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Read("x"); err != nil || len(r.Published()) != 1 || r.Published()[0].Address != api.DefaultAddress {
		t.Errorf("%+v, %v", r, err)
	}
	if err := s.SavePorts("x", []api.Port{{HostPort: -1, GuestPort: 80}}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("what cannot be: %v", err)
	}
	if err := s.SavePorts("absent", nil); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("absent: %v", err)
	}
	if err := os.WriteFile(s.Path("x", portsFile), []byte(`{"schema":1,"ports":[{"host_port":70000}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read("x"); !errdefs.Is(err, errdefs.Internal) {
		t.Errorf("broken: %v", err)
	}
}
