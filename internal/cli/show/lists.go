package show

import (
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"

	"github.com/smolvm/smolvm/api"
)

// VMs prints the VMs for people. The column of ports is there where one publishes some, the last one for those that have something
// to tell.
func VMs(w io.Writer, vms []api.Sandbox, now time.Time) error {
	columns := []string{"ID", "STATE", "IMAGE", "CPUS", "MEMORY", "AGE", "PORTS", "REASON"}
	ports := slices.ContainsFunc(vms, func(vm api.Sandbox) bool { return len(vm.Ports) > 0 })
	row := func(t *tabwriter.Writer, cells ...string) {
		if !ports {
			cells = slices.Delete(cells, 6, 7)
		}
		Row(t, cells...)
	}
	if !ports {
		columns = slices.Delete(columns, 6, 7)
	}
	t := Table(w, columns...)
	for _, vm := range vms {
		row(
			t, vm.ID, string(vm.State), cmp.Or(vm.Config.Image, vm.Config.RootfsPath), strconv.Itoa(vm.Config.CPUs),
			units.CustomSize("%.4g %s", float64(vm.Config.MemoryMiB), 1024, []string{"MiB", "GiB", "TiB"}),
			Age(vm.CreatedAt, now), Ports(vm.Ports), vm.Reason,
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

// Ports tells the published ports in a few words.
func Ports(ports []api.Port) string {
	var texts []string
	for _, p := range ports {
		host := p.Host()
		switch {
		case p.HostPort == 0:
			host = "any"
		case p.Address == api.DefaultAddress:
			host = strconv.Itoa(p.HostPort)
		}
		texts = append(texts, host+"->"+strconv.Itoa(p.GuestPort))
	}
	return strings.Join(texts, ", ")
}
