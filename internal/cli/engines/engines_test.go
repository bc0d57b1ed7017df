package engines

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// double is a service that found two engines and installs what it is told.
type double struct{ asked api.EngineInstall }

func (d *double) Probe(context.Context) lifecycle.Probed {
	kvm, tcg := engine.Accel{Name: "kvm"}, engine.Accel{Name: "tcg", Emulated: true}
	gone := engine.Accel{Name: "hvf", Missing: "no such thing", Remedy: "buy one"}
	return lifecycle.Probed{Engines: []lifecycle.ProbedEngine{
		{Name: "first", Err: errdefs.Host.Errorf("not installed").WithRemedy("install it")},
		{Name: "second", Caps: engine.Caps{Version: "1.2", Path: "/bin/second", Tested: true}, Accels: []lifecycle.ProbedAccel{
			{Accel: kvm},
			{Accel: gone},
			{Accel: kvm, Tried: true, Verdict: engine.Verdict{Evidence: "no hello"}},
			{Accel: kvm, Tried: true, Verdict: engine.Verdict{Usable: true}},
			{Accel: tcg},
		}},
	}}
}

func (d *double) Install(_ context.Context, i api.EngineInstall, _ api.ProgressFunc) (api.InstalledEngine, error) {
	d.asked = i
	return api.InstalledEngine{Name: i.Name, Version: "1.12.1", Path: "/e/\x1b[2J"}, nil
}

func run(t *testing.T, d *double, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := Command(Front{
		Open: func() (Service, error) { return d, nil }, Args: cobra.RangeArgs, Stdout: &out,
	})
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestList(t *testing.T) {
	out, err := run(t, &double{}, "ls")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"first", "not installed", "second", "1.2", "yes", "kvm (untried), hvf (missing), kvm (useless), kvm (usable), tcg (usable)"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	out, err = run(t, &double{}, "ls", "--json")
	var list []api.Engine
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 2 {
		t.Fatalf("%s, %v", out, err)
	}
	if list[0].Remedy != "install it" || list[1].Accelerators[1].Remedy != "buy one" || list[1].Accelerators[2].Detail != "no hello" {
		t.Errorf("%+v", list)
	}
}

func TestInstall(t *testing.T) {
	d := &double{}
	out, err := run(t, d, "install", "firecracker", "--version", "1.12.1", "--from", "a.tgz", "--sha256", "d")
	if err != nil || out != "firecracker 1.12.1: /e/\\x1b[2J\n" {
		t.Errorf("%q, %v", out, err)
	}
	if d.asked.Name != "firecracker" || d.asked.Version != "1.12.1" || !strings.HasSuffix(d.asked.From, "/engines/a.tgz") || d.asked.SHA256 != "d" {
		t.Errorf("%+v", d.asked)
	}
	if _, err := run(t, d, "install"); err == nil {
		t.Error("nothing to install")
	}
}

func TestFlag(t *testing.T) {
	for _, tt := range []struct{ env, arg, want string }{{"", "", ""}, {"qemu", "", "qemu"}, {"qemu", "--engine=firecracker", "firecracker"}} {
		t.Setenv(Variable, tt.env)
		var got string
		cmd := &cobra.Command{Use: "x", Run: func(*cobra.Command, []string) {}}
		Flag(cmd, &got)
		cmd.SetArgs(nil)
		if tt.arg != "" {
			cmd.SetArgs([]string{tt.arg})
		}
		if err := cmd.ExecuteContext(t.Context()); err != nil || Wanted(got) != tt.want {
			t.Errorf("%+v: %q, %v", tt, Wanted(got), err)
		}
	}
}
