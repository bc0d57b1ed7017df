package link

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestFindDrives(t *testing.T) {
	sys := t.TempDir()
	for dev, serial := range map[string]string{"vda": "image\n", "vdb": "disk", "sda": "other"} {
		if err := os.MkdirAll(filepath.Join(sys, dev), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys, dev, "serial"), []byte(serial), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		cmdline string
		want    map[string]string
	}{
		{"quiet", map[string]string{"image": "/dev/vda", "disk": "/dev/vdb"}},
		{"quiet smolvm.drives=modules,disk ro", map[string]string{"modules": "/dev/vda", "disk": "/dev/vdb"}},
		{"smolvm.drives=a,,c", map[string]string{"a": "/dev/vda"}}, // there is no third
		{"smolvm.drives=", map[string]string{}},
	} {
		if got := findDrives(sys, tt.cmdline); !maps.Equal(got, tt.want) {
			t.Errorf("%q: %v, want %v", tt.cmdline, got, tt.want)
		}
	}
}
