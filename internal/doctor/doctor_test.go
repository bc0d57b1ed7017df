package doctor

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/sys/launch"
)

// The test program is the launcher, too: it is what the doctor re-executes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == launch.Command {
		os.Exit(launch.Main())
	}
	os.Exit(m.Run())
}

type probed lifecycle.Probed

func (p probed) Probe(context.Context) lifecycle.Probed { return lifecycle.Probed(p) }

func now() time.Time { return time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC) }

// healthy is a host with everything.
func healthy() lifecycle.Probed {
	kvm := lifecycle.ProbedAccel{Accel: engine.Accel{Name: "kvm"}, Verdict: engine.Verdict{Usable: true, Evidence: "hello after 1 s"}, Tried: true}
	tcg := lifecycle.ProbedAccel{Accel: engine.Accel{Name: "tcg", Emulated: true}}
	return lifecycle.Probed{
		Engines: []lifecycle.ProbedEngine{{Name: "qemu", Caps: engine.Caps{Version: "7.2.22", Path: "/usr/bin/qemu", Tested: true}, Accels: []lifecycle.ProbedAccel{kvm, tcg}}},
		Image:   api.Image{Name: "debian", SizeBytes: 600 << 20, CreatedAt: now().Add(-time.Hour)},
		Kernel:  api.Kernel{Release: "6.12.1", Package: "linux-image", Version: "1", CreatedAt: now().Add(-time.Hour)},
	}
}

func TestVerdicts(t *testing.T) {
	tests := []struct {
		name   string
		change func(p *lifecycle.Probed, o *Options)
		check  string
		want   api.CheckStatus
		remedy string
	}{
		{"engine", nil, "engine qemu", api.CheckOK, ""},
		{"proven accelerator", nil, "accelerator kvm", api.CheckOK, ""},
		{"emulation as a reserve", nil, "accelerator tcg", api.CheckOK, ""},
		{"agent", nil, "agent", api.CheckOK, ""},
		{"image", nil, "image", api.CheckOK, ""},
		{"kernel", nil, "kernel", api.CheckOK, ""},
		{"no agent", func(_ *lifecycle.Probed, o *Options) {
			o.AgentErr = errdefs.Host.Errorf("built without").WithRemedy("script/build")
		}, "agent", api.CheckFailure, "script/build"},
		{"no engine", func(p *lifecycle.Probed, _ *Options) {
			p.Engines[0] = lifecycle.ProbedEngine{Name: "qemu", Err: errdefs.Host.Errorf("not installed").WithRemedy("apt-get install qemu-system-x86")}
		}, "engine qemu", api.CheckFailure, "apt-get install qemu-system-x86"},
		{"another engine would help", func(p *lifecycle.Probed, _ *Options) {
			p.Engines = append(p.Engines, lifecycle.ProbedEngine{Name: "other", Err: errdefs.Host.Errorf("not installed").WithRemedy("install other")})
		}, "engine other", api.CheckWarning, "install other"},
		{"another engine would not", func(p *lifecycle.Probed, _ *Options) {
			p.Engines = append(p.Engines, lifecycle.ProbedEngine{Name: "other", Err: errdefs.Host.Errorf("not installed").WithRemedy("install other")})
			p.Engines[0].Accels = p.Engines[0].Accels[1:]
		}, "engine other", api.CheckOK, ""},
		{"untested engine", func(p *lifecycle.Probed, _ *Options) { p.Engines[0].Caps.Tested = false }, "engine qemu", api.CheckWarning, "report what fails"},
		{"no kvm", func(p *lifecycle.Probed, _ *Options) {
			p.Engines[0].Accels[0] = lifecycle.ProbedAccel{Accel: engine.Accel{Name: "kvm", Missing: "/dev/kvm: permission denied", Remedy: "usermod"}}
		}, "accelerator kvm", api.CheckWarning, "usermod"},
		{"only emulation", func(p *lifecycle.Probed, _ *Options) { p.Engines[0].Accels = p.Engines[0].Accels[1:] }, "accelerator tcg", api.CheckWarning, "run on a machine with KVM, or refuse emulation with --require-accel"},
		{"useless accelerator", func(p *lifecycle.Probed, _ *Options) { p.Engines[0].Accels[0].Usable = false }, "accelerator kvm", api.CheckWarning, ""},
		{"untried accelerator", func(p *lifecycle.Probed, _ *Options) { p.Engines[0].Accels[0].Tried = false }, "accelerator kvm", api.CheckOK, ""},
		{"no image", func(p *lifecycle.Probed, _ *Options) { p.ImageErr = errdefs.NotFound.Errorf("none") }, "image", api.CheckWarning, "smolvm image build"},
		{"damaged image", func(p *lifecycle.Probed, _ *Options) { p.ImageErr = errdefs.Image.Errorf("damaged") }, "image", api.CheckFailure, "smolvm image build --refresh"},
		{"no kernel", func(p *lifecycle.Probed, _ *Options) { p.KernelErr = errdefs.NotFound.Errorf("none") }, "kernel", api.CheckWarning, "smolvm image build"},
		{"old kernel", func(p *lifecycle.Probed, _ *Options) { p.Kernel.CreatedAt = now().Add(-31 * 24 * time.Hour) }, "kernel", api.CheckWarning, "smolvm image build --refresh"},
		{"kernel just young enough", func(p *lifecycle.Probed, _ *Options) { p.Kernel.CreatedAt = now().Add(-30 * 24 * time.Hour) }, "kernel", api.CheckOK, ""},
		{"no place", func(_ *lifecycle.Probed, o *Options) { o.Home = "/etc/passwd/none" }, "disk", api.CheckFailure, "smolvm --home DIR, or SMOLVM_HOME"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, o := healthy(), Options{Home: t.TempDir(), Now: now()}
			if tt.change != nil {
				tt.change(&p, &o)
			}
			var got []api.Check
			for _, c := range Run(t.Context(), probed(p), o) {
				if c.Name == tt.check {
					got = append(got, c)
				}
				if c.Status == api.CheckFailure && c.Detail == "" {
					t.Errorf("%s fails without a reason", c.Name)
				}
			}
			if len(got) != 1 || got[0].Status != tt.want || got[0].Remedy != tt.remedy {
				t.Errorf("got %+v, want %s with the remedy %q", got, tt.want, tt.remedy)
			}
		})
	}
}

// TestNamespaces: the check is what a monitor gets here, and a host that gives less has a warning with a remedy.
func TestNamespaces(t *testing.T) {
	d := &doctor{}
	d.namespaces(t.Context())
	c := d.checks[0]
	t.Logf("%+v", c)
	if c.Status == api.CheckOK && !strings.Contains(c.Detail, "netns") || c.Status != api.CheckOK && (c.Detail == "" || c.Remedy == "") {
		t.Errorf("%+v", c)
	}
}

// TestForBuild: what only a build needs fails while nothing is built.
func TestForBuild(t *testing.T) {
	for _, built := range []bool{true, false} {
		d := &doctor{built: built}
		d.forBuild("tool", "install it", "missing")
		want := api.CheckFailure
		if built {
			want = api.CheckWarning
		}
		if d.checks[0].Status != want {
			t.Errorf("built %v: %s, want %s", built, d.checks[0].Status, want)
		}
	}
}

func TestHasRange(t *testing.T) {
	tests := []struct {
		name, text string
		want       bool
	}{
		{"by name", "me:100000:65536\n", true},
		{"by number", "1000:100000:65536", true},
		{"another", "you:100000:65536\n", false},
		{"too few", "me:100000:1000\n", false},
		{"broken", "me:100000\nme:1:x\n", false},
		{"nothing", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := hasRange(tt.text, "me", "1000"); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestReason(t *testing.T) {
	out := "Ign:1 http://x\nErr:1 http://x\n  Could not resolve\nE: Failed to fetch http://x  Could not resolve 'x'\nE: Download Failed\n"
	if got := reason(out, errors.New("exit status 100")); got != "Failed to fetch http://x  Could not resolve 'x'" {
		t.Errorf("got %q", got)
	}
	if got := reason("", errors.New("exit status 100")); got != "exit status 100" {
		t.Errorf("got %q", got)
	}
}
