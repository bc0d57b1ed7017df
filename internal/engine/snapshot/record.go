// Package snapshot is what a machine's snapshot is on disk: a directory with the devices' state, the memory, and a record of
// what it was taken from, which is written last. Drivers write and open them here, so that all are checked in the same way.
//
// Layer: engine, below the drivers. It imports engine, errdefs and internal/sys.
package snapshot

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
)

// The files of a snapshot.
const (
	recordName = "snapshot.json"
	stateName  = "state"
	memoryName = "memory"
)

const recordVersion = 1

// Record is what a snapshot was taken from. What goes on from it must be the same: the monitor reads its own state, and no
// version of Firecracker reads another's.
type Record struct {
	Version       int     `json:"version"`
	Engine        string  `json:"engine"`
	EngineVersion string  `json:"engine_version"`
	Accel         string  `json:"accel"`
	Host          string  `json:"host"` // processor and kernel, see Host
	CPUs          int     `json:"cpus"`
	MemoryMiB     int     `json:"memory_mib"`
	Drives        []Drive `json:"drives"`
	MAC           string  `json:"mac,omitempty"` // of the card; "" = none
	State         File    `json:"state"`
	Memory        File    `json:"memory"`
}

// Drive is a drive of the machine. Its content is not in the snapshot.
type Drive struct {
	ID       string `json:"id"`
	ReadOnly bool   `json:"read_only"`
	Bytes    int64  `json:"bytes"`
}

// File is a file of the snapshot. The sum, CRC-32C, tells of damage, not of ill will: who can write here can write the record.
type File struct {
	Bytes int64  `json:"bytes"`
	Sum   uint32 `json:"crc32c"`
}

// Of describes the machine that spec makes, as it runs by h.
func Of(spec *engine.Spec, h engine.Handle) (Record, error) {
	host, err := Host()
	if err != nil {
		return Record{}, err
	}
	r := Record{
		Version: recordVersion, Engine: h.Engine, EngineVersion: h.EngineVer, Accel: spec.Accel, Host: host,
		CPUs: spec.CPUs, MemoryMiB: spec.MemoryMiB,
	}
	for _, d := range spec.Drives {
		st, err := d.File.Stat()
		if err != nil {
			return Record{}, errdefs.Host.Errorf("drive %s: %w", d.ID, err)
		}
		r.Drives = append(r.Drives, Drive{ID: d.ID, ReadOnly: d.ReadOnly, Bytes: st.Size()})
	}
	if spec.NIC != nil {
		r.MAC = spec.NIC.MAC.String()
	}
	return r, nil
}

// Host names what a snapshot depends on besides the monitor: another kind of processor lacks what the guest has seen, and
// another kernel may keep its state in another form.
func Host() (string, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return "", errdefs.Host.Errorf("this host's kernel: %w", err)
	}
	cpu, err := processor("/proc/cpuinfo")
	if err != nil {
		return "", errdefs.Host.Errorf("this host's processor: %w", err)
	}
	return cpu + ", Linux " + unix.ByteSliceToString(uts.Release[:]), nil
}

// processor is the first processor's name and number.
func processor(path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // /proc/cpuinfo
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	facts := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan() && lines.Text() != ""; {
		key, value, _ := strings.Cut(lines.Text(), ":")
		facts[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	if facts["vendor_id"] == "" { // not x86
		return "unknown processor", nil
	}
	return fmt.Sprintf("%s %s/%s/%s (%s)", facts["vendor_id"], facts["cpu family"], facts["model"], facts["stepping"], facts["model name"]), nil
}

// Fits refuses a machine that is not what the snapshot was taken from, and a monitor or host that cannot go on with it.
func (r *Record) Fits(spec *engine.Spec, engineName, version string) error {
	host, err := Host()
	if err != nil {
		return err
	}
	for _, c := range []struct{ what, was, is string }{
		{"engine", r.Engine, engineName},
		{"engine's version", r.EngineVersion, version},
		{"host", r.Host, host},
	} {
		if c.was != c.is {
			return errdefs.Engine.Errorf("the snapshot was taken with another %s: %s, and this is %s; it has to be made again", c.what, c.was, c.is)
		}
	}
	for _, c := range []struct {
		what    string
		was, is any
	}{
		{"accelerator", r.Accel, spec.Accel},
		{"number of CPUs", r.CPUs, spec.CPUs},
		{"memory in MiB", r.MemoryMiB, spec.MemoryMiB},
		{"number of drives", len(r.Drives), len(spec.Drives)},
		{"network card", r.MAC, mac(spec.NIC)},
	} {
		if c.was != c.is {
			return errdefs.Invalid.Errorf("the machine of the snapshot has another %s: %v, not %v", c.what, c.was, c.is)
		}
	}
	for i, was := range r.Drives {
		if err := was.fits(spec.Drives[i]); err != nil {
			return err
		}
	}
	return nil
}

func mac(n *engine.NIC) string {
	if n == nil {
		return ""
	}
	return n.MAC.String()
}

func (d Drive) fits(is engine.Drive) error {
	st, err := is.File.Stat()
	switch {
	case err != nil:
		return errdefs.Host.Errorf("drive %s: %w", is.ID, err)
	case d.ID != is.ID || d.ReadOnly != is.ReadOnly:
		return errdefs.Invalid.Errorf("the machine of the snapshot has the drive %s (read only: %t), not %s (read only: %t)", d.ID, d.ReadOnly, is.ID, is.ReadOnly)
	case d.Bytes != st.Size():
		return errdefs.Invalid.Errorf("drive %s of the snapshot's machine has %d bytes, not %d", d.ID, d.Bytes, st.Size())
	}
	return nil
}
