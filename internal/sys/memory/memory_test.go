package memory

import (
	"os"
	"path/filepath"
	"testing"
)

const meminfo = "MemTotal:       16777216 kB\nMemFree:         1 kB\nMemAvailable:    8388608 kB\nHugePages_Total:       0\n"

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  Size
	}{
		{"a host", nil, Size{16 << 30, 8 << 30}},
		{
			"a group", map[string]string{
				"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n",
				"sys/fs/cgroup/a/memory.max": "4294967296\n", "sys/fs/cgroup/a/memory.current": "1073741824\n",
			}, Size{4 << 30, 3 << 30},
		},
		{
			"a group of version 1", map[string]string{
				"proc/self/cgroup": "9:memory:/a\n0::/\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "2147483648\n",
				"sys/fs/cgroup/memory/a/memory.usage_in_bytes": "3000000000\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			}, Size{2 << 30, 1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, "proc/meminfo", meminfo)
			for name, content := range c.files {
				write(t, root, name, content)
			}
			if got, err := read(root); got != c.want || err != nil {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		})
	}
	if _, err := read(t.TempDir()); err == nil {
		t.Error("no meminfo and no error")
	}
}

func TestNow(t *testing.T) {
	if s, err := Now(); err != nil || s.Available <= 0 || s.Total < s.Available {
		t.Errorf("%+v, %v", s, err)
	}
}

func write(t *testing.T, root, name, content string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
