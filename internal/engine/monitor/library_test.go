package monitor

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTraced(t *testing.T) {
	for name, c := range map[string]struct {
		said string
		want []string
	}{
		"libraries": {
			"\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007fb1)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007fb2)\n",
			[]string{"/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"},
		},
		"one is missing":  {"\tlibz.so.1 => /lib/libz.so.1 (0x1)\n\tlibodd.so.1 => not found\n", nil},
		"another program": {"QEMU emulator version 7.2.22\n", nil},
		"nothing":         {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := traced(c.said); !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// TestLinked: what a program of this host needs is known by name; of what is none, where it may be.
func TestLinked(t *testing.T) {
	dir, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	if l := linked(t.Context(), dir); len(l.Dirs) != 0 || !slices.ContainsFunc(l.Files, func(f string) bool { return strings.Contains(f, "libc") }) {
		t.Errorf("%s: %+v", dir, l)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700); err != nil { //nolint:gosec // it must run
		t.Fatal(err)
	}
	if l := linked(t.Context(), script); len(l.Files) != 0 || !slices.Contains(l.Dirs, "/usr/lib") {
		t.Errorf("a script: %+v", l)
	}
	static := filepath.Join(t.TempDir(), "static")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", static, "github.com/smolvm/smolvm/internal/engine/enginetest/testguest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if l := linked(t.Context(), static); len(l.Files)+len(l.Dirs) != 0 {
		t.Errorf("a static program: %+v", l)
	}
}
