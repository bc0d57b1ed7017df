package lifecycle

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

const (
	firstValue = "sk-first-VALUE-0123456789abcdef"
	otherValue = "sk-other-VALUE-0123456789abcdef"
)

// nowhere searches a home, and what processes show of themselves, for values.
func nowhere(t *testing.T, m *Manager, pids ...int) {
	t.Helper()
	search := func(name string) {
		b, err := os.ReadFile(name)
		if err == nil && (bytes.Contains(b, []byte(firstValue)) || bytes.Contains(b, []byte(otherValue))) {
			t.Errorf("a value is in %s", name)
		}
	}
	err := filepath.WalkDir(m.store.Home(), func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			search(name)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, pid := range pids {
		for _, file := range []string{"cmdline", "environ"} {
			search(filepath.Join("/proc", strconv.Itoa(pid), file))
		}
	}
}

// children are the processes below a supervisor.
func children(t *testing.T, parent int) []int {
	t.Helper()
	var pids []int
	tasks, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(parent), "task/*/children"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tasks {
		b, _ := os.ReadFile(name)
		for f := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func secretConfig(id string) api.Config {
	return api.Config{ID: id, DiskMiB: 256, Secrets: []api.Secret{{Name: "API_KEY", Source: "env:API_KEY", Hosts: []string{"api.example.com"}, Prefix: "sk-"}}}
}

func TestSecrets(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	values := api.SecretValues{"API_KEY": firstValue}
	box, err := m.Create(ctx, secretConfig("one"), CreateOptions{Secrets: values})
	if err != nil {
		t.Fatal(err)
	}
	placeholder := box.Config.Secrets[0].Placeholder
	if len(placeholder) != len(firstValue) || !strings.HasPrefix(placeholder, "sk-") {
		t.Errorf("placeholder %q", placeholder)
	}
	_, err = m.Start(ctx, "one", nil)
	if !errdefs.Is(err, errdefs.Invalid) || !strings.Contains(err.Error(), "API_KEY (env:API_KEY)") {
		t.Fatalf("without its value: %v", err)
	}
	state(t, m, "one", api.StateCreated, "")
	if box, err = m.StartWith(ctx, "one", values, nil); err != nil {
		t.Fatal(err)
	}
	if out, _ := run(t, m, "one", "/bin/sh", "-c", "echo $API_KEY"); out != placeholder+"\n" {
		t.Errorf("a command has %q", out)
	}
	below := children(t, box.SupervisorPID)
	if len(below) == 0 {
		t.Error("there is no gateway")
	}
	nowhere(t, m, append(below, box.SupervisorPID)...)

	// Another value, at once, and another source for the next start; a gateway that dies is followed by one that has it.
	change := api.SecretChange{Values: api.SecretValues{"API_KEY": otherValue}, Sources: map[string]string{"API_KEY": "file:/etc/key"}}
	if err := m.SetSecrets(ctx, "one", change); err != nil {
		t.Fatal(err)
	}
	for _, pid := range below {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	eventually(t, 20*time.Second, "another gateway", func() bool { return !slices.Equal(children(t, box.SupervisorPID), below) })
	change.Values["API_KEY"] = firstValue
	if err := m.SetSecrets(ctx, "one", change); err != nil {
		t.Error(err)
	}
	if err := m.SetSecrets(ctx, "one", api.SecretChange{Values: api.SecretValues{"NONE": firstValue}}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("a secret that there is not: %v", err)
	}
	events, err := m.Events(ctx, "one")
	if err != nil || !slices.ContainsFunc(events, func(e api.Event) bool { return e.Type == "secrets" && e.Reason == "API_KEY" }) {
		t.Errorf("the events: %+v, %v", events, err)
	}
	if _, err := m.SetEnv(ctx, "one", api.EnvChange{Set: map[string]string{"API_KEY": "x"}}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("a variable of the same name: %v", err)
	}
	nowhere(t, m, append(children(t, box.SupervisorPID), box.SupervisorPID)...)

	// The same placeholder after a restart; values are asked for again.
	if err := m.Stop(ctx, "one", StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := m.SetSecrets(ctx, "one", api.SecretChange{Values: values}); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("a value for a VM that does not run: %v", err)
	}
	if err := m.SetSecrets(ctx, "one", api.SecretChange{Sources: map[string]string{"API_KEY": "cmd:true"}}); err != nil {
		t.Error(err)
	}
	if _, err = m.Start(ctx, "one", nil); err == nil || !strings.Contains(err.Error(), "API_KEY (cmd:true)") {
		t.Errorf("without its value: %v", err)
	}
	if box, err = m.StartWith(ctx, "one", values, nil); err != nil {
		t.Fatal(err)
	}
	if out, _ := run(t, m, "one", "/bin/sh", "-c", "echo $API_KEY"); out != placeholder+"\n" {
		t.Errorf("a command has %q", out)
	}
	nowhere(t, m, append(children(t, box.SupervisorPID), box.SupervisorPID)...)
}

// TestSecretHosts: a secret's host must be one that the policy lets requests reach.
func TestSecretHosts(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	closed := api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{{Action: api.RuleAllow, Host: "other.example.com"}}}
	cfg := secretConfig("one")
	cfg.Network = closed
	if _, err := m.Create(ctx, cfg, CreateOptions{}); !errdefs.Is(err, errdefs.Invalid) || !strings.Contains(err.Error(), "api.example.com") {
		t.Errorf("create: %v", err)
	}
	if _, err := m.Create(ctx, secretConfig("one"), CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := m.SetNetwork(ctx, "one", closed); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("of one that does not run: %v", err)
	}
	if _, err := m.StartWith(ctx, "one", api.SecretValues{"API_KEY": firstValue}, nil); err != nil {
		t.Fatal(err)
	}
	if err := m.SetNetwork(ctx, "one", closed); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("of one that runs: %v", err)
	}
	closed.Rules[0].Host = "*.example.com"
	if err := m.SetNetwork(ctx, "one", closed); err != nil {
		t.Error(err)
	}
}

// TestNoDump: what has values in its memory leaves none on the disk when it crashes.
func TestNoDump(t *testing.T) {
	m := rig(t, "")
	if _, err := m.Create(t.Context(), secretConfig("one"), CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	box, err := m.StartWith(t.Context(), "one", api.SecretValues{"API_KEY": firstValue}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var below []int
	for end := time.Now().Add(5 * time.Second); len(below) == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		below = children(t, box.SupervisorPID)
	}
	for _, pid := range append(below, box.SupervisorPID) {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "limits"))
		if err != nil {
			continue // it has another user
		}
		for line := range strings.SplitSeq(string(b), "\n") {
			if f := strings.Fields(line); len(f) > 5 && f[1] == "core" && f[4] != "0" && f[4] != "1" {
				t.Errorf("%d: %s", pid, line)
			}
		}
	}
}
