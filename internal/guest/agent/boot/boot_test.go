package boot

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/need"
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

func TestContainsField(t *testing.T) {
	if !containsField("quiet smolvm.raw panic=-1\n", "smolvm.raw") || containsField("xsmolvm.raw", "smolvm.raw") {
		t.Error("words of the command line are told apart wrongly")
	}
}

// TestLimitsAsked: what the host asks for goes before what the memory says, and what keeps output is not the commands'.
func TestLimitsAsked(t *testing.T) {
	usual := limits(&proto.ConfigureRequest{OutputBytes: 1 << 20})
	asked := limits(&proto.ConfigureRequest{MaxProcesses: 99, OutputBytes: 16 << 20})
	if asked.Pids != 99 || usual.Pids == 99 || usual.Memory-asked.Memory != 24<<20 {
		t.Errorf("%+v, then %+v", usual, asked)
	}
}

// TestLimits: what small and large machines leave to the user's commands.
func TestLimits(t *testing.T) {
	tests := []struct {
		total, memory uint64
		pids          int
	}{
		{128 << 20, 96 << 20, 256},
		{512 << 20, 448 << 20, 1024},
		{1 << 30, 960 << 20, 2048},
		{64 << 30, 64<<30 - 64<<20, 1 << 15},
	}
	for _, tt := range tests {
		if got := limitsFor(tt.total); got.Memory != tt.memory || got.Pids != tt.pids {
			t.Errorf("of %d MiB: %d MiB and %d processes, want %d and %d", tt.total>>20, got.Memory>>20, got.Pids, tt.memory>>20, tt.pids)
		}
	}
}

// TestExtent reads the size of a file system that mkfs.ext4 made, and refuses what is none.
func TestExtent(t *testing.T) {
	mkfs := need.Tool(t, "mkfs.ext4", "apt-get install e2fsprogs")
	for _, c := range []struct {
		opts         []string
		size, blocks uint64
	}{
		{[]string{"-b", "4096"}, 4096, 4096},
		{[]string{"-b", "1024", "-O", "^64bit"}, 1024, 16384},
	} {
		path := filepath.Join(t.TempDir(), "img")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 16<<20); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), mkfs, append(c.opts, "-q", path)...).CombinedOutput(); err != nil { //nolint:gosec // ours
			t.Fatalf("%v\n%s", err, out)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		size, blocks, err := extent(b[superOffset : superOffset+superSize])
		if err != nil || size != c.size || blocks != c.blocks {
			t.Errorf("%v: %d blocks of %d, %v", c.opts, blocks, size, err)
		}
	}
	if _, _, err := extent(make([]byte, superSize)); err == nil {
		t.Error("zeros are a file system")
	}
}
