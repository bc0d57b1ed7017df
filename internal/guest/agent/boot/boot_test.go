package boot

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHosts(t *testing.T) {
	fresh := hosts("", "vm-1")
	tests := []struct{ name, old, host, want string }{
		{"same name", fresh, "vm-1", fresh},
		{
			"new name keeps the user's lines", "1.2.3.4 mine\n127.0.1.1 old " + hostsMark + "\n5.6.7.8 also", "new",
			"1.2.3.4 mine\n5.6.7.8 also\n127.0.1.1 new " + hostsMark + "\n",
		},
		{"no name", "1.2.3.4 mine\n", "", "1.2.3.4 mine\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := hosts(tt.old, tt.host); got != tt.want {
				t.Errorf("hosts = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestUpdateLeavesEqualFilesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc/file")
	if err := update(path, "one\n", 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := update(path, "one\n", 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := os.Stat(path); err != nil || !os.SameFile(first, again) {
		t.Errorf("an equal file was replaced (%v)", err)
	}
	if err := update(path, "two\n", 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); string(b) != "two\n" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestDrives(t *testing.T) {
	sys := t.TempDir()
	for dev, serial := range map[string]string{"vda": "image\n", "vdb": "disk", "sda": "other"} {
		if err := os.MkdirAll(filepath.Join(sys, dev), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys, dev, "serial"), []byte(serial), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := drives(sys)
	if len(got) != 2 || got["image"] != "/dev/vda" || got["disk"] != "/dev/vdb" {
		t.Errorf("drives = %v", got)
	}
}

func TestContainsField(t *testing.T) {
	if !containsField("quiet smolvm.raw panic=-1\n", "smolvm.raw") || containsField("xsmolvm.raw", "smolvm.raw") {
		t.Error("words of the command line are told apart wrongly")
	}
}
