package link

import (
	"os"
	"path/filepath"
	"strings"
)

// FindDrives maps the id of each virtio drive to its device. It is the drive's serial, unless the kernel's command line
// names them in their order.
func FindDrives() map[string]string {
	line, _ := os.ReadFile("/proc/cmdline")
	return findDrives("/sys/block", string(line))
}

func findDrives(sys, cmdline string) map[string]string {
	found := map[string]string{}
	for word := range strings.FieldsSeq(cmdline) {
		if list, ok := strings.CutPrefix(word, DrivesParam); ok {
			for i, id := range strings.Split(list, ",") {
				if dev := "vd" + string(rune('a'+i)); i < 26 && id != "" && exists(filepath.Join(sys, dev)) {
					found[id] = "/dev/" + dev
				}
			}
			return found
		}
	}
	names, _ := filepath.Glob(filepath.Join(sys, "vd*", "serial"))
	for _, n := range names {
		if b, err := os.ReadFile(n); err == nil {
			found[strings.TrimSpace(string(b))] = "/dev/" + filepath.Base(filepath.Dir(n))
		}
	}
	return found
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
