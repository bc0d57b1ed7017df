package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
)

// script writes a program that says it is some QEMU.
func script(t *testing.T, says string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+says+"'\n"), 0o755); err != nil { //nolint:gosec // it must run
		t.Fatal(err)
	}
	return path
}

func TestProbe(t *testing.T) {
	for _, c := range []struct {
		says, version, err string
		tested             bool
	}{
		{"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "7.2.22", "", true},
		{"QEMU emulator version 10.0.3 (Debian 1:10.0.3+ds-0+deb13u1)", "10.0.3", "", true},
		{"QEMU emulator version 8.2", "8.2.0", "", false},
		{"QEMU emulator version 7.1.0", "", "is QEMU 7.1.0; 7.2 or newer is needed", false},
		{"Bochs 2.7", "", "it is no QEMU", false},
		{"", "", "it is no QEMU", false},
	} {
		t.Run(c.says, func(t *testing.T) {
			e := New(Options{Program: script(t, c.says), CacheDir: t.TempDir()})
			caps, err := e.Probe(t.Context())
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || errdefs.ClassOf(err) != errdefs.Host || errdefs.RemedyOf(err) == "" {
					t.Errorf("%v, want %q of class host with a remedy", err, c.err)
				}
				return
			}
			if err != nil || caps.Version != c.version || caps.Tested != c.tested {
				t.Errorf("%+v, %v", caps, err)
			}
		})
	}
	_, err := New(Options{Program: "/nonexistent/qemu"}).Probe(t.Context())
	if errdefs.ClassOf(err) != errdefs.Host || errdefs.RemedyOf(err) != installRemedy {
		t.Errorf("no program: %v", err)
	}
}

// TestProbeOnce: the program is asked again only when its file is another one.
func TestProbeOnce(t *testing.T) {
	path := script(t, "QEMU emulator version 7.2.1")
	e := New(Options{Program: path, CacheDir: t.TempDir()})
	first, err := e.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(script(t, "QEMU emulator version 7.2.2"), path); err != nil {
		t.Fatal(err)
	}
	second, err := e.Probe(t.Context())
	if err != nil || second.Version != "7.2.2" || second.Build == first.Build {
		t.Errorf("%+v, %v; before %+v", second, err, first)
	}
}
