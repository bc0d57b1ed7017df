package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/need"
)

// TestNewDisk has e2fsck judge disks of several sizes: the default one needs no growing.
func TestNewDisk(t *testing.T) {
	fsck := need.Tool(t, "e2fsck", "apt-get install e2fsprogs")
	for _, c := range []struct{ sizeMiB, fsMiB int }{
		{MinDiskMiB, MinDiskMiB}, {1024, MinDiskMiB}, {api.DefaultDiskMiB, api.DefaultDiskMiB}, {100 << 10, api.DefaultDiskMiB},
	} {
		t.Run(strconv.Itoa(c.sizeMiB), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk")
			if err := NewDisk(path, c.sizeMiB); err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(path)
			if err != nil || st.Size() != int64(c.sizeMiB)<<20 {
				t.Fatalf("size %d, %v", st.Size(), err)
			}
			if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > 1<<20 {
				t.Errorf("it takes %d bytes", used)
			}
			out, err := exec.CommandContext(t.Context(), fsck, "-fn", path).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if want := "/" + strconv.Itoa(c.fsMiB*256) + " blocks"; !strings.Contains(string(out), want) {
				t.Errorf("the file system is not one of %s:\n%s", want, out)
			}
		})
	}
	for _, size := range []int{MinDiskMiB - 1, MaxDiskMiB + 1, -1} {
		if err := NewDisk(filepath.Join(t.TempDir(), "disk"), size); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("%d MiB: %v", size, err)
		}
	}
}

func BenchmarkNewDisk(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		path := filepath.Join(dir, "disk")
		if err := NewDisk(path, api.DefaultDiskMiB); err != nil {
			b.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			b.Fatal(err)
		}
	}
}
