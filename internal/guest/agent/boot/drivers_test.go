package boot

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestLacking: devices without a driver are named, and whether the host can be reached without them.
func TestLacking(t *testing.T) {
	type device struct {
		id     string
		driven bool
	}
	const both = "nodev\toverlay\n\text4\n"
	for _, tt := range []struct {
		name    string
		devices []device
		systems string
		want    []string
		fatal   bool
	}{
		{"all there", []device{{"0x0001", true}, {"0x0002", true}, {"0x0003", true}, {"0x0004", false}}, both, nil, false},
		{"no bus", nil, both, []string{"virtio_mmio (CONFIG_VIRTIO_MMIO)"}, true},
		{"no disks", []device{{"0x0002", false}, {"0x0002", false}, {"0x0003", true}}, both, []string{"virtio_blk (CONFIG_VIRTIO_BLK)"}, true},
		{"no card", []device{{"0x0001", false}, {"0x0002", true}}, both, []string{"virtio_net (CONFIG_VIRTIO_NET)"}, false},
		{"no way to the host", []device{{"0x0003", false}, {"0x0013", false}}, both, []string{"virtio_console (CONFIG_VIRTIO_CONSOLE)", "vmw_vsock_virtio_transport (CONFIG_VIRTIO_VSOCKETS)"}, true},
		{"no overlay", []device{{"0x0002", true}}, "\text4\n", []string{"overlay (CONFIG_OVERLAY_FS)"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sys, proc := t.TempDir(), t.TempDir()
			for i, d := range tt.devices {
				dir := filepath.Join(sys, "bus/virtio/devices", "virtio"+string(rune('0'+i)))
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "device"), []byte(d.id+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				if d.driven {
					if err := os.Symlink("x", filepath.Join(dir, "driver")); err != nil {
						t.Fatal(err)
					}
					if err := os.Mkdir(filepath.Join(dir, "x"), 0o700); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := os.WriteFile(filepath.Join(proc, "filesystems"), []byte(tt.systems), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, fatal := lacking(sys, proc); !slices.Equal(got, tt.want) || fatal != tt.fatal {
				t.Errorf("%q, %v", got, fatal)
			}
		})
	}
}
