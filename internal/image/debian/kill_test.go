package debian

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/sys/launch"
	"github.com/smolvm/smolvm/internal/sys/nsinit"
)

// victim is a build in a process of its own, with the processes below it by name.
type victim struct {
	cmd     *exec.Cmd
	scratch string
	pids    map[string]int
	pidNS   string // of the namespaces
}

// startVictim starts a build and returns when it unpacks packages.
func startVictim(t *testing.T, memory int64) victim {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v := victim{scratch: t.TempDir(), pids: map[string]int{}}
	v.cmd = exec.CommandContext(t.Context(), self, buildCommand, v.scratch, strconv.FormatInt(memory, 10))
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	unpacks := false
	for !unpacks && lines.Scan() {
		unpacks = strings.HasPrefix(lines.Text(), "unpack ")
	}
	if !unpacks {
		t.Fatalf("the build ended before it unpacked: %v", v.cmd.Wait())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	v.pids["smolvm"] = v.cmd.Process.Pid
	v.pids["unshare"] = child(t, v.pids["smolvm"])
	v.pids["init"] = child(t, v.pids["unshare"])
	v.pids["mmdebstrap"] = child(t, v.pids["init"])
	v.pidNS, err = os.Readlink("/proc/" + strconv.Itoa(v.pids["mmdebstrap"]) + "/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// child returns the only child of a process.
func child(t *testing.T, parent int) int {
	t.Helper()
	found, err := filepath.Glob("/proc/" + strconv.Itoa(parent) + "/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, f := range found {
		b, err := os.ReadFile(f)
		if err == nil {
			pids = append(pids, strings.Fields(string(b))...)
		}
	}
	if len(pids) != 1 {
		t.Fatalf("process %d has the children %v", parent, pids)
	}
	pid, err := strconv.Atoi(pids[0])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// gone waits until no process is left in the namespaces.
func (v victim) gone(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		var left []string
		found, err := filepath.Glob("/proc/[0-9]*/ns/pid")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if ns, err := os.Readlink(f); err == nil && ns == v.pidNS {
				left = append(left, f)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still there: %v", left)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestVMKillLeavesNothing kills each process of a build, one at a time, with no chance to clean up.
func TestVMKillLeavesNothing(t *testing.T) {
	slow(t)
	for _, name := range []string{"smolvm", "unshare", "init", "mmdebstrap"} {
		t.Run(name, func(t *testing.T) {
			v := startVictim(t, 8<<30)
			if err := syscall.Kill(v.pids[name], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if err := v.cmd.Wait(); err == nil {
				t.Error("the build says that it went well")
			}
			v.gone(t)
			checkNothingRuns(t)
			if left, err := os.ReadDir(v.scratch); err != nil || len(left) != 0 {
				t.Errorf("left on disk: %v, %v", left, err)
			}
		})
	}
}

// TestVMLittleMemory builds on disk, is killed, and sees the next build remove what is left, whoever owns it.
func TestVMLittleMemory(t *testing.T) {
	slow(t)
	v := startVictim(t, 1)
	if err := v.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = v.cmd.Wait() // it was killed
	v.gone(t)
	checkNothingRuns(t)
	left, err := os.ReadDir(v.scratch)
	if err != nil || len(left) != 1 {
		t.Fatalf("left on disk: %v, %v; one directory is meant", left, err)
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Fatal(err)
	}
	spec := nsinit.Spec{Unshare: unshare, UserNamespace: !launch.IsRoot()}
	done, err := Builder{memory: 8 << 30}.scratch(t.Context(), v.scratch, &spec)
	if err != nil {
		t.Fatal(err)
	}
	done()
	if left, err := os.ReadDir(v.scratch); err != nil || len(left) != 0 {
		t.Errorf("left on disk: %v, %v", left, err)
	}

	facts, err := Builder{Archive: testArchive(t), memory: 1}.Build(t.Context(), image.BuildRequest{Scratch: v.scratch}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	checkSBOM(t, facts.Packages)
	if left, err := os.ReadDir(v.scratch); err != nil || len(left) != 0 {
		t.Errorf("left on disk by a whole build: %v, %v", left, err)
	}
}
