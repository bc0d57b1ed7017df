package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/api"
)

// former is the program of the commit before this one: SMOLVM_OLD_BIN, or built here in a worktree of git's.
func former(t *testing.T) cli {
	t.Helper()
	if bin := os.Getenv("SMOLVM_OLD_BIN"); bin != "" {
		return cli{bin}
	}
	top := filepath.Join("..", "..")
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = top
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	for _, tool := range []string{"git", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no SMOLVM_OLD_BIN, and no %s to build it with", tool)
		}
	}
	parent, err := git("rev-parse", "--verify", "--quiet", "HEAD~1")
	if err != nil {
		t.Skipf("no SMOLVM_OLD_BIN, and this is no git tree with a commit before this one: %s", parent)
	}
	tree := filepath.Join(t.TempDir(), "old")
	if out, err := git("worktree", "add", "--detach", tree, parent); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer func() { _, _ = git("worktree", "remove", "--force", tree) }()
	build := exec.CommandContext(t.Context(), filepath.Join(tree, "script", "build"))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the commit before this one: %v: %s", err, out)
	}
	bin := filepath.Join(t.TempDir(), "smolvm")
	if err := os.Rename(filepath.Join(tree, "bin", "smolvm"), bin); err != nil {
		t.Fatal(err)
	}
	return cli{bin}
}

// duplicate puts a copy of the program where a test may do with it what it likes.
func (c cli) duplicate(t *testing.T) cli {
	t.Helper()
	b, err := os.ReadFile(c.bin)
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "smolvm")
	write(t, bin, b, 0o755)
	return cli{bin}
}

// TestVMLongUpgrade: VMs that the commit before this one started are ours to list, use, stop and start again, and what was at
// the program's place does not matter to those that run.
func TestVMLongUpgrade(t *testing.T) {
	c := program(t)
	old := former(t).duplicate(t)
	id := c.name(t, "upgrade")
	old.ok(t, "create", "--name", id, "--memory", "256")
	old.ok(t, "start", id)
	old.sh(t, id, "echo kept >/root/file")
	t.Run("another program in its place", func(t *testing.T) {
		b, err := os.ReadFile(c.bin)
		if err != nil {
			t.Fatal(err)
		}
		write(t, old.bin+".new", b, 0o755)
		if err := os.Rename(old.bin+".new", old.bin); err != nil {
			t.Fatal(err)
		}
		used(t, c, id)
		used(t, old, id) // the new one, by the old one's name
	})
	t.Run("none in its place", func(t *testing.T) {
		if err := os.Remove(old.bin); err != nil {
			t.Fatal(err)
		}
		used(t, c, id)
	})
	c.ok(t, "stop", id)
	if s := c.inspect(t, id); s.State != api.StateStopped || s.Reason != "stopped" {
		t.Errorf("it is %s: %s", s.State, s.Reason)
	}
	nobody(t, id)

	// And with a program of ours that is gone as soon as it runs: its children are still itself.
	mine := c.duplicate(t)
	b := mine.background(t, "run", "--name", id+"-run", "--memory", "256", "--", "sh", "-c", "echo up; read line; echo end")
	if err := os.Remove(mine.bin); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"up", "end"} {
		if got := b.line(t); got != want {
			t.Errorf("without its file the program printed %q", got)
		}
	}
	<-b.ended
	c.gone(t, id+"-run")

	c.ok(t, "start", id)
	used(t, c, id)
	c.ok(t, "rm", "-f", id)
	c.gone(t, id)
}

// used checks that a VM is listed and answers.
func used(t *testing.T, c cli, id string) {
	t.Helper()
	if s, there := c.list(t)[id]; !there || s.State != api.StateRunning {
		t.Errorf("it is listed as %q: %s", s.State, s.Reason)
	}
	if got := c.sh(t, id, "cat /root/file"); got != "kept\n" {
		t.Errorf("its file holds %q", got)
	}
}
