// Package need ends tests where the machine lacks what they take: they fail in CI, whose machines have everything, and skip at
// home.
//
// Layer: for tests alone. It imports none of ours.
package need

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Tool is the path of a program, which users' PATHs may leave out when it is an administrator's.
func Tool(t testing.TB, name, remedy string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		Missing(t, name+" is not installed: "+remedy)
	}
	return path
}

// Missing ends the test for want of what.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}
