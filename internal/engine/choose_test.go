package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/fake"
)

// TestChoose: hardware goes before emulation, and an engine that is not there is passed over unless it is asked for.
func TestChoose(t *testing.T) {
	kvm, tcg := engine.Accel{Name: "kvm"}, engine.Accel{Name: "tcg", Emulated: true}
	first := fake.Options{Name: "first", Caps: engine.Caps{Version: "1", Accels: []engine.Accel{kvm}}}
	second := fake.Options{Name: "second", Caps: engine.Caps{Version: "1", Accels: []engine.Accel{kvm, tcg}}}
	emulated := fake.Options{Name: "first", Caps: engine.Caps{Version: "1", Accels: []engine.Accel{tcg}}}
	broken := func(o fake.Options) fake.Options {
		o.ProbeErr = errdefs.Host.Errorf("%s is not installed", o.Name)
		return o
	}
	for _, tt := range []struct {
		name    string
		engines []fake.Options
		ask     string
		want    string
	}{
		{"both", []fake.Options{first, second}, "", "[kvm with first kvm with second tcg with second]"},
		{"auto", []fake.Options{first, second}, "auto", "[kvm with first kvm with second tcg with second]"},
		{"emulation last", []fake.Options{emulated, second}, "", "[kvm with second tcg with first tcg with second]"},
		{"named", []fake.Options{first, second}, "second", "[kvm with second tcg with second]"},
		{"one is not there", []fake.Options{broken(first), second}, "", "[kvm with second tcg with second]"},
		{"none is there", []fake.Options{broken(first), broken(second)}, "", "second is not installed"},
		{"the named one is not there", []fake.Options{broken(first), second}, "first", "first is not installed"},
		{"another", []fake.Options{first, second}, "third", `engine "third": it is none of auto, first, second`},
		{"none at all", nil, "", "no engine in this program"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &engine.Registry{}
			for _, o := range tt.engines {
				r.MustAdd(fake.New(o))
			}
			got, err := r.Choose(t.Context(), tt.ask)
			if err != nil {
				if len(got) > 0 || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, %v", got, err)
				}
				return
			}
			if fmt.Sprint(got) != tt.want {
				t.Errorf("%v, want %s", got, tt.want)
			}
		})
	}
	if err := (&engine.Registry{}).Check("x"); errdefs.ClassOf(err) != errdefs.Invalid {
		t.Error(err)
	}
}
