package show

import (
	"io"
	"strconv"
	"time"

	"github.com/docker/go-units"

	"github.com/smolvm/smolvm/api"
)

// VMs prints the VMs for people. The last column is there for those that have something to tell.
func VMs(w io.Writer, vms []api.Sandbox, now time.Time) error {
	t := Table(w, "ID", "STATE", "IMAGE", "CPUS", "MEMORY", "AGE", "REASON")
	for _, vm := range vms {
		Row(
			t, vm.ID, string(vm.State), vm.Config.Image, strconv.Itoa(vm.Config.CPUs),
			units.CustomSize("%.4g %s", float64(vm.Config.MemoryMiB), 1024, []string{"MiB", "GiB", "TiB"}),
			Age(vm.CreatedAt, now), vm.Reason,
		)
	}
	return t.Flush()
}

// Figure is a figure's value and its judgement.
func Figure(f api.Figure) (value, ok string) {
	value = strconv.FormatFloat(f.Value, 'g', 4, 64) + " " + f.Unit
	switch {
	case f.Skipped != "":
		return "-", "skipped: " + f.Skipped
	case !f.OK:
		return value, "NO"
	case f.Goal == "":
		return value, ""
	}
	return value, "yes"
}
