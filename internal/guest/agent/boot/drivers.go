package boot

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// lacks begins the line by which the host learns what a kernel lacks; internal/supervisor/diagnose reads it.
const lacks = "smolvm: the kernel has no driver for: "

// ErrDrivers is why a guest cannot go on whose kernel reaches none of what it was given.
var ErrDrivers = errors.New("the kernel has no driver for what the machine has")

// driver is what a kernel needs for a device, by virtio's number of it.
type driver struct{ id, name, option string }

func drivers() []driver {
	return []driver{
		{"0x0001", "virtio_net", "CONFIG_VIRTIO_NET"},
		{"0x0002", "virtio_blk", "CONFIG_VIRTIO_BLK"},
		{"0x0003", "virtio_console", "CONFIG_VIRTIO_CONSOLE"},
		{"0x0013", "vmw_vsock_virtio_transport", "CONFIG_VIRTIO_VSOCKETS"},
	}
}

// CheckDrivers says on the console what the kernel lacks. Its error says that nothing will come of waiting.
func CheckDrivers(log *slog.Logger) error {
	missing, fatal := lacking("/sys", proc)
	if len(missing) == 0 {
		return nil
	}
	// One write, so that no message of the kernel's comes in between.
	_, _ = os.Stderr.WriteString("\n" + lacks + strings.Join(missing, ", ") + "\n")
	if fatal {
		return ErrDrivers
	}
	log.Warn("the guest may do without")
	return nil
}

// lacking names the drivers and file systems that a kernel lacks, and tells whether the host can be reached without.
func lacking(sys, proc string) (missing []string, fatal bool) {
	devices, _ := filepath.Glob(filepath.Join(sys, "bus/virtio/devices/*"))
	if len(devices) == 0 {
		missing, fatal = append(missing, "virtio_mmio (CONFIG_VIRTIO_MMIO)"), true
	}
	for _, d := range devices {
		id, err := os.ReadFile(filepath.Join(d, "device"))
		if err != nil {
			continue
		}
		at := slices.IndexFunc(drivers(), func(w driver) bool { return w.id == strings.TrimSpace(string(id)) })
		if _, err := os.Stat(filepath.Join(d, "driver")); at < 0 || err == nil {
			continue
		}
		w := drivers()[at]
		if text := w.name + " (" + w.option + ")"; !slices.Contains(missing, text) {
			missing = append(missing, text)
		}
		fatal = fatal || w.name != "virtio_net"
	}
	systems, err := os.ReadFile(filepath.Join(proc, "filesystems"))
	for name, option := range map[string]string{"ext4": "CONFIG_EXT4_FS", "overlay": "CONFIG_OVERLAY_FS"} {
		if err == nil && !slices.Contains(strings.Fields(string(systems)), name) {
			missing, fatal = append(missing, name+" ("+option+")"), true
		}
	}
	slices.Sort(missing)
	return missing, fatal
}
