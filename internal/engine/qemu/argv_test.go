package qemu

import (
	"flag"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/internal/engine"
)

var update = flag.Bool("update", false, "write the golden files")

func TestArgv(t *testing.T) {
	whole := engine.Spec{
		Name: "odd,name", CPUs: 2, MemoryMiB: 512, Accel: accelTCG, Cmdline: "loglevel=6",
		NIC: &engine.NIC{MAC: net.HardwareAddr{2, 0x53, 0x4d, 0, 0, 1}, MTU: 65520},
	}
	numbers := fds{
		kernel: 5, initrd: 6, qmp: 7, console: 8, agent: 13, nic: 14,
		drives: []driveFDs{{id: "image", read: 9}, {id: "disk", read: 10, write: 11}, {id: "modules", read: 12}},
	}
	limited := numbers
	limited.drives = slices.Clone(numbers.drives)
	limited.drives[1].limit = engine.IOLimit{BytesPerSecond: 20 << 20, OpsPerSecond: 500}
	disposable := numbers
	disposable.drives = slices.Clone(numbers.drives)
	disposable.drives[1].disposable = true
	kvm := whole
	kvm.Accel = "kvm"
	unfiltered := whole
	unfiltered.NIC = &engine.NIC{MAC: whole.NIC.MAC, MTU: 1500, Unfiltered: true}
	alone := numbers
	alone.nic = 0
	for name, c := range map[string]struct {
		spec engine.Spec
		fds  fds
		khz  uint64
	}{
		"tcg":        {whole, numbers, 2_399_998},
		"kvm":        {kvm, numbers, 0},
		"limited":    {kvm, limited, 0},
		"disposable": {kvm, disposable, 0},
		"unfiltered": {unfiltered, alone, 2_399_998},
		"minimal":    {engine.Spec{Name: "m", CPUs: 1, MemoryMiB: 64, Accel: accelTCG}, fds{kernel: 5, qmp: 6, console: 7}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(argv(&c.spec, c.fds, c.khz), "\n") + "\n"
			golden := filepath.Join("testdata", name+".argv")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("%v; go test ./internal/engine/qemu -update", err)
			}
			if got != string(want) {
				t.Errorf("argv of %s:\n%s\nwant\n%s", name, got, want)
			}
			for a := range strings.FieldsSeq(got) { // nothing of ours by path
				if strings.HasPrefix(a, "/") && !strings.HasPrefix(a, "/proc/self/fd/") {
					t.Errorf("%s is a path", a)
				}
			}
		})
	}
}
